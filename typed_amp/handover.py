"""From plain AMP to TLS, or to another protocol, in the middle of a connection.

Rule of this module: behind a box after which something else than AMP may follow, nothing is read as
AMP and nothing is written as AMP, until it is known what follows.

The side that calls writes nothing behind its ask, and reads nothing behind the answer. The side
that is called reads nothing behind the ask, and writes nothing behind its answer. So each byte is
known to belong to the one or to the other.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from typed_amp.box import ANSWER, ASK, COMMAND, ERROR
from typed_amp.errors import EncodeError, StartTLSError
from typed_amp.log import log
from typed_amp.tls import begin_tls, check_context, check_in_the_clear, feed_protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from typed_amp.box import Box
    from typed_amp.command import Command
    from typed_amp.dialogue import Asked
    from typed_amp.link import Link
    from typed_amp.signature import Signature
    from typed_amp.transitions import StartTLS, SwitchProtocol

__all__ = ["Handover"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

_HEAD_START: Final = 0.1
"""How many seconds before its first TLS byte this side sends the answer that agrees to TLS.

TLS's client speaks first. Twisted, if it is the server that asked, takes what arrives along with
the answer for AMP and is stuck; so it gets the time to read the answer alone.
"""


class Handover:
    """Changes what one connection speaks.

    Args:
        link: the inside of the connection. As in Twisted, TLS makes that side its server which was
            connected to, whoever asks for TLS.
    """

    __slots__ = (
        "_is_server",
        "_is_starting_tls",
        "_link",
        "_server_hostname",
        "_tag",
        "asked",
        "asking",
    )

    def __init__(self, link: Link[Any]) -> None:
        self._link = link
        self._is_server = link.settings.is_server
        self._server_hostname = link.settings.server_hostname
        self._tag: bytes | None = None
        """Of the ask behind which this side writes nothing more."""
        self._is_starting_tls = False
        self.asking: int = 0
        """How many calls of this side wait for a change, or for their turn to ask for one."""
        self.asked: Asked | None = None
        """What the peer asked for, behind which the reader has stopped."""

    # -- Where the reader stops ----------------------------------------------------------------

    @property
    def until(self) -> Callable[[Box], bool] | None:
        """What the reader is to ask of each box, if one may come that it has to stop behind."""
        if self._tag is None and not self._link.settings.router.has_transitions:
            return None
        return self._is_last

    def _is_last(self, box: Box) -> bool:
        if ANSWER in box:
            return box[ANSWER] == self._tag
        if ERROR in box:
            return box[ERROR] == self._tag
        # Who wants no answer is given none, and so AMP goes on.
        return COMMAND in box and ASK in box and self._transition_of(box[COMMAND]) is not None

    def _transition_of(self, name: bytes) -> type | None:
        responder = self._link.settings.router.find(name)
        return None if responder is None else responder.signature.transition

    # -- The side that is asked ----------------------------------------------------------------

    def begin(self, asked: Asked) -> None:
        """The reader has stopped behind this ask."""
        self.asked = asked
        if self._tag is not None:
            self._link.fail(
                StartTLSError("both sides asked for a change of protocol at the same time")
            )

    def goes_first(self, asked: Asked) -> bool:
        """Whether it is an ask that must not wait for hooks, nor for what waits for them.

        A peer that has asked for TLS keeps the answers back that hooks may be waiting for.
        """
        return asked is self.asked and self._transition_of(asked.name) is ssl.SSLContext

    def is_waited_for(self, asked: Asked) -> bool:
        """Whether this side waits for answers that the peer keeps back until it has its own."""
        return asked is self.asked and self._link.dialogue.pending > 0

    def check_state(self, answer: Any) -> None:
        """Refuse what the connection's state doesn't allow, before the peer is told anything.

        Raises:
            StartTLSError: it is encrypted already.
        """
        if isinstance(answer, ssl.SSLContext):
            check_in_the_clear(self._link.transport)

    def check_answer(self, answer: Any) -> None:
        """Refuse what a responder returned, before the peer is told anything.

        Raises:
            StartTLSError: it can't be carried out.
        """
        if isinstance(answer, ssl.SSLContext):
            self._check_context(answer, self._server_hostname)

    async def accept(self, answer: Any) -> None:
        """Do what was agreed on; the answer that says so is the last that was written.

        Cancelling ends the connection.
        """
        link = self._link
        if link.is_shut:
            return
        link.writer.lock()
        if isinstance(answer, ssl.SSLContext):
            await self._follow(answer)
            return
        try:
            self._switch(answer)
        except Exception as error:
            told = "the other protocol failed to begin"
            log(logging.ERROR, "switch_failed", link.connection, told, error=error)

    async def _follow(self, context: ssl.SSLContext) -> None:
        try:
            if not self._is_server:
                await asyncio.sleep(_HEAD_START)
            await self._shake_hands(context, self._server_hostname)
        except (OSError, asyncio.CancelledError) as error:
            reason = self._link.lost_cause or error
            text = str(reason) or type(reason).__name__
            told = "the TLS handshake failed: %s"
            log(logging.WARNING, "tls_failed", self._link.connection, told, text)
            if not isinstance(error, OSError):
                raise

    def refused(self) -> None:
        """The peer was refused: what follows is AMP."""
        self.asked = None
        self._link.loop.call_soon(self._link.read_on)

    # -- The side that asks --------------------------------------------------------------------

    async def start_tls(
        self,
        command: StartTLS,
        context: ssl.SSLContext | None,
        server_hostname: str | None,
        timeout: float | None,
    ) -> None:
        """Ask for TLS and begin it; see `Connection.start_tls`."""
        signature = _signature_of(command, ssl.SSLContext)
        server_hostname = server_hostname or self._server_hostname
        if context is None:
            if self._is_server:
                raise StartTLSError(
                    "this side is TLS's server, and needs a context with a certificate"
                )
            context = ssl.create_default_context()
        self._check_context(context, server_hostname)
        if self._is_starting_tls:
            raise StartTLSError("TLS is beginning already")
        self._is_starting_tls = True
        try:
            async with self._limited(signature.title, timeout):
                await self._ask(
                    signature, command, partial(self._check_context, context, server_hostname)
                )
                try:
                    await self._shake_hands(context, server_hostname)
                except OSError:
                    raise self._link.lost(signature.title) from self._link.lost_cause
        finally:
            self._is_starting_tls = False

    async def switch(
        self, command: SwitchProtocol, protocol_factory: Callable[[], P], timeout: float | None
    ) -> tuple[asyncio.Transport, P]:
        """Ask for another protocol and hand over to it; see `Connection.switch_protocol`."""
        signature = _signature_of(command, asyncio.BaseProtocol)
        async with self._limited(signature.title, timeout):
            await self._ask(signature, command)
            try:
                protocol = protocol_factory()
                if not isinstance(protocol, asyncio.BaseProtocol):
                    raise TypeError(
                        f"{signature.title}: protocol_factory() returned a"
                        f" {type(protocol).__name__}, where it is to return an asyncio.Protocol"
                    )
            except BaseException as error:
                self._link.fail(error)
                raise
            return self._switch(protocol), protocol

    @asynccontextmanager
    async def _limited(self, title: str, timeout: float | None) -> AsyncGenerator[None, None]:
        """Bound the time of a change that this side asks for; closing waits for it."""
        seconds = self._link.calls.begin_call(title, timeout)
        self.asking += 1
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            assert seconds is not None
            raise self._link.calls.timed_out(title, seconds) from None
        finally:
            self.asking -= 1
            self._link.check_drained()

    async def _ask(
        self,
        signature: Signature[Any, Any],
        command: Command[Any],
        check: Callable[[], None] | None = None,
    ) -> None:
        link = self._link
        await link.calls.turn(signature.title)
        while link.writer.is_locked:  # by a change that the peer has asked for meanwhile
            await link.calls.turn(signature.title)
        if check is not None:
            check()
        try:
            box = await link.calls.ask_alone(
                signature.title, signature.head, signature.arguments.encode, command, self._written
            )
        except BaseException as error:
            if self._tag is not None and not link.is_shut:
                # The peer may have begun, or may do so at any time.
                link.fail(_cause(error))
            raise
        self._tag = None
        if ERROR in box:
            link.writer.unlock()
            link.read_on()
            raise signature.error_from(box)
        if link.is_shut:
            raise link.lost(signature.title)

    def _written(self, tag: bytes) -> None:
        self._tag = tag
        self._link.writer.lock()

    # -- Both sides ----------------------------------------------------------------------------

    def _check_context(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        check_context(
            self._link.transport,
            context,
            is_server=self._is_server,
            server_hostname=server_hostname,
        )

    async def _shake_hands(self, context: ssl.SSLContext, server_hostname: str | None) -> None:
        link = self._link
        transport = link.transport
        try:
            # What takes this side's place at the transport can't know that it is full.
            async with asyncio.timeout(link.settings.limits.handshake_timeout):
                if link.writer.is_full:
                    await link.writer.room()
            if link.is_shut:
                raise ConnectionAbortedError("it was closed before the TLS handshake")
            encrypted = await begin_tls(
                transport,
                transport.get_protocol(),
                context,
                is_server=self._is_server,
                server_hostname=server_hostname,
                handshake_timeout=link.settings.limits.handshake_timeout,
                received=link.reader.take_rest(),
            )
        except BaseException as error:
            transport.abort()
            link.ended(_cause(error))  # nobody else tells it
            raise
        self.asked = None
        link.encrypted(encrypted)

    def _switch(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        link = self._link
        transport = link.transport
        rest = link.reader.take_rest()
        is_full = link.writer.is_full
        link.switched()
        try:
            transport.set_write_buffer_limits()
            transport.set_protocol(protocol)
            transport.resume_reading()  # first, so that the protocol may pause it
            protocol.connection_made(transport)
            if is_full:
                protocol.pause_writing()
            if rest:
                feed_protocol(protocol, rest)
        except BaseException:
            transport.abort()
            raise
        return transport


def _cause(error: BaseException) -> BaseException:
    """Say of a change that was given up why its connection ended."""
    if isinstance(error, asyncio.CancelledError):
        return ConnectionAbortedError("this side gave up waiting for a change of protocol")
    return error


def _signature_of(command: Command[Any], transition: type) -> Signature[Any, Any]:
    signature = type(command).__amp_signature__()
    if signature.transition is not transition:
        raise EncodeError(f"{signature.title} is no command for this")
    return signature
