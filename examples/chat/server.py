"""Serve a chat until Ctrl-C."""

import asyncio
import logging
from dataclasses import dataclass

import typed_amp
from examples import address
from examples.chat.commands import (
    Delivered,
    Guests,
    Login,
    NameTakenError,
    NotLoggedInError,
    Reached,
    Say,
)
from typed_amp import AmpError, Connection


@dataclass
class Session:
    """What the server knows of one client. Each connection gets its own."""

    user: str | None = None


router = typed_amp.Router(state=Session)
room: dict[str, Connection[Session]] = {}


@router.responder(Login)
async def login(command: Login, connection: Connection[Session]) -> Guests:
    if command.user in room:
        raise NameTakenError(user=command.user)
    users = sorted(room)
    room[command.user] = connection
    connection.state.user = command.user
    await tell_others(connection, Delivered(text=f"{command.user} has come in"))
    return Guests(users=users)


@router.responder(Say)
async def say(command: Say, connection: Connection[Session]) -> Reached:
    user = connection.state.user
    if user is None:
        raise NotLoggedInError("log in first")
    return Reached(clients=await tell_others(connection, Delivered(text=command.text, user=user)))


@router.on_disconnect
async def leave(connection: Connection[Session]) -> None:
    user = connection.state.user
    if user is not None:
        del room[user]
        await tell_others(connection, Delivered(text=f"{user} has left"))


async def tell_others(sender: Connection[Session], message: Delivered) -> int:
    """Call all other clients at once. One that is slow or gone holds up nobody for long."""
    others = [connection for connection in room.values() if connection is not sender]
    calls = [connection.call(message, timeout=5) for connection in others]
    results = await asyncio.gather(*calls, return_exceptions=True)
    return sum(not isinstance(result, AmpError) for result in results)


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # says where it listens
    typed_amp.run(router, options.host, options.port)
