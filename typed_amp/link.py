"""One dialogue over one transport: what a connection is made of.

Rule of this module: it is the one place that owns a transport, and knows when to read, when to
write, and when it is over. What boxes mean is the dialogue's business, how values are written the
command's, and how a transport comes about the client's or the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from logging import ERROR, WARNING
from typing import TYPE_CHECKING, Any, Final, Generic, cast

from typing_extensions import TypeVar

from typed_amp.addresses import address_of, shown
from typed_amp.box import BUSY, BoxReader
from typed_amp.calls import Calls, Waiter
from typed_amp.counters import Counters
from typed_amp.deadlines import AMBIENT_DEADLINE
from typed_amp.descriptor_exchange import DescriptorExchange
from typed_amp.dialogue import Answered, Asked, Dialogue
from typed_amp.errors import ConnectionLostError, ProcessEndedError, ProtocolViolationError
from typed_amp.extensions import CAPABILITIES_TAG, FEATURES, Capabilities, Closing, Extensions
from typed_amp.handover import Handover
from typed_amp.log import log
from typed_amp.peer_credentials import PeerCredentials, credentials_of
from typed_amp.responses import ASKS_PER_TURN, Budget, Responses
from typed_amp.watchdog import Watchdog
from typed_amp.writer import BoxWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typed_amp.admission import Verdict
    from typed_amp.connection import Connection
    from typed_amp.limits import Limits
    from typed_amp.router import Router

__all__ = ["Link", "LinkProtocol"]

S = TypeVar("S", default=None)

_FLUSH_TIMEOUT: Final = 5.0
"""How many seconds the last answers may take to go out, once all responders are done."""

_LINGER_TIMEOUT: Final = 5.0
"""How many seconds a peer that was answered has to take its answers, and to close its own side.

Nearly all do so at once. Those that need longer have much to do, and would lose answers.
"""

_CLOSING_TIMEOUT: Final = 5.0
"""How many seconds a peer has to say that it knows of the closing."""

_TLS_LINGER_TIMEOUT: Final = 0.3
"""Likewise with TLS, where the peer isn't told before."""

_TURNED_AWAY_TIMEOUT: Final = 1.0
"""How many seconds a peer has to ask something and be told that there is no room, and then likewise
to take its answers."""

_numbers = itertools.count(1)


class Link(Generic[S]):
    """The inside of one connection.

    Args:
        connection: the connection, as users know it.
        router: answers what the peer asks.
        limits: how much the peer can make this side hold.
        drain_timeout: seconds that responders may go on when it is closed.
        call_timeout: seconds of calls that are given none.
        extensions: whether there is more than plain AMP, with peers that know of it.
        keepalive: seconds of silence after which the peer is asked whether it is there.
        budget: how many responders may run, on this connection and others.
        is_server: whether this side was connected to.
        server_hostname: the name that was connected to, if any.
        on_opened: called when there is a transport, before hooks and state; says whether to admit
            the peer, now or later.
        on_ended: called when all is over.
        peer: what messages call the peer; if left out, its address.
        exit_status: gives the exit status of the peer's process, where that is known.
    """

    def __init__(
        self,
        connection: Connection[S],
        router: Router[S],
        *,
        limits: Limits,
        drain_timeout: float,
        call_timeout: float | None,
        extensions: bool,
        keepalive: float | None,
        budget: Budget | None,
        is_server: bool,
        server_hostname: str | None,
        on_opened: Callable[[Connection[S]], Verdict] | None,
        on_ended: Callable[[Connection[S]], None] | None,
        peer: str | None,
        exit_status: Callable[[], int | None],
    ) -> None:
        self.connection: Connection[S] = connection
        self.router: Router[S] = router
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.state: S
        self.transport: asyncio.Transport
        self.remote_address: tuple[str, int] | str | None = None
        self.peer_credentials: PeerCredentials | None = None
        self.reader: BoxReader = BoxReader(limits)
        self.writer: BoxWriter
        self.dialogue: Dialogue[Waiter] = Dialogue()
        self.extensions: Extensions = Extensions(
            is_enabled=extensions,
            on_cancel=self._given_up,
            on_closing=self._refused,
        )
        self.calls: Calls = Calls(
            self.dialogue,
            max_box_bytes=limits.max_box_bytes,
            call_timeout=call_timeout,
            extensions=self.extensions,
            peer=lambda: self.peer,
            lost=self.lost,
            on_ask=self._asks,
        )
        self.descriptors: DescriptorExchange = DescriptorExchange(
            connection, limits.max_unclaimed_descriptors
        )
        self.handover: Handover = Handover(
            self, is_server=is_server, server_hostname=server_hostname
        )
        self.responses: Responses[S] = Responses(
            connection,
            router,
            self.dialogue,
            descriptors=self.descriptors,
            handover=self.handover,
            extensions=self.extensions,
            limits=limits,
            budget=budget or Budget(),
            reply=self._reply,
            on_room=self._regulate_reading,
            on_idle=self.check_drained,
            on_fatal=self.fail,
        )
        self.watchdog: Watchdog = Watchdog(self, limits, keepalive)
        self.is_admitted: bool = False
        """Whether the peer was let in; nothing is read before."""
        self.is_refused: bool = False
        """Whether the peer was not let in."""
        self.is_turned_away: bool = False
        """Whether it was let in for a moment only, to be told that there is no room."""
        self.is_reading: bool = True
        self.is_draining: bool = False
        """Whether responders may finish, and new commands are refused."""
        self.is_shut: bool = False
        """Whether calls fail, since the transport is closed or about to be."""
        self.is_violated: bool = False
        """Whether the peer has broken the protocol; what it sends is thrown away."""
        self.lost_cause: BaseException | None = None
        self.finished: asyncio.Event = asyncio.Event()
        self._number = next(_numbers)
        self._peer = peer
        self._exit_status = exit_status
        self.limits = limits
        self._drain_timeout = drain_timeout
        self._on_opened = on_opened
        self._on_ended = on_ended
        self._is_server = is_server
        self._question: Waiter | None = None
        self._is_question_due = False
        self._announcement: Waiter | None = None
        self._is_reading_on = False
        self._is_resting = False
        self._early = b""
        self._greeting: asyncio.Task[None] | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._is_asked = False
        self._has_begun = False
        self._is_at_end = False
        self._has_switched = False
        self._drain_timer: asyncio.TimerHandle | None = None
        self._drain_deadline = math.inf
        self._timers: list[asyncio.TimerHandle] = []

    # -- What the transport tells ------------------------------------------------------------

    def opened(self, transport: asyncio.Transport) -> None:
        """There is a transport."""
        self.transport = transport
        self.remote_address = address_of(transport.get_extra_info("peername"))
        self.peer_credentials = credentials_of(transport.get_extra_info("socket"))
        self.writer = BoxWriter(
            transport, self.loop, self.limits.max_unwritten_bytes, self.limits.max_box_bytes
        )
        self.calls.begin(self.writer)
        self.responses.begin(self.writer)
        self.descriptors.begin(transport, self.writer.flush)
        verdict = self._on_opened is None or self._on_opened(self.connection)
        if not isinstance(verdict, bool):
            self.is_reading = False
            transport.pause_reading()
            self._greeting = self.loop.create_task(self._await_verdict(verdict))
        elif not self.is_shut:
            self._decided(is_admitted=verdict)

    async def _await_verdict(self, verdict: Awaitable[bool]) -> None:
        is_admitted = False
        AMBIENT_DEADLINE.set(None)  # of a responder that has connected; it isn't the connection's
        try:
            is_admitted = await verdict
        finally:
            if not self.is_shut:
                self._decided(is_admitted=is_admitted)

    def turn_away(self, reason: str) -> None:
        """Don't begin: refuse what is asked for a moment, and close."""
        self.is_turned_away = True
        self.responses.refusal = BUSY, reason
        self._timers.append(self.loop.call_later(_TURNED_AWAY_TIMEOUT, self._shut))

    def _decided(self, *, is_admitted: bool) -> None:
        """Begin, if the peer is admitted."""
        if not is_admitted:
            self.is_refused = True
            self._shut()
            return
        self.is_admitted = True
        self._regulate_reading()
        if not self.is_turned_away:
            self._begin()
        if self._early:
            early, self._early = self._early, b""
            self.received(early)

    def _begin(self) -> None:
        try:
            self.state = self.router.new_state()
        except Exception as error:
            log(ERROR, "state_failed", self.connection, "the router's state= failed", error=error)
            self.lost_cause = error
            self._shut()
            return
        self._ask_capabilities()
        self.watchdog.begin()
        if not self.router.connect_hooks():
            self._has_begun = True
        else:
            self.responses.hold()
            self._greeting = self.loop.create_task(self._greet())

    def received(self, data: bytes) -> None:
        """The peer's next bytes are here."""
        if self.is_violated or self.is_shut:
            return  # read only to be thrown away
        if not self.is_admitted:
            # uvloop's transports can't be paused before they begin, so that they read once.
            self._early += data
            self.transport.pause_reading()
            return
        violation = None
        try:
            boxes = self.reader.feed(data, self.handover.until, ASKS_PER_TURN)
        except ProtocolViolationError as error:
            boxes, violation = list(error.boxes), error
        is_stopped = self.reader.is_stopped
        if is_stopped and self.is_reading:
            self._regulate_reading()
        receive = self.dialogue.receive
        try:
            for box in boxes:
                if self.is_shut:
                    return
                event = receive(box)
                if type(event) is Asked:
                    self._is_asked = True
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
            self._regulate_reading()
        if self.descriptors.is_waiting and not self.reader.has_more:
            self.descriptors.close_excess()

    def writing_paused(self) -> None:
        """The transport has no room."""
        self.writer.pause()
        self._regulate_reading()

    def writing_resumed(self) -> None:
        """The transport has room again."""
        self.writer.resume()
        self._release()

    def _release(self) -> None:
        if self._greeting is None or self._greeting.done():
            self.responses.release()
        self._regulate_reading()

    def ended(self, error: BaseException | None) -> None:
        """The transport is closed."""
        if self._finishing is not None:
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
        self.descriptors.close()
        for timer in self._timers:
            timer.cancel()
        self.responses.close()
        self.responses.cancel(unheard_only=True)
        self._stop_in(self._drain_timeout)
        self._finishing = self.loop.create_task(self._finish())

    # -- Beginning and ending ----------------------------------------------------------------

    async def _greet(self) -> None:
        """Run the hooks of `on_connect`, then what was asked meanwhile."""
        self._has_begun = True
        AMBIENT_DEADLINE.set(None)  # as in `_await_verdict`
        try:
            for hook in self.router.connect_hooks():
                await hook(self.connection)
        except BaseException as error:
            if not self.is_shut:
                log(ERROR, "hook_failed", self.connection, "an on_connect hook failed", error=error)
            self.lost_cause = self.lost_cause or error
            self.close(0)
            if not isinstance(error, Exception):
                raise
        self.responses.release()
        self._regulate_reading()

    def close(self, drain_timeout: float | None) -> None:
        """Begin to close; see `Connection.close`."""
        if drain_timeout is None:
            if self.is_draining:
                return
            drain_timeout = self._drain_timeout
        if not self.is_draining and drain_timeout > 0:
            self._announce_closing()
        self.is_draining = True
        self.responses.close()
        self.check_drained()
        self._stop_in(drain_timeout)

    async def greeted(self) -> None:
        """Wait until the hooks of `on_connect` are done.

        Raises:
            ConnectionLostError: one of them failed, or the connection went meanwhile.
        """
        if self._greeting is not None:
            await asyncio.wait([self._greeting])
        if self.is_shut:
            await self.finished.wait()
            raise self.lost("connect")

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
        return bool(self.responses.running or self.handover.asking or self._announcement)

    def _stop_in(self, seconds: float) -> None:
        """Bound the time of what still goes on, unless it has less already."""
        if not self._is_busy:
            return
        deadline = self.loop.time() + seconds
        if seconds <= 0:
            self._stop()
        elif deadline < self._drain_deadline:
            self._drain_deadline = deadline
            if self._drain_timer is not None:
                self._drain_timer.cancel()
            self._drain_timer = self.loop.call_later(seconds, self._stop)

    def _stop(self) -> None:
        self.responses.cancel()
        self._announcement = None
        if self.handover.asking:
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
        self._timers.append(self.loop.call_later(_FLUSH_TIMEOUT, transport.abort))
        if self.writer.is_locked:
            transport.close()  # AMP is not what the peer reads now
        elif self._is_asked and transport.can_write_eof():
            # The system resets a socket that is closed with bytes unread, and what was on its way
            # is lost with it. So read on, and close when the peer has taken the answers.
            with contextlib.suppress(OSError):  # the peer has reset it
                transport.write_eof()
            if not self.is_reading:
                self.is_reading = True
                transport.resume_reading()
            seconds = _TURNED_AWAY_TIMEOUT if self.is_turned_away else _LINGER_TIMEOUT
            self._timers.append(self.loop.call_later(seconds, transport.close))
        elif self._is_asked and self.is_encrypted:
            # TLS has no half of a stream to end, and asyncio's forgets what it holds when data
            # comes in after its close. So give the peer the time to take the answers.
            self._timers.append(self.loop.call_later(_TLS_LINGER_TIMEOUT, transport.close))
        else:
            transport.close()

    async def _finish(self) -> None:
        """Wait for what goes on after the end of the transport."""
        try:
            if self._greeting is not None:
                self._greeting.cancel()
                await asyncio.wait([self._greeting])
            await self.responses.wait()
            if self._has_begun:
                await self._part()
        finally:
            if self._drain_timer is not None:
                self._drain_timer.cancel()
            self.finished.set()
            if self._on_ended is not None:
                self._on_ended(self.connection)

    async def _part(self) -> None:
        AMBIENT_DEADLINE.set(None)  # as in `_await_verdict`
        for hook in self.router.disconnect_hooks():
            try:
                await hook(self.connection)
            except Exception as error:
                told = "an on_disconnect hook failed"
                log(ERROR, "hook_failed", self.connection, told, error=error)

    # -- Extensions --------------------------------------------------------------------------

    def _ask_capabilities(self) -> None:
        """The side that connected asks, as the first thing, which extensions the peer has."""
        if self._is_server or not self.extensions.is_enabled:
            return
        if self.is_encrypted and not self._is_question_due:
            # A server that refuses this side's certificate says so after the handshake, and who
            # writes before he has read that learns of a broken pipe instead.
            self._is_question_due = True
            return
        self._is_question_due = False
        self._question = self.calls.ask_aside(
            Capabilities(features=list(FEATURES)), CAPABILITIES_TAG
        )
        self._question.add_done_callback(self._capabilities_answered)

    def _capabilities_answered(self, question: Waiter) -> None:
        answer = question.result()
        if question is self._question and isinstance(answer, dict):
            self.extensions.answered(answer)

    def _given_up(self, tag: bytes) -> None:
        self.responses.cancel_ask(tag)

    def _refused(self) -> None:
        self.calls.refused()

    def _announce_closing(self) -> None:
        """Have the peer ask nothing more, and say so behind the last thing that it has asked."""
        may_be_asked = self._is_server or self._is_asked
        if not (self.extensions.has_closing and may_be_asked) or self.is_violated:
            return
        self._announcement = self.calls.ask_aside(Closing())
        self._announcement.add_done_callback(self._closing_answered)
        self._timers.append(
            self.loop.call_later(_CLOSING_TIMEOUT, self._closing_answered, self._announcement)
        )

    def _closing_answered(self, announcement: Waiter) -> None:
        if announcement is self._announcement:
            self._announcement = None
            self.check_drained()

    # -- Odds and ends -----------------------------------------------------------------------

    def _regulate_reading(self) -> None:
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
                self.responses.held_bytes <= self.limits.max_held_bytes
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
            self._regulate_reading()

    def _asks(self) -> None:
        if self._is_question_due:
            self._ask_capabilities()
        if self.responses.is_behind:
            self.responses.check_held()
        if not (self.is_reading or self._is_reading_on):
            self._regulate_reading()

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
        self.descriptors.begin(transport, self.writer.flush)
        self.reader.resume()
        self.is_reading = True
        self.extensions.forget()
        self._ask_capabilities()
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
            bytes_sent=self.writer.sent_bytes if hasattr(self, "writer") else 0,
            connections=int(self.has_joined and not self.finished.is_set()),
            connections_turned_away=int(self.is_turned_away or self.is_refused),
        )

    @property
    def name(self) -> str:
        """What log records call the connection."""
        return f"{self.peer} #{self._number}"

    @property
    def peer(self) -> str:
        """What messages call the peer."""
        return self._peer or shown(self.remote_address)

    @property
    def is_encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return self.transport.get_extra_info("ssl_object") is not None

    def _reply(self, data: bytes) -> None:
        if self.is_shut:
            return
        self.writer.write_answer(data, is_last=not self.dialogue.unanswered)
        if self.writer.is_choked:
            self._regulate_reading()

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
        error.exit_status = self._exit_status()
        error.__cause__ = self.lost_cause
        return error


class LinkProtocol(asyncio.Protocol):
    """Passes on to a connection what asyncio tells its protocol.

    Args:
        connection: the connection.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self.link: Link[Any] = connection._link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link.opened(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self.link.received(data)

    def descriptors_received(self, descriptors: list[int]) -> None:
        """Take over descriptors, which came before the bytes that are received next."""
        self.link.descriptors.received(descriptors)

    def pause_writing(self) -> None:
        self.link.writing_paused()

    def resume_writing(self) -> None:
        self.link.writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.ended(exc)


def _end_of_stream(reader: BoxReader) -> Exception | None:
    if reader.pending_bytes:
        return EOFError(f"the peer ended the stream {reader.pending_bytes:,} bytes into a box")
    return EOFError("the peer closed it")
