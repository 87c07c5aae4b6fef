"""A connection, as its users see it.

Rule of this module: it says what one may do with a connection, and leaves the doing to the `Link`
within.
"""

from __future__ import annotations

import asyncio
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, cast

from typing_extensions import TypeVar

from typed_amp.box import ANSWER, ERROR, ERROR_CODE, TIMEOUT, printable
from typed_amp.command import make_command
from typed_amp.errors import DecodeError, EncodeError, RemoteAmpError
from typed_amp.link import Link
from typed_amp.opening import ClosedAtEnd
from typed_amp.raw import encode_raw, raw_head
from typed_amp.signature import remote_error
from typed_amp.transitions import StartTLS
from typed_amp.waiting import Attached

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ssl import SSLContext

    from typed_amp.box import Box
    from typed_amp.command import Command
    from typed_amp.counters import Counters
    from typed_amp.errors import ConnectionLostError
    from typed_amp.peer_credentials import PeerCredentials
    from typed_amp.settings import Settings
    from typed_amp.signature import Signature
    from typed_amp.transitions import SwitchProtocol

__all__ = ["Connection"]

P = ParamSpec("P")
Q = TypeVar("Q", bound=asyncio.BaseProtocol)
R = TypeVar("R")
S = TypeVar("S", default=None)


class Connection(ClosedAtEnd, Generic[S]):
    """One end of an AMP connection. Both ends are alike: either may call, both may answer.

    Made by `connect`, `connect_unix`, `connect_process`, `serve`, `serve_unix`, `serve_stdio`,
    `serve_fds` and `typed_amp.testing`, never by hand. To be used from the event loop it was made
    in. `async with` closes it at the end.
    """

    __slots__ = ("__weakref__", "_link")

    def __init__(self, settings: Settings[S]) -> None:
        self._link: Link[S] = Link(self, settings)

    async def call(self, command: Command[R], *, timeout: float | None = None) -> R:
        """Have the peer carry out a command, and give its answer.

        Any number of calls may be under way. While the peer doesn't read, calls wait their turn. A
        command with `requires_answer=False` returns None once it is on its way.

        Cancelling stops the waiting: a call that waited its turn is never sent; of one that was
        sent the peer is told if it is a typed_amp program, which then cancels its responder. Its
        answer is ignored. The connection stays usable.

        Args:
            command: the command.
            timeout: seconds to wait for the answer, the wait for its turn included; if left out,
                `call_timeout=` of the connection. Within a responder no more than that has itself.
                `math.inf` waits for ever, whatever both say.

        Raises:
            RemoteAmpError: the peer answered with an error that the command doesn't declare;
                `UnhandledCommandError`, `InvalidArgumentsError`, `NotAllowedError` and
                `UnknownRemoteError` say more. Of the codes without a class of their own, `CLOSING`
                and `BUSY` say that it was not carried out.
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
        calls = self._link.calls
        title = signature.title
        encode = signature.arguments.encode
        seconds = calls.begin_call(title, timeout)
        if not signature.requires_answer:
            await calls.tell(title, signature.head, encode, command, seconds)
            return cast("R", None)
        box = await calls.ask(title, signature.head, encode, command, seconds)
        if ERROR in box:
            raise self._error_from(signature, box, seconds)
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
                is_latest = not self._link.responses.is_behind
                return Attached(*self._link.descriptors.decode(plan, box, is_latest=is_latest))
            except DecodeError as error:
                return signature.undecodable(error)

        calls = self._link.calls
        seconds = calls.begin_call(signature.title, timeout)
        result = await calls.in_turn(
            signature.title,
            signature.head,
            partial(self._link.descriptors.encode, signature.arguments.encode),
            command,
            seconds,
            requires_answer=signature.requires_answer,
            decode=decode if signature.answer_has_attachments else None,
        )
        if isinstance(result, Attached):
            return cast("R", result.value)
        if ERROR in result:
            raise self._error_from(signature, result, seconds)
        answer: R = signature.decode_answer(result)
        return answer

    def _error_from(
        self, signature: Signature[Any, Any], box: Box, seconds: float | None
    ) -> Exception:
        error = signature.error_from(box)
        if (
            seconds is not None
            and box.get(ERROR_CODE) == TIMEOUT
            and self._link.features.has_deadlines
            and type(error) is RemoteAmpError
        ):
            # The peer's clock was first.
            return self._link.calls.timed_out(signature.title, seconds)
        return error

    async def call_remote(
        self, command: Callable[P, Command[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Make a command and call it: `call_remote(Repeat, text="abc", times=3)`.

        The same as `call(Repeat(text="abc", times=3))`, spelled as Twisted's `callRemote`, but that
        a name which is no field's is refused, where pydantic's models ignore it.

        Raises:
            pydantic.ValidationError: the fields are not those of the command.
            Exception: as `call`.
        """
        return await self.call(make_command(command, *args, **kwargs))

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
            EncodeError: it is no box of bytes (`TooLongError`: something is too long); or the
                command is `StartTLS`, which a proxy can't pass on.
        """
        head = raw_head(name)
        if head == StartTLS.__amp_signature__().head:
            raise EncodeError("StartTLS changes what the connection speaks; call start_tls")
        title = printable(name.encode() if isinstance(name, str) else name)
        calls = self._link.calls
        seconds = calls.begin_call(title, timeout)
        if not requires_answer:
            await calls.tell(title, head, encode_raw, box, seconds)
            return {}
        answer = await calls.ask(title, head, encode_raw, box, seconds)
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

        Cancelling ends the connection, once the peer may know of it. Closing waits for it, as for
        a responder.

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
                connection went. A client that is refused may learn of it at its next call only.
            CallTimeoutError: the time is over. The connection is ended, once the peer may know.
        """
        await self._link.handover.start_tls(
            command or StartTLS(), context, server_hostname, timeout
        )

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
            Exception: an error that the command declares, as itself; or what `protocol_factory` or
                the protocol's `connection_made` raises. The connection is ended then.
            TypeError: what `protocol_factory` returns is no protocol. The connection is ended then.
            CallTimeoutError: the time is over. The connection is ended, once the peer may know.
            ConnectionLostError: the connection is closed, or went before the answer came.
            EncodeError: a value can't be written. Nothing was sent.
        """
        return await self._link.handover.switch(command, protocol_factory, timeout)

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
        self._link.close(drain_timeout)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended: its responders and hooks are done as well.

        Whoever ends it. Cancelling only stops the waiting. A responder that waits for the end of
        its own connection waits for itself, until it is cancelled.
        """
        await self._link.finished.wait()

    async def wait_lost(self) -> ConnectionLostError:
        """Wait until calls fail, which is when `is_closed` is true; gives the error of the loss.

        That is earlier than `wait_closed` where responders or hooks go on afterwards. Cancelling
        only stops the waiting. The `__cause__` of the error is what ended the connection, if
        anything did but `close`.
        """
        await self._link.calls.ended.wait()
        return self._link.lost()

    @property
    def is_closed(self) -> bool:
        """Whether calls fail, since the connection has ended or is about to.

        False while `close` lets responders finish.
        """
        return self._link.calls.is_ended

    @property
    def counters(self) -> Counters:
        """What happened on this connection up to now, in numbers."""
        return self._link.counters

    @property
    def name(self) -> str:
        """What log records call this connection: the peer, and a number of its own."""
        return self._link.name

    @property
    def state(self) -> S:
        """What the router's `state=` made for this connection; None without one."""
        return self._link.state

    @property
    def remote_address(self) -> tuple[str, int] | str | None:
        """The peer's `(host, port)`, or its Unix path, which is empty for most clients.

        None if the transport has no address.
        """
        return self._link.remote_address

    @property
    def peer_certificate(self) -> dict[str, Any] | None:
        """The peer's certificate, as `ssl.SSLSocket.getpeercert` gives it.

        None without TLS, or if the peer showed none; empty if this side asked for none to be
        verified. Twisted's `AMP.peerCertificate`.
        """
        certificate: dict[str, Any] | None = self._link.transport.get_extra_info("peercert")
        return certificate

    @property
    def peer_credentials(self) -> PeerCredentials | None:
        """Which process and which user are at the other end of a Unix socket, as the system says.

        None if it is no Unix socket, and on other systems than Linux. With TLS too; it stays when
        the connection has ended.
        """
        return self._link.peer_credentials

    def __repr__(self) -> str:
        status = "closed" if self._link.is_shut else "closing" if self._link.is_draining else "open"
        return f"<{type(self).__name__} {self._link.peer}, {status}>"
