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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Self, cast

from typing_extensions import TypeVar

from typed_amp.addresses import address_of, shown
from typed_amp.box import ANSWER, ERROR, BoxReader, Limits, printable
from typed_amp.calls import Attached, Calls, Waiter
from typed_amp.descriptor_exchange import DescriptorExchange
from typed_amp.dialogue import Answered, Asked, Dialogue
from typed_amp.errors import (
    ConnectionLostError,
    DecodeError,
    EncodeError,
    ProtocolViolationError,
)
from typed_amp.handover import Handover
from typed_amp.raw import encode_raw, raw_head
from typed_amp.responses import Responses
from typed_amp.router import Router
from typed_amp.signature import remote_error
from typed_amp.transitions import StartTLS
from typed_amp.writer import BoxWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ssl import SSLContext
    from types import TracebackType

    from typed_amp.box import Box
    from typed_amp.command import Command
    from typed_amp.signature import Signature
    from typed_amp.transitions import SwitchProtocol

__all__ = ["DRAIN_TIMEOUT", "Connection", "ConnectionProtocol"]

P = ParamSpec("P")
Q = TypeVar("Q", bound=asyncio.BaseProtocol)
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
        is_server: bool = False,
        server_hostname: str | None = None,
        on_opened: Callable[[Connection[S]], None] | None = None,
        on_ended: Callable[[Connection[S]], None] | None = None,
    ) -> None:
        self._router: Router[S] = router or cast("Router[S]", Router())
        self._limits = limits or Limits()
        self._drain_timeout = drain_timeout
        self._on_opened = on_opened
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._state: S
        self._dialogue: Dialogue[Waiter] = Dialogue()
        self._reader = BoxReader(self._limits)
        self._transport: asyncio.Transport
        self._writer: BoxWriter
        self._peername: Any = None
        self._calls = Calls(
            self._dialogue,
            max_box_bytes=self._limits.max_box_bytes,
            lost=self._lost,
            on_ask=self._asks,
        )
        self._descriptors = DescriptorExchange(self, self._limits.max_unclaimed_descriptors)
        self._handover = Handover(self, is_server=is_server, server_hostname=server_hostname)
        self._responses = Responses(
            self,
            self._router,
            self._dialogue,
            descriptors=self._descriptors,
            handover=self._handover,
            max_box_bytes=self._limits.max_box_bytes,
            reply=self._reply,
            on_idle=self._check_drained,
            on_fatal=self._fail,
        )
        self._greeting: asyncio.Task[None] | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._is_asked = False
        self._has_begun = False
        self._is_reading = True
        self._is_violated = False
        self._is_draining = False
        self._is_shut = False
        self._has_switched = False
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
        if not signature.is_plain:
            return await self._call_special(signature, command, timeout)
        encode = signature.arguments.encode
        if not signature.requires_answer:
            await self._calls.tell(signature.title, signature.head, encode, command, timeout)
            return cast("R", None)
        box = await self._calls.ask(signature.title, signature.head, encode, command, timeout)
        if ERROR in box:
            raise signature.error_from(box)
        answer: R = signature.decode_answer(box)
        return answer

    async def _call_special(
        self, signature: Signature[Any, R], command: Command[R], timeout: float | None
    ) -> R:
        if signature.transition is not None:
            raise EncodeError(
                f"{signature.title} changes what the connection speaks; call it with"
                " connection.start_tls or connection.switch_protocol"
            )

        def decode(box: Box) -> Attached | Exception:
            plan = signature.answer
            assert plan is not None
            try:
                is_latest = not self._responses.is_behind
                return Attached(*self._descriptors.decode(plan, box, is_latest=is_latest))
            except DecodeError as error:
                return signature.undecodable(error)

        result = await self._calls.in_turn(
            signature.title,
            signature.head,
            partial(self._descriptors.encode, signature.arguments.encode),
            command,
            timeout,
            requires_answer=signature.requires_answer,
            decode=decode if signature.answer_has_attachments else None,
        )
        if isinstance(result, Attached):
            return cast("R", result.value)
        if ERROR in result:
            raise signature.error_from(result)
        answer: R = signature.decode_answer(result)
        return answer

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

    async def call_box(
        self,
        name: str | bytes,
        box: Mapping[bytes, bytes] = MappingProxyType({}),
        *,
        requires_answer: bool = True,
        timeout: float | None = None,
    ) -> Box:
        """Call a command by its name, with a box as it is; for proxies and tools.

        Everything else is as with `call`. Twisted's `callRemoteString`.

        Args:
            name: the command's name on the wire.
            box: the arguments' pairs. `_ask`, `_command` and the other keys of the protocol in it
                are left out, so that a box may be passed on as it came; see `Router.fallback`.
            requires_answer: whether to wait for an answer.
            timeout: seconds to wait for the answer.

        Returns:
            The pairs of the answer; empty if none is asked for.

        Raises:
            RemoteAmpError: the peer answered with an error. Its `fields` are the further pairs.
            CallTimeoutError: the time is over.
            ConnectionLostError: the connection is closed, or went before the answer came.
            EncodeError: it is no box of bytes (`TooLongError`: a key or a value is too long).
        """
        head = raw_head(name)
        title = printable(name.encode() if isinstance(name, str) else name)
        if not requires_answer:
            await self._calls.tell(title, head, encode_raw, box, timeout)
            return {}
        answer = await self._calls.ask(title, head, encode_raw, box, timeout)
        if ERROR in answer:
            raise remote_error(answer)
        del answer[ANSWER]
        return answer

    async def start_tls(
        self,
        context: SSLContext | None = None,
        *,
        server_hostname: str | None = None,
        command: StartTLS | None = None,
        timeout: float | None = None,
    ) -> None:
        """Begin TLS on this connection, which is in the clear. Twisted's `StartTLS`.

        Who connected is TLS's client, who was connected to its server, whichever side calls this.
        Calls and answers of this side wait meanwhile, and go out encrypted. Calls that were under
        way before go on. `peer_certificate` is there afterwards. Prefer TLS from the first byte
        where you can; `StartTLS` says why.

        Cancelling ends the connection, once the peer may know of it.

        Args:
            context: for this side's part: a certificate to show, authorities to verify the peer
                by. A client may leave it out, for the system's authorities.
            server_hostname: the name that the server's certificate must have, if it isn't the host
                that was connected to.
            command: a subclass of `StartTLS` to call instead of that.
            timeout: seconds for all of it.

        Raises:
            StartTLSError: this connection is encrypted already, the context doesn't fit, or the
                peer refused. The connection goes on as it was.
            RemoteAmpError: the peer refused; `UnhandledCommandError` if it knows no TLS.
            ConnectionLostError: the handshake failed, with the `ssl.SSLError` as its cause; or the
                connection went.
            CallTimeoutError: the time is over. The connection is ended.
        """
        await self._handover.start_tls(command or StartTLS(), context, server_hostname, timeout)

    async def switch_protocol(
        self,
        command: SwitchProtocol,
        protocol_factory: Callable[[], Q],
        *,
        timeout: float | None = None,
    ) -> tuple[asyncio.Transport, Q]:
        """Have the peer agree on another protocol, and hand the transport over to it.

        Calls and answers of this side wait until the peer has answered. If it agrees, this
        connection ends as when it is closed, but that the transport lives on: calls that wait fail
        with `ConnectionLostError`, responders are cancelled, hooks run. Bytes that came with the
        answer go to the protocol. If the peer refuses, AMP goes on.

        Cancelling ends the connection, once the peer may know of it.

        Args:
            command: says to which protocol.
            protocol_factory: makes it, when the peer has agreed.
            timeout: seconds to wait for the answer.

        Returns:
            The transport and the protocol, as asyncio's `create_connection` does. Closing the
            transport is the caller's business from now on.

        Raises:
            RemoteAmpError: the peer refused, with an error that the command doesn't declare.
            Exception: an error that the command declares, as itself.
            CallTimeoutError: the time is over. The connection is ended.
            ConnectionLostError: the connection is closed, or went before the answer came.
            EncodeError: a value can't be written. Nothing was sent.
        """
        return await self._handover.switch(command, protocol_factory, timeout)

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

    async def wait_lost(self) -> ConnectionLostError:
        """Wait until calls fail, which is when `is_closed` is true; gives the error of the loss.

        That is earlier than `wait_closed` where responders or hooks go on afterwards. Cancelling
        only stops the waiting. The `__cause__` of the error is what ended the connection, if
        anything did but `close`.
        """
        await self._calls.wait_ended()
        return self._lost()

    @property
    def is_closed(self) -> bool:
        """Whether calls fail, since the connection has ended or is about to.

        False while `close` lets responders finish.
        """
        return self._calls.is_ended

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
        return f"<Connection {shown(self.remote_address)}, {status}>"

    # -- What the transport tells ------------------------------------------------------------

    def _opened(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._peername = transport.get_extra_info("peername")
        self._writer = BoxWriter(transport, self._loop)
        self._calls.begin(self._writer)
        self._descriptors.begin(transport)
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
            boxes = self._reader.feed(data, self._handover.until)
        except ProtocolViolationError as error:
            boxes, violation = list(error.boxes), error
        if self._reader.is_stopped and self._is_reading:
            self._regulate_reading()
        try:
            for box in boxes:
                if self._is_shut:
                    return
                event = self._dialogue.receive(box)
                if type(event) is Asked:
                    self._is_asked = True
                    if self._reader.is_stopped and box is boxes[-1]:
                        self._handover.begin(event)
                    self._responses.take(event)
                elif type(event) is Answered:
                    self._calls.answered(event)
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
        self._release()

    def _release(self) -> None:
        if self._greeting is None or self._greeting.done():
            self._responses.release()
        self._regulate_reading()

    def _ended(self, error: BaseException | None) -> None:
        """The transport is closed."""
        if self._finishing is not None:
            return
        if not (self._is_shut or self._has_switched):
            self._lost_cause = self._lost_cause or error or _end_of_stream(self._reader)
        self._is_shut = self._is_draining = True
        self._writer.discard()
        self._descriptors.close()
        self._calls.end()
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
        self._calls.end()
        self.close()

    def _fail(self, error: BaseException) -> None:
        """End the connection because of an error, such as a responder's that is declared fatal."""
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
        self._calls.end()
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
        elif self._is_asked and self._is_encrypted:
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
        if self._reader.is_stopped:
            should_read = False  # until it is known what follows
        elif self._dialogue.expected or not is_choked:
            # The answers that this side waits for come the same way as the asks. Those wait, then.
            should_read = self._responses.held_bytes <= self._limits.max_held_bytes
        else:
            should_read = False
        if should_read and not self._is_reading:
            self._transport.resume_reading()
        elif self._is_reading and not should_read:
            self._transport.pause_reading()
        self._is_reading = should_read

    def _asks(self) -> None:
        if not self._is_reading:
            self._regulate_reading()

    def _read_on(self) -> None:
        """What follows the box behind which the reader stopped is AMP."""
        if self._is_shut or not self._reader.is_stopped:
            return
        self._reader.resume()
        self._received(b"")
        self._release()

    def _encrypted(self, transport: asyncio.Transport) -> None:
        """TLS has begun."""
        self._transport = transport
        if self._is_shut:
            transport.close()
            return
        self._descriptors.begin(transport)
        self._reader.resume()
        self._is_reading = True
        self._writer.unlock(transport)
        self._release()

    def _switched(self) -> None:
        """Another protocol has the transport: this is the end of AMP on it."""
        self._has_switched = True
        self._ended(None)

    @property
    def _is_encrypted(self) -> bool:
        return self._transport.get_extra_info("ssl_object") is not None

    def _reply(self, data: bytes) -> None:
        if self._is_shut:
            return
        self._writer.write_answer(data)
        if self._writer.is_choked:
            self._regulate_reading()

    def _lost(self, what: str | None = None) -> ConnectionLostError:
        if self._has_switched:
            reason = "has switched to another protocol"
        elif self._lost_cause is not None:
            reason = f"was lost: {str(self._lost_cause) or type(self._lost_cause).__name__}"
        else:
            reason = "is closed"
        told = f"the connection to {shown(self.remote_address)} {reason}"
        error = ConnectionLostError(told if what is None else f"{what}: {told}")
        error.__cause__ = self._lost_cause
        return error


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

    def descriptors_received(self, descriptors: list[int]) -> None:
        """Take over descriptors, which came before the bytes that are received next."""
        self.connection._descriptors.received(descriptors)

    def pause_writing(self) -> None:
        self.connection._writing_paused()

    def resume_writing(self) -> None:
        self.connection._writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connection._ended(exc)


def _end_of_stream(reader: BoxReader) -> Exception | None:
    if reader.pending_bytes:
        return EOFError(f"the peer ended the stream {reader.pending_bytes:,} bytes into a box")
    return EOFError("the peer closed it")
