"""Commands that several tests use, and a router that answers them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from typed_amp import Command, CommandError, Router


class Text(BaseModel):
    text: str


class Data(BaseModel):
    data: bytes


class Repeat(Command[Text]):
    """Repeat a text."""

    text: str
    times: int = Field(default=1, ge=0, le=1000)


class Echo(Command[Data]):
    """Give bytes back."""

    data: bytes


class Make(Command[Data]):
    """Make an answer of some size."""

    size: int


class Wait(Command[Text]):
    """Answered when a test says so."""

    key: int = 0


class Log(Command, requires_answer=False):
    """Noted by the peer, and never answered."""

    line: bytes


class OutOfStock(CommandError):
    sku: str
    left: int = 0


class ShopClosedError(Exception):
    """An error that ends the connection."""


class Buy(
    Command[Text],
    errors={OutOfStock: "OUT_OF_STOCK", KeyError: "NO_SUCH_SKU", ValueError: "BAD_VALUE"},
    fatal_errors={ShopClosedError: "SHOP_CLOSED"},
):
    """Fails in every declared way; tests say which."""

    sku: str = ""


class CountDown(Command[Text]):
    """Answered with the help of the caller, who is asked to count on."""

    start: int


async def echo(command: Echo) -> Data:
    return Data(data=command.data)


async def repeat(command: Repeat) -> Text:
    return Text(text=command.text * command.times)


async def make(command: Make) -> Data:
    return Data(data=bytes(command.size))


def example_router() -> Router:
    """Make a router for the commands that need no test's help."""
    router = Router()
    router.responder(Echo)(echo)
    router.responder(Repeat)(repeat)
    router.responder(Make)(make)
    return router
