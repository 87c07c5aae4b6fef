"""What connections are fuzzed on: an event loop, what they answer, and what may be left of them.

Rule of this module: nothing here waits. The loop's clock goes on to the next timer as soon as
nothing else is to be done, so that hours of a connection take as long as what happens in them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import selectors
import ssl
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

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
    Limits,
    NotAllowedError,
    ProtocolViolationError,
    RemoteAmpError,
    Router,
    StartTLS,
    SwitchProtocol,
)
from typed_amp.budget import Budget
from typed_amp.built_in import BUILT_IN
from typed_amp.settings import Settings
from typed_amp.testing import MemoryTransport, connection_pair

__all__ = [
    "LONG",
    "TRANSITIONS",
    "Bench",
    "Conditions",
    "Large_",
    "Peer",
    "Switch",
    "Turns",
    "Value",
    "bench",
    "client_context",
    "joined",
    "read",
    "send",
]

LONG: Final = 100.0
"""How many seconds `Hold` takes: longer than any input takes to arrive."""

TRANSITIONS: Final = frozenset({b"StartTLS", b"Switch"})
"""Behind what of the peer's something else than AMP may follow."""

_TURN: Final = 1e-6
"""How many seconds a turn of the event loop takes: so many that years of them add up exactly."""

_NEVER: Final = 1e9
"""After how many seconds nothing is to be looked at: longer than all that an input can cause."""


class Value(BaseModel):
    value: Annotated[bytes, Large()]


class Large_(Command[Value], name="Large"):  # noqa: N801 - the name is short for the fuzzer
    value: Annotated[bytes, Large(max_bytes=100_000)]


class Make(Command[Value]):
    """Answered with so many bytes."""

    size: Annotated[int, Field(ge=0, le=60_000)]


class Turns(Command[Text]):
    """Answered some turns of the event loop later."""

    count: Annotated[int, Field(ge=0, le=9)]


class Hold(Command[Text]):
    """Answered a long time later, unless its responder is cancelled."""


class Stay(Command[Text]):
    """As `Hold`, but answered when its responder is cancelled."""


class Break(Command):
    """As `Hold`, but fails when its responder is cancelled."""


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


class PlannedKeyError(PlannedError, KeyError):
    """What `Buy` raises, as what follows."""


class PlannedValueError(PlannedError, ValueError):
    pass


class PlannedRemoteError(PlannedError, RemoteAmpError):
    """What the fallback raises."""


_PLANNED: Final = (PlannedError, OutOfStock, ShopClosedError)
"""What the log may show, if only where nobody waits for an answer."""


@functools.cache
def client_context() -> ssl.SSLContext:
    """Give a context that takes any server for the right one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@functools.cache
def _context(*, is_server: bool) -> ssl.SSLContext:
    if not is_server:
        return client_context()
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

    @router.responder(Make)
    async def make(command: Make) -> Value:
        return Value(value=bytes(command.size))

    @router.responder(Turns)
    async def turns(command: Turns) -> Text:
        for _ in range(command.count):
            await asyncio.sleep(0)
        return Text(text="done")

    @router.responder(Hold)
    async def hold(command: Hold) -> Text:
        await asyncio.sleep(LONG)
        return Text(text="held")

    @router.responder(Stay)
    async def stay(command: Stay) -> Text:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            return Text(text="all the same")
        return Text(text="stayed")

    @router.responder(Break)
    async def break_(command: Break) -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            raise PlannedError from None

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
                raise PlannedKeyError("k")
            case "v":
                raise PlannedValueError
            case sku:
                raise OutOfStock(sku=sku)

    @router.responder(Close)
    async def close(command: Close, connection: Connection) -> None:
        connection.close()

    @router.responder(Log)
    async def log(command: Log) -> None:
        pass

    @router.responder(StartTLS)
    async def start_tls(command: StartTLS, connection: Connection) -> ssl.SSLContext:
        return _context(is_server=connection._link.settings.is_server)

    @router.responder(Switch)
    async def switch(command: Switch) -> asyncio.Protocol:
        return asyncio.Protocol()

    return router


def _hooked_router() -> Router:
    """The same, with all else that a router can have: hooks, a guard, a fallback."""
    router = _router()

    @router.guard
    def check(connection: Connection, name: str) -> None:
        if name == "Fail":
            raise NotAllowedError("not here")

    @router.fallback
    async def pass_on(box: Box) -> Box:
        assert box[b"_command"] not in BUILT_IN
        if b"fail" in box:
            raise PlannedRemoteError("REMOTE", "it failed", box)
        return box

    @router.on_connect
    async def greet(connection: Connection) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    @router.on_disconnect
    async def part(connection: Connection) -> None:
        await asyncio.sleep(0)

    return router


class _Selector(selectors.DefaultSelector):
    """Says that the time is over at once, and notes how long it would have been."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        self.now += _TURN
        events = super().select(0)
        if not events:
            self.now += timeout
        return events


class _Loop(asyncio.SelectorEventLoop):
    """Has the clock of its selector."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    @property
    def timers(self) -> int:
        """How many timers run."""
        scheduled: list[asyncio.TimerHandle] = vars(self)["_scheduled"]
        return sum(not timer.cancelled() for timer in scheduled)


class _Errors(logging.Handler):
    """Keeps the errors in the log that were not planned, and whatever could forge a line of it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        is_planned = record.exc_info is not None and isinstance(record.exc_info[1], _PLANNED)
        if not text.isprintable() or (record.levelno >= logging.ERROR and not is_planned):
            self.found.append(f"{text!r}\n{logging.Formatter().format(record)}")


class Bench:
    """An event loop and a neighbour, for all inputs of one process."""

    def __init__(self) -> None:
        self.loop = _Loop()
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.runner.get_loop()
        self.router = _router()
        self.hooked_router = _hooked_router()
        self.budget = Budget(1)
        self._errors = _Errors()
        self.loop.set_exception_handler(
            lambda _, context: self._errors.found.append(f"{context['message']}: {context!r}")
        )
        calm = Limits(box_timeout=_NEVER)
        self._neighbours = connection_pair(self.router, limits=calm, keepalive=None)
        self._neighbour, _ = self.runner.run(self._neighbours.__aenter__())
        self._tasks = asyncio.all_tasks(self.loop)
        self._timers = self.loop.timers

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run what checks one input, and see that nothing was logged that wasn't planned."""
        logger = logging.getLogger("typed_amp")
        before = logger.propagate, logger.level
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self._errors)
        try:
            self.runner.run(coroutine)
        finally:
            logger.removeHandler(self._errors)
            logger.propagate = before[0]
            logger.setLevel(before[1])
            found, self._errors.found = self._errors.found, []
        assert not found, "\n".join(found)

    async def check_nothing_left(self) -> None:
        """See that what is left is what was there before, and is well."""
        async with asyncio.timeout(LONG):
            while left := asyncio.all_tasks() - self._tasks - {asyncio.current_task()}:
                await asyncio.wait(left)
        assert (await self._neighbour.call(Turns(count=1))).text == "done"
        assert self.budget.in_use == 0
        assert self.loop.timers == self._timers


@functools.cache
def bench() -> Bench:
    """Give the one of this process."""
    return Bench()


class Peer(asyncio.Protocol):
    """Keeps what it reads."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Conditions:
    """What a connection is fuzzed under, as the first two bytes of an input say.

    Attributes:
        size: into pieces of how many bytes the others are cut; 0 for none.
        turns: how many turns of the event loop go by behind each.
        pause: how many seconds.
        is_patient: whether the peer waits for what comes of all this.
        is_tight: whether the limits are small.
        is_sharing: whether that holds for the responders of all connections as well.
        is_watched: whether the peer may not be silent for long.
        is_slow: whether the peer reads nothing before all is sent.
        drain_timeout: the connection's.
        is_ending: whether this side closes in the end, and not the peer.
        has_extensions: whether this side has any.
        is_special: what the target makes of it.
    """

    def __init__(self, data: bytes) -> None:
        way, bits = (data + b"\0\0")[:2]
        self.size = max(0, way - 1)
        self.turns = 1 + way % 3
        self.is_patient = way % 2 == 0
        self.is_tight = bool(bits & 1)
        self.is_sharing = self.is_tight and bool(way & 4)
        self.is_watched = bool(bits & 2)
        self.drain_timeout = 5.0 if bits & 4 else 0.0
        self.is_slow = bool(bits & 8)
        self.pause = 0.01 if bits & 16 else 0.0
        self.has_extensions = not bits & 32
        self.is_ending = bool(bits & 64)
        self.is_special = bool(bits & 128)

    @property
    def limits(self) -> Limits:
        """The connection's limits."""
        box_timeout, idle_timeout = (2.0, 5.0) if self.is_watched else (_NEVER, None)
        if not self.is_tight:
            return Limits(box_timeout=box_timeout, idle_timeout=idle_timeout)
        return Limits(
            max_requests=2,
            max_held_bytes=2_000,
            max_unwritten_bytes=1_000,
            box_timeout=box_timeout,
            idle_timeout=idle_timeout,
        )

    def connection(self, router: Router, *, is_server: bool) -> Connection:
        """Make the connection."""
        settings = Settings(
            router,
            limits=self.limits,
            drain_timeout=self.drain_timeout,
            extensions=self.has_extensions,
            keepalive=1.0 if self.is_watched else None,
            budget=bench().budget if self.is_sharing else None,
            is_server=is_server,
        )
        return Connection(settings)


@asynccontextmanager
async def joined(
    conditions: Conditions, connection: Connection
) -> AsyncGenerator[tuple[MemoryTransport, Peer], None]:
    """Give a connection a peer, and see that both end and leave nothing."""
    peer = Peer()
    ours, theirs = MemoryTransport(connection), MemoryTransport(Connection(Settings()))
    theirs.set_protocol(peer)
    ours.join(theirs)
    theirs.join(ours)
    if conditions.is_slow:
        theirs.pause_reading()
    yield theirs, peer
    async with asyncio.timeout(2 * LONG * LONG):
        await connection.wait_closed()
        await peer.lost.wait()
    await bench().check_nothing_left()
    _check_nothing_left_in(connection)


def _check_nothing_left_in(connection: Connection) -> None:
    link = connection._link
    dialogue, responses, calls = link.dialogue, link.responses, link.calls
    assert dialogue.unanswered == 0
    assert dialogue.pending == 0
    assert (responses.running, responses.is_behind, responses.held_bytes) == (0, False, 0)
    assert not (responses._by_tag or responses._unbegun)
    assert not (calls._untold or calls._decoders or link.writer.held())


async def send(
    conditions: Conditions, stream: bytes, theirs: MemoryTransport
) -> AsyncGenerator[None, None]:
    """Send bytes to the connection piece by piece; gives back control behind each."""
    for piece in pieces(stream, conditions.size or len(stream) or 1):
        theirs.write(piece)
        for _ in range(conditions.turns):
            await asyncio.sleep(0)
        if conditions.pause:
            await asyncio.sleep(conditions.pause)
        yield
    theirs.resume_reading()


def read(stream: bytes) -> tuple[list[Box], bool]:
    """Give the boxes that come before what isn't one, and say whether something isn't."""
    try:
        return BoxReader().feed(stream), False
    except ProtocolViolationError as error:
        return list(error.boxes), True
