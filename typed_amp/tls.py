"""TLS on a connection that began in the clear.

Rule of this module: nothing that came in the clear is taken for something that was encrypted, and
no name goes unchecked because nobody gave one.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import Any, cast

from typed_amp.errors import StartTLSError

__all__ = ["begin_tls", "check_context", "check_in_the_clear", "feed_protocol"]


def check_in_the_clear(transport: asyncio.Transport) -> None:
    """Refuse TLS within TLS.

    Raises:
        StartTLSError: the transport is encrypted.
    """
    if transport.get_extra_info("ssl_object") is not None:
        raise StartTLSError("the connection is encrypted already; TLS begins once")


def check_context(
    transport: asyncio.Transport,
    context: ssl.SSLContext,
    *,
    is_server: bool,
    server_hostname: str | None,
) -> None:
    """Refuse, before anything is sent, what can't become a handshake.

    Args:
        transport: in the clear.
        context: of this side.
        is_server: whether this side is TLS's server.
        server_hostname: the name that the server's certificate must have.

    Raises:
        StartTLSError: it can't.
    """
    check_in_the_clear(transport)
    if not (getattr(transport, "_start_tls_compatible", False) or _is_of_another_loop(transport)):
        raise StartTLSError(f"{type(transport).__name__} can't carry TLS")
    wrong = ssl.PROTOCOL_TLS_CLIENT if is_server else ssl.PROTOCOL_TLS_SERVER
    if context.protocol == wrong:
        due, given = ("SERVER", "CLIENT") if is_server else ("CLIENT", "SERVER")
        raise StartTLSError(
            f"this side is the connection's {due.lower()}, and so TLS's, but its context is one"
            f" of ssl.PROTOCOL_TLS_{given}; make it with ssl.PROTOCOL_TLS_{due}"
        )
    if not is_server and context.check_hostname and not server_hostname:
        raise StartTLSError(
            "the context checks the server's name, which nobody has said; give server_hostname="
        )
    try:
        context.wrap_bio(
            ssl.MemoryBIO(),
            ssl.MemoryBIO(),
            server_side=is_server,
            server_hostname=None if is_server else server_hostname,
        )
    except (ssl.SSLError, ValueError) as error:
        raise StartTLSError(f"no handshake can begin with this: {error}") from error


def _is_of_another_loop(transport: asyncio.Transport) -> bool:
    """Whether it belongs to a loop that isn't asyncio's own, such as uvloop's."""
    loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    return loop != "asyncio" and type(transport).__module__.partition(".")[0] == loop


async def begin_tls(
    transport: asyncio.Transport,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext,
    *,
    is_server: bool,
    server_hostname: str | None,
    handshake_timeout: float,
    received: bytes,
) -> asyncio.Transport:
    """Shake hands; gives the transport that encrypts.

    Cancelling ends the connection.

    Args:
        transport: in the clear, with all written that the peer is to read before.
        protocol: what the new transport serves. Its `connection_made` isn't called.
        context: of this side.
        is_server: whether this side is TLS's server.
        server_hostname: the name that the server's certificate must have.
        handshake_timeout: the seconds that it may take.
        received: what was read already of the peer's side of the handshake. Whatever it is, TLS
            gets it: AMP in there is no handshake, and ends the connection.

    Raises:
        ssl.SSLError: the handshake failed. The connection is ended.
        OSError: it was lost meanwhile.
    """
    loop = asyncio.get_running_loop()
    start_tls = loop.start_tls
    if getattr(transport, "_start_tls_compatible", False):
        # asyncio's way works for whatever transport says so, ours among them. Other loops know
        # their own transports alone, and those don't say.
        start_tls = partial(asyncio.BaseEventLoop.start_tls, cast("asyncio.BaseEventLoop", loop))

    async def shake_hands() -> asyncio.Transport | None:
        if transport.is_closing():  # nobody would tell TLS, which waits a minute then
            raise ConnectionResetError("the connection was lost before the TLS handshake")
        return await start_tls(
            transport,
            protocol,
            context,
            server_side=is_server,
            server_hostname=None if is_server else server_hostname,
            ssl_handshake_timeout=handshake_timeout,
        )

    # Not by the loop's factory of tasks: the order of the turns is counted on below.
    handshake = asyncio.Task(shake_hands(), loop=loop)
    if received:
        # The task's first step puts TLS in the protocol's place, and lets it begin in the turn
        # after that. Reading begins then as well, so there it is the turn of what came before.
        loop.call_soon(loop.call_soon, _feed_handshake, transport, received)
    encrypted: asyncio.Transport | None = await handshake
    # A loss before the end of the handshake is told to nobody, and not by all loops alike.
    if encrypted is None or encrypted.get_extra_info("ssl_object") is None:
        raise ConnectionResetError("the connection was lost during the TLS handshake")
    return encrypted


def _feed_handshake(transport: asyncio.Transport, data: bytes) -> None:
    if not transport.is_closing():
        feed_protocol(transport.get_protocol(), data)


def feed_protocol(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Give a protocol what was read before it was there."""
    receiver: Any = protocol
    if not hasattr(receiver, "get_buffer"):
        receiver.data_received(data)
        return
    rest = memoryview(data)
    while rest:
        buffer = memoryview(receiver.get_buffer(len(rest)))
        count = min(len(buffer), len(rest))
        buffer[:count] = rest[:count]
        receiver.buffer_updated(count)
        rest = rest[count:]
