"""What the server that is attacked, and soaked, answers beside `Repeat`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from typed_amp import Command, CommandError, Large


class FetchResult(BaseModel):
    data: bytes


class Fetch(Command[FetchResult]):
    """Give an answer of some length."""

    length: Annotated[int, Field(ge=0, le=65_535)]


class TotalResult(BaseModel):
    total: int


class Total(Command[TotalResult]):
    """Add numbers, of which there may be many."""

    numbers: Annotated[list[int], Large()]


class EchoResult(BaseModel):
    data: Annotated[bytes, Large()]


class Echo(Command[EchoResult]):
    data: Annotated[bytes, Large()]


class Wait(Command):
    """Wait for what never comes."""


class Nap(Command):
    seconds: float


class OverdrawnError(CommandError):
    balance: int
    missing: int


class WithdrawResult(BaseModel):
    balance: int


class Withdraw(
    Command[WithdrawResult], errors={OverdrawnError: "OVERDRAWN", ValueError: "NOT_POSITIVE"}
):
    """Fail with a declared error, with fields or without, or succeed."""

    balance: int
    amount: int


class CallBackResult(BaseModel):
    texts: list[str]


class CallBack(Command[CallBackResult]):
    """Call `Repeat` at the caller's side, `calls` times at once."""

    text: str
    calls: Annotated[int, Field(ge=0, le=100)]


class Drop(Command):
    """Have the server close the connection, with calls under way on it."""
