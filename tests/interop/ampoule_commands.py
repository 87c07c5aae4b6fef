"""ampoule's own commands, as typed_amp has them; `ampoule.commands` has ampoule's."""

from __future__ import annotations

from pydantic import BaseModel

from typed_amp import Command


class Response(BaseModel):
    response: bytes


class Echo(Command[Response]):
    data: bytes


class Ping(Command[Response]):
    pass


class Shutdown(Command):
    """Answered, and then the child ends."""
