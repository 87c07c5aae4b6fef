"""Keep notes of those who log in, until Ctrl-C. Admits connections from this machine alone."""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import os
from collections import defaultdict
from dataclasses import dataclass

import typed_amp
from examples import address
from examples.login.commands import AddNote, ListNotes, Login, Notes, WrongPasswordError
from typed_amp import Connection, NotAllowedError

logger = logging.getLogger(__name__)


@dataclass
class Session:
    user: str | None = None


public = typed_amp.Router(state=Session)
private = typed_amp.Router(state=Session)
router = typed_amp.Router(state=Session)
router.include(public)
router.include(private)


def is_local(connection: Connection[Session]) -> bool:
    match connection.remote_address:
        case (host, _):
            return ipaddress.ip_address(host).is_loopback
        case _:
            return False


@private.guard
def logged_in(connection: Connection[Session]) -> None:
    if connection.state.user is None:
        raise NotAllowedError("log in first")


def hashed(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


SALT = os.urandom(16)
USERS = {"ann": hashed("correct horse", SALT), "bob": hashed("battery staple", SALT)}
NOBODY = os.urandom(64)

notes: dict[str, list[str]] = defaultdict(list)


@public.responder(Login)
async def login(command: Login, connection: Connection[Session]) -> None:
    # Hashing takes time on purpose, which the other connections needn't wait for.
    given = await asyncio.to_thread(hashed, command.password.get_secret_value(), SALT)
    if not hmac.compare_digest(given, USERS.get(command.user, NOBODY)):
        raise WrongPasswordError("wrong user or password")
    connection.state.user = command.user
    logger.info("logged in: %r", command)  # which shows no password


@private.responder(AddNote)
async def add_note(command: AddNote, connection: Connection[Session]) -> None:
    notes[str(connection.state.user)].append(command.line)


@private.responder(ListNotes)
async def list_notes(_: ListNotes, connection: Connection[Session]) -> Notes:
    return Notes(lines=notes[str(connection.state.user)])


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # says where it listens
    typed_amp.run(router, options.host, options.port, admit=is_local)
