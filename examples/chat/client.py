"""Chat: each line that you type goes to everybody else. Ctrl-D ends it."""

import asyncio
import sys

from examples import address
from examples.chat.commands import Delivered, Login, NameTakenError, Say
from typed_amp import Connection, Router, connect

router = Router()


@router.responder(Delivered)
async def delivered(command: Delivered) -> None:
    """Called by the server."""
    print(f"{command.user}: {command.text}" if command.user else f"* {command.text}", flush=True)


async def main(host: str, port: int, user: str) -> None:
    async with connect(host, port, router=router) as connection:
        try:
            guests = await connection.call(Login(user=user))
        except NameTakenError as error:
            sys.exit(f"{error.user} is there already; choose another name")
        print(f"* you are in, with {', '.join(guests.users) or 'nobody else'}", flush=True)
        typing = asyncio.create_task(say_what_is_typed(connection))
        closing = asyncio.create_task(connection.wait_closed())
        await asyncio.wait([typing, closing], return_when=asyncio.FIRST_COMPLETED)
        if closing.done():
            typing.cancel()
            sys.exit("the server has gone")
        closing.cancel()
        await typing


async def say_what_is_typed(connection: Connection) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    async for line in lines:
        reached = await connection.call(Say(text=line.decode().rstrip("\n")))
        print(f"* heard by {reached.clients}", flush=True)


if __name__ == "__main__":
    parser = address.parser(__doc__)
    parser.add_argument("user", help="the name to be known by")
    options = parser.parse_args()
    asyncio.run(main(options.host, options.port, options.user))
