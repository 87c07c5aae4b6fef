"""Connecting to a server.

Rule of this module: it makes a transport and hands it to a `Connection`; nothing else differs
between the two ends.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, overload

from typing_extensions import TypeVar, Unpack

from typed_amp.connection import Connection
from typed_amp.lifetime import greeted
from typed_amp.opening import Opening
from typed_amp.options import check_options, handshake_timeout
from typed_amp.protocol import LinkProtocol
from typed_amp.settings import Settings
from typed_amp.unix_socket import open_unix_transport

if TYPE_CHECKING:
    from ssl import SSLContext

    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router

__all__ = ["connect", "connect_unix"]

S = TypeVar("S", default=None)


@overload
def connect(
    host: str,
    port: int,
    *,
    router: None = None,
    ssl: SSLContext | bool | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[None]]: ...


@overload
def connect(
    host: str,
    port: int,
    *,
    router: Router[S],
    ssl: SSLContext | bool | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[S]]: ...


def connect(
    host: str,
    port: int,
    *,
    router: Router[S] | None = None,
    ssl: SSLContext | bool | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[S]]:
    """Connect to a server over TCP: `await connect(...)` or `async with connect(...)`.

    The hooks of `router.on_connect` are done when the connection is there. Cancelling leaves
    nothing open.

    Args:
        host: a name or an address; each address of the name is tried.
        port: the port.
        router: answers what the server asks.
        ssl: a client's context for TLS, with a certificate in it for mutual TLS; True for one with
            the system's authorities.
        server_hostname: the name that the server's certificate must have, if it isn't `host`; also
            for TLS that begins later, by `Connection.start_tls` or the server's.
        options: see `ConnectionOptions`.

    Raises:
        OSError: nothing listens there, or the name is unknown.
        ssl.SSLError: the TLS handshake failed; an `OSError` too.
        ConnectionLostError: a hook failed, or the server closed meanwhile.
    """
    check_options(options)

    async def open_connection() -> Connection[S]:
        settings = Settings(router, **options, server_hostname=server_hostname or host)
        connection = Connection(settings)
        protocol = LinkProtocol(connection)
        await protocol.join(
            asyncio.get_running_loop().create_connection(
                lambda: protocol,
                host,
                port,
                ssl=ssl,
                ssl_handshake_timeout=handshake_timeout(ssl, options),
                server_hostname=server_hostname if ssl else None,
            )
        )
        return await _greeted(connection)

    return Opening(open_connection())


@overload
def connect_unix(
    path: str | os.PathLike[str],
    *,
    router: None = None,
    ssl: SSLContext | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[None]]: ...


@overload
def connect_unix(
    path: str | os.PathLike[str],
    *,
    router: Router[S],
    ssl: SSLContext | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[S]]: ...


def connect_unix(
    path: str | os.PathLike[str],
    *,
    router: Router[S] | None = None,
    ssl: SSLContext | None = None,
    server_hostname: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[S]]:
    """Connect to a server over a Unix socket. Everything else is as with `connect`.

    Args:
        path: the socket.
        router: answers what the server asks.
        ssl: a client's context for TLS.
        server_hostname: the name that the server's certificate must have; needed with `ssl`. Also
            for TLS that begins later.
        options: see `ConnectionOptions`.

    Raises:
        OSError: nothing listens there.
        ssl.SSLError: the TLS handshake failed; an `OSError` too.
        ConnectionLostError: a hook failed, or the server closed meanwhile.
    """
    check_options(options)

    async def open_connection() -> Connection[S]:
        connection = Connection(Settings(router, **options, server_hostname=server_hostname))
        protocol = LinkProtocol(connection)
        if ssl is None:
            await open_unix_transport(protocol, os.fspath(path))
        else:
            await protocol.join(
                asyncio.get_running_loop().create_unix_connection(
                    lambda: protocol,
                    os.fspath(path),
                    ssl=ssl,
                    ssl_handshake_timeout=handshake_timeout(ssl, options),
                    server_hostname=server_hostname,
                )
            )
        return await _greeted(connection)

    return Opening(open_connection())


async def _greeted(connection: Connection[S]) -> Connection[S]:
    try:
        await greeted(connection._link)
    except BaseException:
        connection.close(drain_timeout=0)
        raise
    return connection
