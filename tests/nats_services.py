"""What the tests of NATS ask for, and who answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from pydantic import BaseModel, Field

from typed_amp import (
    Backoff,
    Command,
    CommandError,
    Large,
    NatsClient,
    NatsService,
    NotAllowedError,
    Router,
    connect_nats,
    remaining_time,
    serve_nats,
)

QUICK = Backoff(first=0.01, maximum=0.05)


class Text(BaseModel):
    text: Annotated[str, Large()]


class Seconds(BaseModel):
    seconds: float | None


class OutOfStock(CommandError):
    sku: str
    left: int = 0


class Repeat(Command[Text]):
    """Repeat a text."""

    text: Annotated[str, Large()]
    times: Annotated[int, Field(ge=0)] = 1


class Buy(Command[None], errors={OutOfStock: "OUT_OF_STOCK", KeyError: "NO_SUCH_SKU"}):
    sku: str


class Note(Command, requires_answer=False):
    line: str


class Wait(Command[Text]):
    """Waits until the test opens the gate."""

    text: str


class WaitAgain(Wait, idempotent=True):
    pass


class Left(Command[Seconds]):
    """How many seconds the responder has."""


class Nowhere(Command[Text]):
    """Nobody answers it."""


class Service:
    """A router, and what its responders have seen."""

    def __init__(self) -> None:
        self.router = Router()
        self.gate = asyncio.Event()
        self.notes: asyncio.Queue[str] = asyncio.Queue()
        self.began: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled: list[str] = []

        @self.router.responder(Repeat)
        async def repeat(command: Repeat) -> Text:
            return Text(text=command.text * command.times)

        @self.router.responder(Buy)
        async def buy(command: Buy) -> None:
            match command.sku:
                case "teapot":
                    raise OutOfStock(sku="teapot", left=2)
                case "":
                    raise NotAllowedError("say what")
                case "bug":
                    raise ZeroDivisionError
            raise KeyError(command.sku)

        @self.router.responder(Note)
        async def note(command: Note) -> None:
            self.notes.put_nowait(command.line)

        @self.router.responder(Left)
        async def left(command: Left) -> Seconds:
            return Seconds(seconds=remaining_time())

        async def wait(command: Wait) -> Text:
            self.began.put_nowait(command.text)
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(command.text)
                raise
            return Text(text=command.text)

        self.router.responder(Wait)(wait)
        self.router.responder(WaitAgain)(wait)


@asynccontextmanager
async def joined_by_nats(
    router: Router[Any], url: str, **options: Any
) -> AsyncIterator[tuple[NatsClient, NatsService]]:
    """Serve a router, and connect a client to it."""
    async with (
        serve_nats(router, url, service="calc", **options) as service,
        connect_nats(url, service="calc", backoff=QUICK) as client,
    ):
        yield client, service
