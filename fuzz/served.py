"""Any bytes, sent to a served connection: each ask is answered once, and nobody else notices.

Nothing may come out: no exception, no error in the log but those of the responder that fails, no
task that is left. Afterwards another connection is served as before.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections import Counter
from collections.abc import Coroutine
from typing import Annotated, Any

import trustme
from pydantic import BaseModel, Field

from fuzz.reader import pieces
from tests.example_commands import Buy, Log, OutOfStock, ShopClosedError, Text
from tests.typed_values import Everything
from typed_amp import (
    Box,
    BoxReader,
    Command,
    Connection,
    Large,
    ProtocolViolationError,
    Router,
    StartTLS,
    SwitchProtocol,
)
from typed_amp.testing import MemoryTransport, connection_pair

__all__ = ["check"]


class Value(BaseModel):
    value: Annotated[bytes, Large()]


class Large_(Command[Value], name="Large"):  # noqa: N801 - the name is short for the fuzzer
    value: Annotated[bytes, Large(max_bytes=100_000)]


class Turns(Command[Text]):
    """Answered some turns of the event loop later."""

    count: Annotated[int, Field(ge=0, le=9)]


class Back(Command[Text]):
    """Answered when the peer has answered `Turns`, or not."""


class Fail(Command):
    """Fails in a way that is not declared."""


class Close(Command):
    """Closes the connection from within."""


class Switch(SwitchProtocol):
    """To a protocol that throws away what it reads."""


class PlannedError(Exception):
    """What `Fail` raises. The log may show it."""


_TRANSITIONS = {b"StartTLS", b"Switch"}
_ENDINGS = {b"Close", b"Buy"}


@functools.cache
def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


def _router() -> Router:
    router = Router()

    @router.responder(Everything)
    async def everything(command: Everything) -> None:
        pass

    @router.responder(Large_)
    async def large(command: Large_) -> Value:
        return Value(value=command.value)

    @router.responder(Turns)
    async def turns(command: Turns) -> Text:
        for _ in range(command.count):
            await asyncio.sleep(0)
        return Text(text="done")

    @router.responder(Back)
    async def back(command: Back, connection: Connection) -> Text:
        call = asyncio.create_task(connection.call(Turns(count=1)))
        try:
            for _ in range(20):
                await asyncio.sleep(0)
        finally:
            call.cancel()
            (answer,) = await asyncio.gather(call, return_exceptions=True)
        return answer if isinstance(answer, Text) else Text(text="none")

    @router.responder(Fail)
    async def fail(command: Fail) -> None:
        raise PlannedError

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        match command.sku:
            case "":
                raise ShopClosedError
            case "k":
                raise KeyError("k")
            case "v":
                raise ValueError
            case sku:
                raise OutOfStock(sku=sku)

    @router.responder(Close)
    async def close(command: Close, connection: Connection) -> None:
        connection.close()

    @router.responder(Log)
    async def log(command: Log) -> None:
        pass

    @router.responder(StartTLS)
    async def start_tls(command: StartTLS) -> ssl.SSLContext:
        return _context()

    @router.responder(Switch)
    async def switch(command: Switch) -> asyncio.Protocol:
        return asyncio.Protocol()

    return router


class _Peer(asyncio.Protocol):
    """Keeps what it reads."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.transport: asyncio.Transport | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True


class _Errors(logging.Handler):
    """Keeps the errors in the log that were not planned."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is None or not isinstance(record.exc_info[1], PlannedError):
            self.found.append(logging.Formatter().format(record))


class _Bench:
    """An event loop and a neighbour, for all inputs of one process."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.loop = self.runner.get_loop()
        self.router = _router()
        self.errors = _Errors()
        self.loop.set_exception_handler(
            lambda _, context: self.errors.found.append(f"{context['message']}: {context!r}")
        )
        self._neighbours = connection_pair(self.router)
        self.neighbour, _ = self.run(self._neighbours.__aenter__())
        self.tasks = asyncio.all_tasks(self.loop)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(coroutine)


@functools.cache
def _bench() -> _Bench:
    return _Bench()


def check(data: bytes) -> None:
    """Send the bytes behind the first, which says how, and see what comes back."""
    bench = _bench()
    logger = logging.getLogger("typed_amp")
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(bench.errors)
    try:
        bench.run(_serve(bench, (data[:1] or b"\0")[0], data[1:]))
    finally:
        logger.removeHandler(bench.errors)
        logger.propagate = before
        found, bench.errors.found = bench.errors.found, []
    assert not found, "\n".join(found)


async def _serve(bench: _Bench, options: int, stream: bytes) -> None:
    server = Connection(bench.router, drain_timeout=0, is_server=True)
    peer = _Peer()
    ours, theirs = MemoryTransport(server), MemoryTransport(Connection())
    theirs.set_protocol(peer)
    ours.join(theirs)
    theirs.join(ours)
    for piece in pieces(stream, len(stream) or 1 if options < 2 else options - 1):
        theirs.write(piece)
        for _ in range(1 + options % 3):
            await asyncio.sleep(0)
    if is_patient := options % 2 == 0:
        for _ in range(60):
            await asyncio.sleep(0)
    theirs.close()
    async with asyncio.timeout(5):
        await server.wait_closed()
        while not peer.is_lost:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)
        while left := asyncio.all_tasks() - bench.tasks - {asyncio.current_task()}:
            await asyncio.wait(left)
        text = (await bench.neighbour.call(Turns(count=1))).text
    assert text == "done"
    _check_answers(_boxes(stream), _boxes(bytes(peer.data)), is_patient=is_patient)


def _boxes(stream: bytes) -> list[Box]:
    try:
        return BoxReader().feed(stream)
    except ProtocolViolationError as error:
        return list(error.boxes)


def _check_answers(sent: list[Box], received: list[Box], *, is_patient: bool) -> None:
    asked: Counter[bytes] = Counter()
    is_certain = is_patient
    for box in sent:
        if b"_answer" in box or b"_error" in box:
            continue
        if b"_command" not in box:
            break
        if b"_ask" in box:
            asked[box[b"_ask"]] += 1
        name = box[b"_command"]
        is_certain &= name not in _ENDINGS | _TRANSITIONS
    answered = Counter(
        box.get(b"_answer", box.get(b"_error", b"")) for box in received if b"_command" not in box
    )
    assert answered <= asked, (asked, answered)
    if is_certain:
        assert answered == asked, (asked, answered)
