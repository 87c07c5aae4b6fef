"""Serving on sockets that somebody else has made: a supervisor, systemd, a test.

Rule of this module: what somebody else has made he also takes away; here it is only accepted on.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from typing_extensions import TypeVar, Unpack

from typed_amp.acceptor import MAX_HANDSHAKES
from typed_amp.occupancy import MAX_CONNECTIONS, MAX_TOTAL_REQUESTS
from typed_amp.opening import Opening
from typed_amp.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ssl import SSLContext

    from typed_amp.admission import Verdict
    from typed_amp.connection import Connection
    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router

__all__ = ["serve_sockets"]

S = TypeVar("S", default=None)


def serve_sockets(
    router: Router[S],
    sockets: Sequence[socket.socket],
    *,
    ssl: SSLContext | None = None,
    admit: Callable[[Connection[S]], Verdict] | None = None,
    max_connections: int = MAX_CONNECTIONS,
    max_total_requests: int = MAX_TOTAL_REQUESTS,
    max_handshakes: int = MAX_HANDSHAKES,
    **options: Unpack[ConnectionOptions],
) -> Opening[Server[S, tuple[str, int] | str]]:
    """Serve a router on sockets that listen already. Everything else is as with `serve`.

    For sockets that come from systemd or from a program that goes on listening when this one ends:
    several processes may serve on one socket, and a new one may take the place of an old one, see
    `Server.stop_accepting`, without a moment in which nobody listens.

    Args:
        router: answers what clients ask.
        sockets: TCP sockets and Unix sockets, on which `listen` was called. The server closes
            them, also if it can't begin; the file of a Unix socket it leaves there.
        ssl: a server's context for TLS, for all of them.
        admit: as for `serve`.
        max_connections: as for `serve`.
        max_total_requests: as for `serve`.
        max_handshakes: as for `serve`.
        options: see `ConnectionOptions`.

    Raises:
        OSError: one of them is closed, or is no socket that listens.
        ValueError: there is no socket, or there may be no connections, or no handshakes.
    """

    async def open_server() -> Server[S, tuple[str, int] | str]:
        try:
            if not sockets:
                raise ValueError("there is no socket to serve on")
            for sock in sockets:
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    raise OSError(f"{sock!r} does not listen; call listen() on it first")
                sock.setblocking(False)
            server: Server[S, tuple[str, int] | str] = Server(
                router,
                admit=admit,
                max_connections=max_connections,
                max_total_requests=max_total_requests,
                max_handshakes=max_handshakes,
                ssl=ssl,
                **options,
            )
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return server._listen(sockets, owns_files=False)

    return Opening(open_server())
