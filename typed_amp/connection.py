"""A connection: one dialogue over one transport.

Rule of this module: it is the one place that owns tasks, writes, backpressure and cancellation.
What boxes mean is the dialogue's business, how values are written the command's, and how a
transport comes about the client's or the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Self, TypeAlias, cast

from typing_extensions import TypeVar

from typed_amp.addresses import address_of, shown
from typed_amp.box import ERROR, Box, BoxReader, Limits
from typed_amp.dialogue import Answered, Asked, Dialogue
from typed_amp.errors import (
    AmpError,
    CallTimeoutError,
    ConnectionLostError,
    ProtocolViolationError,
)
from typed_amp.responses import Responses
from typed_amp.router import Router
from typed_amp.writer import BoxWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typed_amp.command import Command

__all__ = ["DRAIN_TIMEOUT", "Connection", "ConnectionProtocol"]

_Waiter: TypeAlias = "asyncio.Future[Box | AmpError]"
"""What a call awaits: the answer's box, or why there is none.

A result in both cases: an exception that nobody is left to take would be logged as lost.
"""

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", default=None)

DRAIN_TIMEOUT: Final = 10.0
"""How many seconds a responder may go on when its connection is closed, unless told otherwise."""

_FLUSH_TIMEOUT: Final = 5.0
"""How many seconds the last answers may take to go out, once all responders are done."""

_LINGER_TIMEOUT: Final = 1.0
"""How many seconds a peer that was answered has to close its own side."""

_TLS_LINGER_TIMEOUT: Final = 0.3
"""Likewise with TLS, where the peer isn't told before."""

_logger = logging.getLogger("typed_amp")


class Connection(Generic[S]):
    """One end of an AMP connection. Both ends are alike: either may call, both may answer.

    Made by `connect`, `connect_unix`, `serve`, `serve_unix` and `typed_amp.testing`, never by hand.
    To be used from the event loop it was made in. `async with` closes it at the end.
    """

    def __init__(
        self,
        router: Router[S] | None = None,
        *,
        limits: Limits | None = None,
        drain_timeout: float = DRAIN_TIMEOUT,
        on_opened: Callable[[Connection[S]], None] | None = None,
        on_ended: Callable[[Connection[S]], None] | None = None,
        peer: str | None = None,
    ) -> None:
        self._router: Router[S] = router or cast("Router[S]", Router())
        self._limits = limits or Limits()
        self._drain_timeout = drain_timeout
        self._on_opened = on_opened
        self._on_ended = on_ended
        self._peer = peer
        """What messages call the peer, if it has no address."""
        self._loop = asyncio.get_running_loop()
        self._state: S
        self._dialogue: Dialogue[_Waiter] = Dialogue()
        self._reader = BoxReader(self._limits)
        self._transport: asyncio.Transport
        self._writer: BoxWriter
        self._peername: Any = None
        self._unsent: set[_Waiter] = set()
        """Calls without an answer that wait for the transport."""
        self._responses = Responses(
            self,
            self._router,
            self._dialogue,
            reply=self._reply,
            on_idle=self._check_drained,
            on_fatal=self._fatal,
        )
        self._greeting: asyncio.Task[None] | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._is_asked = False
        self._has_begun = False
        self._is_reading = True
        self._is_violated = False
        self._is_draining = False
        self._is_shut = False
        self._drain_timer: asyncio.TimerHandle | None = None
        self._drain_deadline = math.inf
        self._timers: list[asyncio.TimerHandle] = []
        self._lost_cause: BaseException | None = None
        self._finished = asyncio.Event()

    # -- What users call ---------------------------------------------------------------------

    async def call(self, command: Command[R], *, timeout: float | None = None) -> R:
        """Have the peer carry out a command, and give its answer.

        Any number of calls may be under way. While the peer doesn't read, calls wait their turn. A
        command with `requires_answer=False` returns None once it is on its way.

        Cancelling stops the waiting: a call that waited its turn is never sent; of one that was
        sent the peer is told nothing, and its answer is ignored. The connection stays usable.

        Args:
            command: the command.
            timeout: seconds to wait for the answer, the wait for its turn included.

        Raises:
            RemoteAmpError: the peer answered with an error that the command doesn't declare;
                `UnhandledCommandError`, `InvalidArgumentsError` and `UnknownRemoteError` say more.
            Exception: an error that the command declares, as itself.
            CallTimeoutError: the time is over.
            ConnectionLostError: the connection is closed, or went before the answer came.
            EncodeError: a value can't be written (`TooLongError`: is too long). Nothing was sent.
            DecodeError: the answer isn't what the command declares.
            DefinitionError: the command names classes that don't exist.
        """
        signature = command.__amp_own_signature__ or command.__amp_signature__()
        if self._is_shut or self._is_violated:
            raise self._lost(signature.title)
        waiter: _Waiter = self._loop.create_future()
        if signature.requires_answer:
            dialogue = self._dialogue
            tag = dialogue.new_tag()
            head = b"\0\4_ask\0%c%b%b" % (len(tag), tag, signature.head)
            data = signature.arguments.encode(command, head)
            dialogue.ask(tag, waiter)
            self._writer.write_ask(waiter, data)
            if not self._is_reading:
                self._regulate_reading()
        else:
            data = signature.arguments.encode(command, signature.head)
            if self._writer.write_ask(waiter, data, partial(_resolve, waiter, {})):
                return cast("R", None)
            tag = b""
            self._unsent.add(waiter)
        timer = None
        if timeout is not None:
            timer = self._loop.call_later(
                timeout, _resolve, waiter, CallTimeoutError(signature.title, timeout)
            )
        try:
            box = await waiter
        except BaseException:
            self._give_up(tag, waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if type(box) is dict:
            if not signature.requires_answer:
                self._unsent.discard(waiter)
                return cast("R", None)
            if ERROR in box:
                raise signature.error_from(box)
            answer: R = signature.decode_answer(box)
            return answer
        self._give_up(tag, waiter)
        raise box if isinstance(box, CallTimeoutError) else self._lost(signature.title)

    async def call_remote(
        self, command: Callable[P, Command[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Make a command and call it: `call_remote(Repeat, text="abc", times=3)`.

        The same as `call(Repeat(text="abc", times=3))`, spelled as Twisted's `callRemote`.

        Raises:
            pydantic.ValidationError: the fields are not those of the command.
            Exception: as `call`.
        """
        return await self.call(command(*args, **kwargs))

    def close(self, *, drain_timeout: float | None = None) -> None:
        """Begin to close. Returns at once; `wait_closed` waits for the end.

        Responders that are running may finish, and may call the peer meanwhile; commands that come
        in now are refused with the code `CLOSING`. When the last is done, or was cancelled because
        the time is over, what was answered is sent and the connection ends. Calls that wait for an
        answer then fail with `ConnectionLostError`.

        Calling it again does nothing, but that a shorter time holds.

        Args:
            drain_timeout: seconds for running responders to finish; 0 cancels them now. If left
                out, what was said where the connection was made.
        """
        if drain_timeout is None:
            if self._is_draining:
                return
            drain_timeout = self._drain_timeout
        self._is_draining = True
        self._responses.close()
        self._check_drained()
        self._cancel_responders_in(drain_timeout)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended: its responders and hooks are done as well.

        Whoever ends it. Cancelling only stops the waiting. A responder that waits for the end of
        its own connection waits for itself, until it is cancelled.
        """
        await self._finished.wait()

    @property
    def is_closed(self) -> bool:
        """Whether calls fail, since the connection has ended or is about to.

        False while `close` lets responders finish.
        """
        return self._is_shut

    @property
    def state(self) -> S:
        """What the router's `state=` made for this connection; None without one."""
        return self._state

    @property
    def remote_address(self) -> tuple[str, int] | str | None:
        """The peer's `(host, port)`, or its Unix path, which is empty for most clients.

        None if the transport has no address.
        """
        return address_of(self._peername)

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, as `ssl.SSLSocket.getpeercert` gives it.

        None without TLS, or if the peer showed none; empty if this side asked for none to be
        verified. Twisted's `AMP.peerCertificate`.
        """
        certificate: dict[str, Any] | None = self._transport.get_extra_info("peercert")
        return certificate

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()

    def __repr__(self) -> str:
        status = "closed" if self._is_shut else "closing" if self._is_draining else "open"
        return f"<{type(self).__name__} {self._shown_peer()}, {status}>"

    # -- What the transport tells ------------------------------------------------------------

    def _opened(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._peername = transport.get_extra_info("peername")
        self._writer = BoxWriter(transport, self._loop)
        if self._on_opened is not None:
            self._on_opened(self)
            if self._is_shut:
                return
        try:
            self._state = self._router.new_state()
        except Exception as error:
            _logger.error("%r: the router's state= failed", self, exc_info=error)
            self._lost_cause = error
            self._shut()
            return
        if not self._router.connect_hooks():
            self._has_begun = True
        else:
            self._responses.hold()
            self._greeting = self._loop.create_task(self._greet())

    def _received(self, data: bytes) -> None:
        if self._is_violated or self._is_shut:
            return  # read only to be thrown away
        violation = None
        try:
            boxes = self._reader.feed(data)
        except ProtocolViolationError as error:
            boxes, violation = list(error.boxes), error
        try:
            for box in boxes:
                if self._is_shut:
                    return
                event = self._dialogue.receive(box)
                if type(event) is Asked:
                    self._is_asked = True
                    self._responses.take(event)
                elif type(event) is Answered:
                    _resolve(event.waiter, event.box)
        except ProtocolViolationError as error:
            violation = error
        if violation is not None:
            self._violated(violation)
        if self._writer.is_full or self._responses.held_bytes:
            self._regulate_reading()

    def _writing_paused(self) -> None:
        self._writer.pause()
        self._regulate_reading()

    def _writing_resumed(self) -> None:
        self._writer.resume()
        if self._greeting is None or self._greeting.done():
            self._responses.release()
        self._regulate_reading()

    def _ended(self, error: Exception | None) -> None:
        """The transport is closed."""
        if not self._is_shut:
            self._lost_cause = self._lost_cause or error or _end_of_stream(self._reader)
        self._is_shut = self._is_draining = True
        self._writer.discard()
        self._fail_pending()
        for timer in self._timers:
            timer.cancel()
        self._responses.close()
        self._responses.cancel(unheard_only=True)
        self._cancel_responders_in(self._drain_timeout)
        self._finishing = self._loop.create_task(self._finish())

    # -- Beginning and ending ----------------------------------------------------------------

    async def _greet(self) -> None:
        """Run the hooks of `on_connect`, then what was asked meanwhile."""
        self._has_begun = True
        try:
            for hook in self._router.connect_hooks():
                await hook(self)
        except BaseException as error:
            if not self._is_shut:
                _logger.error("%r: an on_connect hook failed", self, exc_info=error)
            self._lost_cause = self._lost_cause or error
            self.close(drain_timeout=0)
            if not isinstance(error, Exception):
                raise
        self._responses.release()
        self._regulate_reading()

    async def _greeted(self) -> None:
        """Wait until the hooks of `on_connect` are done.

        Raises:
            ConnectionLostError: one of them failed, or the connection went meanwhile.
        """
        if self._greeting is not None:
            await asyncio.wait([self._greeting])
        if self._is_shut:
            await self.wait_closed()
            raise self._lost("connect")

    def _violated(self, violation: ProtocolViolationError) -> None:
        _logger.warning("%r: closing, since the peer broke the protocol: %s", self, violation)
        self._lost_cause = violation
        self._is_violated = True
        # No answer can come any more, but those who asked before shall have theirs.
        self._fail_pending()
        self.close()

    def _fatal(self, error: BaseException) -> None:
        """A responder failed with an error that is declared to end the connection."""
        self._lost_cause = self._lost_cause or error
        self._shut()

    def _check_drained(self) -> None:
        if self._is_draining and not self._responses.running:
            self._shut()

    def _cancel_responders_in(self, seconds: float) -> None:
        """Bound the time of those that run, unless they have less already."""
        if not self._responses.running:
            return
        deadline = self._loop.time() + seconds
        if seconds <= 0:
            self._responses.cancel()
        elif deadline < self._drain_deadline:
            self._drain_deadline = deadline
            if self._drain_timer is not None:
                self._drain_timer.cancel()
            self._drain_timer = self._loop.call_later(seconds, self._responses.cancel)

    def _shut(self) -> None:
        """End the connection, once what is written has gone out."""
        if self._is_shut:
            return
        self._is_shut = self._is_draining = True
        self._fail_pending()
        self._writer.flush()
        transport = self._transport
        # A peer that doesn't read would keep what is left waiting for ever.
        self._timers.append(self._loop.call_later(_FLUSH_TIMEOUT, transport.abort))
        if self._is_asked and transport.can_write_eof():
            # The system resets a socket that is closed with bytes unread, and what was on its way
            # is lost with it. So read on, and close when the peer has taken the answers.
            with contextlib.suppress(OSError):  # the peer has reset it
                transport.write_eof()
            if not self._is_reading:
                self._is_reading = True
                transport.resume_reading()
            self._timers.append(self._loop.call_later(_LINGER_TIMEOUT, transport.close))
        elif self._is_asked and transport.get_extra_info("ssl_object") is not None:
            # TLS has no half of a stream to end, and asyncio's forgets what it holds when data
            # comes in after its close. So give the peer the time to take the answers.
            self._timers.append(self._loop.call_later(_TLS_LINGER_TIMEOUT, transport.close))
        else:
            transport.close()

    async def _finish(self) -> None:
        """Wait for what goes on after the end of the transport."""
        try:
            if self._greeting is not None:
                self._greeting.cancel()
                await asyncio.wait([self._greeting])
            await self._responses.wait()
            if self._has_begun:
                await self._part()
        finally:
            if self._drain_timer is not None:
                self._drain_timer.cancel()
            self._finished.set()
            if self._on_ended is not None:
                self._on_ended(self)

    async def _part(self) -> None:
        for hook in self._router.disconnect_hooks():
            try:
                await hook(self)
            except Exception as error:
                _logger.error("%r: an on_disconnect hook failed", self, exc_info=error)

    # -- Odds and ends -----------------------------------------------------------------------

    def _regulate_reading(self) -> None:
        """Stop reading from a peer that asks and doesn't take its answers; go on when it does."""
        if self._is_violated or self._is_shut:
            return  # what comes is thrown away
        is_choked = self._writer.is_choked
        if is_choked:
            self._responses.hold()
        if self._dialogue.expected or not is_choked:
            # The answers that this side waits for come the same way as the asks. Those wait, then.
            should_read = self._responses.held_bytes <= self._limits.max_held_bytes
        else:
            should_read = False
        if should_read and not self._is_reading:
            self._transport.resume_reading()
        elif self._is_reading and not should_read:
            self._transport.pause_reading()
        self._is_reading = should_read

    def _reply(self, data: bytes) -> None:
        if self._is_shut:
            return
        self._writer.write_answer(data)
        if self._writer.is_choked:
            self._regulate_reading()

    def _give_up(self, tag: bytes, waiter: _Waiter) -> None:
        was_held = self._writer.withdraw(waiter)
        self._dialogue.abandon(tag, is_sent=not was_held)
        self._unsent.discard(waiter)

    def _fail_pending(self) -> None:
        """Wake everybody whose call can't succeed any more. `call` says why."""
        lost = ConnectionLostError()
        for waiter in [*self._dialogue.end(), *self._unsent]:
            _resolve(waiter, lost)

    def _lost(self, what: str) -> ConnectionLostError:
        if self._lost_cause is not None:
            reason = f"was lost: {str(self._lost_cause) or type(self._lost_cause).__name__}"
        else:
            reason = "is closed"
        error = ConnectionLostError(f"{what}: the connection to {self._shown_peer()} {reason}")
        error.__cause__ = self._lost_cause
        return error

    def _shown_peer(self) -> str:
        return self._peer or shown(self.remote_address)


class ConnectionProtocol(asyncio.Protocol):
    """Passes on to a connection what asyncio tells its protocol.

    Args:
        connection: the connection.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection._opened(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self.connection._received(data)

    def pause_writing(self) -> None:
        self.connection._writing_paused()

    def resume_writing(self) -> None:
        self.connection._writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection._ended(exc)


def _resolve(waiter: _Waiter, result: Box | AmpError) -> None:
    if not waiter.done():
        waiter.set_result(result)


def _end_of_stream(reader: BoxReader) -> Exception | None:
    if reader.pending_bytes:
        return EOFError(f"the peer ended the stream {reader.pending_bytes:,} bytes into a box")
    return EOFError("the peer closed it")
