"""What server and clients agree on."""

from pydantic import BaseModel

from typed_amp import Command, CommandError


class NameTakenError(CommandError):
    user: str


class NotLoggedInError(Exception):
    """Somebody speaks before saying who it is."""


class Guests(BaseModel):
    users: list[str]


class Login(Command[Guests], errors={NameTakenError: "NAME_TAKEN"}):
    """Client to server: come in. Answered with those who are there already."""

    user: str


class Reached(BaseModel):
    clients: int


class Say(Command[Reached], errors={NotLoggedInError: "NOT_LOGGED_IN"}):
    """Client to server: tell everybody else. Answered with how many have heard it."""

    text: str


class Delivered(Command):
    """Server to client: somebody said something. Without a user it is the server that speaks."""

    text: str
    user: str | None = None
