"""One dialogue over one transport: what a connection is made of.

Rule of this module: it is the one place that owns a transport, and knows when to read, when to
write, and when it is over. What boxes mean is the dialogue's business, how values are written the
command's, and how a transport comes about the client's or the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from logging import ERROR, WARNING
from typing import TYPE_CHECKING, Any, Final, Generic

from typing_extensions import TypeVar

from typed_amp.addresses import address_of, shown
from typed_amp.box import BUSY, BoxReader
from typed_amp.calls import Calls
from typed_amp.counters import Counters
from typed_amp.descriptor_exchange import DescriptorExchange
from typed_amp.dialogue import Answered, Asked, Dialogue
from typed_amp.errors import ConnectionLostError, ProcessEndedError, ProtocolViolationError
from typed_amp.extensions import NO_FEATURES, Extensions, Features
from typed_amp.handover import Handover
from typed_amp.lifetime import await_verdict, finish, greet
from typed_amp.log import log
from typed_amp.peer_credentials import PeerCredentials, credentials_of
from typed_amp.responses import ASKS_PER_TURN, Responses
from typed_amp.watchdog import Watchdog
from typed_amp.writer import BoxWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from typed_amp.box import Box
    from typed_amp.connection import Connection
    from typed_amp.settings import Settings
    from typed_amp.waiting import Waiter

__all__ = ["Link"]

S = TypeVar("S", default=None)

_FLUSH_TIMEOUT: Final = 5.0
"""How many seconds the last answers may take to go out, once all responders are done."""

_LINGER_TIMEOUT: Final = 5.0
"""How many seconds a peer that was answered has to take its answers, and to close its own side.

Nearly all do so at once. Those that need longer have much to do, and would lose answers.
"""

_TLS_LINGER_TIMEOUT: Final = 0.3
"""Likewise with TLS, where the peer isn't told before."""

_TURNED_AWAY_TIMEOUT: Final = 1.0
"""How many seconds a peer has to ask something and be told that there is no room, and then likewise
to take its answers."""

_numbers = itertools.count(1)


class Link(Generic[S]):
    """The inside of one connection.

    What few connections need is made when it is needed: a server may have very many that are idle.

    Args:
        connection: the connection, as users know it.
        settings: what holds for it, and maybe for others.
    """

    __slots__ = (
        "_descriptors",
        "_drain",
        "_early",
        "_extensions",
        "_finished",
        "_handover",
        "_has_switched",
        "_is_at_end",
        "_is_reading_on",
        "_is_resting",
        "_number",
        "_timers",
        "calls",
        "connection",
        "dialogue",
        "features",
        "finishing",
        "greeting",
        "has_begun",
        "is_admitted",
        "is_asked",
        "is_draining",
        "is_finished",
        "is_opened",
        "is_reading",
        "is_refused",
        "is_shut",
        "is_turned_away",
        "is_violated",
        "loop",
        "lost_cause",
        "peer_credentials",
        "reader",
        "remote_address",
        "responses",
        "settings",
        "state",
        "transport",
        "watchdog",
        "writer",
    )

    def __init__(self, connection: Connection[S], settings: Settings[S]) -> None:
        self.connection: Connection[S] = connection
        self.settings: Settings[S] = settings
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.state: S
        self.transport: asyncio.Transport
        self.remote_address: tuple[str, int] | str | None = None
        self.peer_credentials: PeerCredentials | None = None
        self.reader: BoxReader = BoxReader(settings.limits)
        self.writer: BoxWriter
        self.dialogue: Dialogue[Waiter] = Dialogue()
        self.features: Features = NO_FEATURES
        """Which extensions the peer has, as far as is known."""
        self._extensions: Extensions | None = None
        self.calls: Calls = Calls(self)
        self.responses: Responses[S] = Responses(self)
        self.watchdog: Watchdog = Watchdog(self)
        self.is_admitted: bool = False
        """Whether the peer was let in; nothing is read before."""
        self.is_refused: bool = False
        """Whether the peer was not let in."""
        self.is_turned_away: bool = False
        """Whether it was let in for a moment only, to be told that there is no room."""
        self.is_asked: bool = False
        """Whether the peer has asked anything."""
        self.is_reading: bool = True
        self.is_draining: bool = False
        """Whether responders may finish, and new commands are refused."""
        self.is_shut: bool = False
        """Whether calls fail, since the transport is closed or about to be."""
        self.is_violated: bool = False
        """Whether the peer has broken the protocol; what it sends is thrown away."""
        self.lost_cause: BaseException | None = None
        self.greeting: asyncio.Task[None] | None = None
        """What the beginning waits for: whether the peer is admitted, or hooks."""
        self.has_begun: bool = False
        """Whether the hooks of `on_connect` have run, so that those of `on_disconnect` have to."""
        self.finishing: asyncio.Task[None] | None = None
        """What goes on after the end of the transport."""
        self.is_finished: bool = False
        """Whether all is over."""
        self._finished: asyncio.Event | None = None
        self._descriptors: DescriptorExchange | None = None
        self._handover: Handover | None = None
        self._number = next(_numbers)
        self.is_opened: bool = False
        """Whether there is a transport, or was."""
        self._is_reading_on = False
        self._is_resting = False
        self._early = b""
        self._is_at_end = False
        self._has_switched = False
        self._drain: tuple[float, asyncio.TimerHandle] | None = None
        """Until when responders may go on, and the timer for it."""
        self._timers: list[asyncio.TimerHandle] | None = None

    @property
    def descriptors(self) -> DescriptorExchange:
        """Sends and receives those in boxes."""
        if self._descriptors is None:
            limit = self.settings.limits.max_unclaimed_descriptors
            self._descriptors = DescriptorExchange(self.connection, limit)
            self._descriptors.begin(self.transport, self.writer.flush)
        return self._descriptors

    @property
    def handover(self) -> Handover:
        """Changes what the connection speaks."""
        if self._handover is None:
            self._handover = Handover(self)
        return self._handover

    @property
    def extensions(self) -> Extensions:
        """Asks the peer and tells it what is beyond AMP."""
        if self._extensions is None:
            self._extensions = Extensions(self)
        return self._extensions

    # -- What the transport tells ------------------------------------------------------------

    def opened(self, transport: asyncio.Transport) -> None:
        """There is a transport."""
        self.transport = transport
        self.remote_address = address_of(transport.get_extra_info("peername"))
        self.peer_credentials = credentials_of(transport.get_extra_info("socket"))
        self.writer = BoxWriter(transport, self.loop, self.settings.limits)
        self.is_opened = True
        on_opened = self.settings.on_opened
        verdict = on_opened is None or on_opened(self.connection)
        if not isinstance(verdict, bool):
            self.is_reading = False
            transport.pause_reading()
            self.greeting = self.loop.create_task(await_verdict(self, verdict))
        elif not self.is_shut:
            self.decided(is_admitted=verdict)

    def turn_away(self, reason: str) -> None:
        """Don't begin: refuse what is asked for a moment, and close."""
        self.is_turned_away = True
        self.responses.refusal = BUSY, reason, b""
        self.call_later(_TURNED_AWAY_TIMEOUT, self._shut)

    def decided(self, *, is_admitted: bool) -> None:
        """Begin, if the peer is admitted."""
        if not is_admitted:
            self.is_refused = True
            self._shut()
            return
        self.is_admitted = True
        self.regulate_reading()
        if not self.is_turned_away:
            self._begin()
        if self._early:
            early, self._early = self._early, b""
            self.received(early)

    def _begin(self) -> None:
        try:
            self.state = self.settings.router.new_state()
        except Exception as error:
            log(ERROR, "state_failed", self.connection, "the router's state= failed", error=error)
            self.lost_cause = error
            self._shut()
            return
        self._find_out()
        self.watchdog.begin()
        if not self.settings.router.connect_hooks():
            self.has_begun = True
        else:
            self.responses.hold()
            self.greeting = self.loop.create_task(greet(self))

    def _find_out(self) -> None:
        """Ask which extensions the peer has, if this side has connected."""
        if self.settings.has_extensions and not self.settings.is_server:
            self.extensions.begin()

    def received(self, data: bytes | memoryview) -> None:
        """The peer's next bytes are here, until this returns."""
        if self.is_violated or self.is_shut:
            return  # read only to be thrown away
        if not self.is_admitted:
            # uvloop's transports can't be paused before they begin, so that they read once.
            self._early += data
            self.transport.pause_reading()
            return
        violation = None
        try:
            boxes = self.reader.feed(data, self._until, ASKS_PER_TURN)
        except ProtocolViolationError as error:
            boxes, violation = list(error.boxes), error
        is_stopped = self.reader.is_stopped
        if is_stopped and self.is_reading:
            self.regulate_reading()
        receive = self.dialogue.receive
        try:
            for box in boxes:
                if self.is_shut:
                    return
                event = receive(box)
                if type(event) is Asked:
                    self.is_asked = True
                    if is_stopped and box is boxes[-1]:
                        self.handover.begin(event)
                        if self.is_shut:
                            self.dialogue.answered(event)  # by the end of the connection
                            return
                    self.responses.take(event)
                elif type(event) is Answered:
                    self.calls.answered(event)
        except ProtocolViolationError as error:
            violation = error
        if violation is not None:
            self.violated(violation)
        if self.reader.has_more or self.writer.is_full or self.responses.is_full_or_behind:
            # uvloop reads megabytes in one turn. What waits for the writer is to see it write.
            self._is_resting = bool(data) and self.responses.is_behind
            self.regulate_reading()
        if self._descriptors is not None and not self.reader.has_more:
            self._descriptors.close_excess()

    @property
    def _until(self) -> Callable[[Box], bool] | None:
        """What the reader is to ask of each box, if one may come that it has to stop behind."""
        if self._handover is None and not self.settings.router.has_transitions:
            return None
        return self.handover.until

    def writing_paused(self) -> None:
        """The transport has no room."""
        self.writer.pause()
        self.regulate_reading()

    def writing_resumed(self) -> None:
        """The transport has room again."""
        self.writer.resume()
        self._release()

    def _release(self) -> None:
        if self.greeting is None or self.greeting.done():
            self.responses.release()
        self.regulate_reading()

    def ended(self, error: BaseException | None) -> None:
        """The transport is closed."""
        if self.finishing is not None:
            return
        self._is_at_end = True
        while self.reader.has_more and not (self.is_shut or self.is_violated):
            self.received(b"")  # what came before the end counts
        self.watchdog.end()
        if not (self.is_shut or self._has_switched):
            self.lost_cause = self.lost_cause or error or _end_of_stream(self.reader)
        self.is_shut = self.is_draining = True
        self.calls.end()  # before the writer forgets which of them were never sent
        self.writer.discard()
        if self._descriptors is not None:
            self._descriptors.close()
        for timer in self._timers or ():
            timer.cancel()
        self.responses.close()
        self.responses.cancel(unheard_only=True)
        self._stop_in(self.settings.drain_timeout)
        self.finishing = self.loop.create_task(finish(self))

    # -- Beginning and ending ----------------------------------------------------------------

    def close(self, drain_timeout: float | None) -> None:
        """Begin to close; see `Connection.close`."""
        if drain_timeout is None:
            if self.is_draining:
                return
            drain_timeout = self.settings.drain_timeout
        waits = drain_timeout > 0 and not self.is_violated  # which leaves its answer unread
        has_news = not self.is_draining and (waits or self.responses.is_behind)
        if has_news and self.features.has_closing:
            self.extensions.announce_closing(waits=waits)
        self.is_draining = True
        self.responses.close()
        self.check_drained()
        self._stop_in(drain_timeout)

    @property
    def is_peer_closing(self) -> bool:
        """Whether an error `CLOSING` is the peer's own, and says that the peer is closing.

        A peer that says so by itself has done so before it answers with that error. If it hasn't,
        it passes on what somebody else has answered.
        """
        return self.calls.is_refused or not self.features.has_closing

    def violated(self, violation: ProtocolViolationError) -> None:
        """The peer has broken the protocol: what it sends can't be read any more."""
        told = "closing, since the peer broke the protocol: %s"
        log(WARNING, "violation", self.connection, told, violation)
        self.lost_cause = violation
        self.is_violated = True
        # No answer can come any more, but those who asked before shall have theirs.
        self.calls.end()
        self.close(None)

    def fail(self, error: BaseException) -> None:
        """End the connection because of an error, such as a responder's that is declared fatal."""
        self.lost_cause = self.lost_cause or error
        self._shut()

    def check_drained(self) -> None:
        """End the connection if it is closing and nothing goes on."""
        if self.is_draining and not self._is_busy:
            self._shut()

    @property
    def _is_busy(self) -> bool:
        """Whether something goes on that closing waits for."""
        return bool(self.responses.running or self._is_announcing or self._is_changing)

    @property
    def _is_announcing(self) -> bool:
        """Whether the peer has yet to say that it knows of the closing."""
        return self._extensions is not None and self._extensions.is_announcing

    @property
    def _is_changing(self) -> bool:
        """Whether this side has asked for a change of protocol."""
        return self._handover is not None and self._handover.asking > 0

    def _stop_in(self, seconds: float) -> None:
        """Bound the time of what still goes on, unless it has less already."""
        if not self._is_busy:
            return
        if seconds <= 0:
            self._stop()
            return
        deadline = self.loop.time() + seconds
        if self._drain is not None:
            earlier, timer = self._drain
            if earlier <= deadline:
                return
            timer.cancel()
        self._drain = deadline, self.loop.call_at(deadline, self._stop)

    def _stop(self) -> None:
        self.responses.cancel()
        if self._extensions is not None:
            self._extensions.forget_announcement()
        if self._is_changing:
            self._shut()
        self.check_drained()

    def _shut(self) -> None:
        """End the connection, once what is written has gone out."""
        if self.is_shut:
            return
        self.is_shut = self.is_draining = True
        self.calls.end()
        self.writer.flush()
        transport = self.transport
        if not self.is_admitted:
            transport.abort()
            return
        # A peer that doesn't read would keep what is left waiting for ever.
        self.call_later(_FLUSH_TIMEOUT, transport.abort)
        if self.writer.is_locked:
            transport.close()  # AMP is not what the peer reads now
        elif self.is_asked and transport.can_write_eof():
            # The system resets a socket that is closed with bytes unread, and what was on its way
            # is lost with it. So read on, and close when the peer has taken the answers.
            with contextlib.suppress(OSError):  # the peer has reset it
                transport.write_eof()
            if not self.is_reading:
                self.is_reading = True
                transport.resume_reading()
            seconds = _TURNED_AWAY_TIMEOUT if self.is_turned_away else _LINGER_TIMEOUT
            self.call_later(seconds, transport.close)
        elif self.is_asked and self.is_encrypted:
            # TLS has no half of a stream to end, and asyncio's forgets what it holds when data
            # comes in after its close. So give the peer the time to take the answers.
            self.call_later(_TLS_LINGER_TIMEOUT, transport.close)
        else:
            transport.close()

    def call_later(self, seconds: float, callback: Callable[..., object], *arguments: Any) -> None:
        """Call something later, unless the transport is closed by then."""
        if self._timers is None:
            self._timers = []
        self._timers.append(self.loop.call_later(seconds, callback, *arguments))

    def has_finished(self) -> None:
        """All is over."""
        if self._drain is not None:
            self._drain[1].cancel()
        self.responses.end()
        self.is_finished = True
        if self._finished is not None:
            self._finished.set()
        on_ended = self.settings.on_ended
        if on_ended is not None:
            on_ended(self.connection)

    @property
    def finished(self) -> asyncio.Event:
        """What is set when all is over."""
        if self._finished is None:
            self._finished = asyncio.Event()
            if self.is_finished:
                self._finished.set()
        return self._finished

    # -- Odds and ends -----------------------------------------------------------------------

    def regulate_reading(self) -> None:
        """Stop reading from a peer that asks and doesn't take its answers; go on when it does."""
        if self.is_violated or self.is_shut or self._is_at_end or not self.is_admitted:
            return  # what comes is thrown away, or waits
        is_choked = self.writer.is_choked
        if is_choked:
            self.responses.hold()
        if self.reader.is_stopped or self.writer.is_overflowing:
            should_read = False  # until it is known what follows; until the peer reads
        elif self.dialogue.expected:
            # The answers that this side waits for come the same way as the asks. Those wait, then.
            should_read = True
        else:
            should_read = not (is_choked or self.responses.is_full) and (
                self.responses.held_bytes <= self.settings.limits.max_held_bytes
            )
        if should_read and (self.reader.has_more or self._is_resting):
            should_read = False
            if not self._is_reading_on:
                self._is_reading_on = True
                self.loop.call_soon(self._read_more)
        if should_read and not self.is_reading:
            self.transport.resume_reading()
        elif self.is_reading and not should_read:
            self.transport.pause_reading()
        self.is_reading = should_read

    def _read_more(self) -> None:
        """Look at what came and was too much for one turn."""
        self._is_reading_on = self._is_resting = False
        self.received(b"")
        if not self.is_reading:
            self.regulate_reading()

    def asks(self) -> None:
        """Something was asked, and the answer is waited for."""
        if self._extensions is not None and self._extensions.is_question_due:
            self._extensions.ask()
        if self.responses.is_behind:
            self.responses.check_held()
        if not (self.is_reading or self._is_reading_on):
            self.regulate_reading()

    def read_on(self) -> None:
        """What follows the box behind which the reader stopped is AMP."""
        if self.is_shut or not self.reader.is_stopped:
            return
        self.reader.resume()
        self.received(b"")
        self._release()

    def encrypted(self, transport: asyncio.Transport) -> None:
        """TLS has begun."""
        self.transport = transport
        if self.is_shut:
            transport.close()
            return
        if self._descriptors is not None:
            self._descriptors.begin(transport, self.writer.flush)
        self.reader.resume()
        self.is_reading = True
        # What the peer said in the clear, anybody may have said.
        self.features = NO_FEATURES
        self._find_out()
        self.writer.unlock(transport)
        self.received(b"")  # what came with the last piece of the handshake
        self._release()

    def switched(self) -> None:
        """Another protocol has the transport: this is the end of AMP on it."""
        self._has_switched = True
        self.ended(None)

    @property
    def has_joined(self) -> bool:
        """Whether the peer was let in to stay."""
        return self.is_admitted and not self.is_turned_away

    @property
    def counters(self) -> Counters:
        """What happened up to now."""
        return Counters(
            calls=self.calls.made,
            calls_in_flight=self.dialogue.pending,
            call_errors=dict(self.dialogue.errors_received),
            requests=self.responses.taken,
            requests_in_flight=self.responses.running,
            refusals=dict(self.dialogue.errors_given),
            late=self.dialogue.late,
            strays=self.dialogue.strays,
            violations=int(self.is_violated),
            bytes_received=self.reader.offset,
            bytes_sent=self.writer.sent_bytes if self.is_opened else 0,
            connections=int(self.has_joined and not self.is_finished),
            connections_turned_away=int(self.is_turned_away or self.is_refused),
        )

    @property
    def name(self) -> str:
        """What log records call the connection."""
        return f"{self.peer} #{self._number}"

    @property
    def peer(self) -> str:
        """What messages call the peer."""
        return self.settings.peer or shown(self.remote_address)

    @property
    def is_encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return self.transport.get_extra_info("ssl_object") is not None

    def refused(self, asked: Asked) -> None:
        """An ask was answered with an error: if it was for a change of protocol, there is none."""
        if self._handover is not None and asked is self._handover.asked:
            self._handover.refused()

    def reply(self, data: bytes) -> None:
        """Write an answer."""
        if self.is_shut:
            return
        self.writer.write_answer(data, is_last=not self.dialogue.unanswered)
        if self.writer.is_choked:
            self.regulate_reading()

    def lost(self, what: str | None = None) -> ConnectionLostError:
        """Make the error of the loss, or of something that can't be done any more."""
        if self._has_switched:
            reason = "has switched to another protocol"
        elif self.lost_cause is not None:
            reason = f"was lost: {str(self.lost_cause) or type(self.lost_cause).__name__}"
        else:
            reason = "is closed"
        told = f"the connection to {self.peer} {reason}"
        if isinstance(self.lost_cause, ProcessEndedError):  # it says itself who has ended
            told = str(self.lost_cause)
        error = ConnectionLostError(told if what is None else f"{what}: {told}")
        exit_status = self.settings.exit_status
        error.exit_status = None if exit_status is None else exit_status()
        error.__cause__ = self.lost_cause
        return error


def _end_of_stream(reader: BoxReader) -> Exception | None:
    if reader.pending_bytes:
        return EOFError(f"the peer ended the stream {reader.pending_bytes:,} bytes into a box")
    return EOFError("the peer closed it")
