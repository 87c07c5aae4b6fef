"""What the two sides agree on: whoever logs in may keep notes."""

from pydantic import BaseModel, SecretStr

from typed_amp import Command


class WrongPasswordError(Exception):
    """The user or the password is wrong; which of them is not said."""


class Login(Command, errors={WrongPasswordError: "WRONG_PASSWORD"}):
    user: str
    password: SecretStr  # travels as a text, and is never shown


class Notes(BaseModel):
    lines: list[str]


class AddNote(Command):
    line: str


class ListNotes(Command[Notes]):
    pass
