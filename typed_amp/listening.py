"""Sockets that listen, as a server asks for them.

Rule of this module: it makes sockets, all of those that were asked for or none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SocketFile", "listen_tcp", "listen_unix"]

_BACKLOG: Final = 1_024
"""How many connections may wait to be accepted; systems have lower bounds of their own."""

_NO_SUCH_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


async def listen_tcp(host: str | Sequence[str] | None, port: int) -> list[socket.socket]:
    """Listen at all addresses that a name, or several, stand for.

    Args:
        host: a name or an address, several of them, or None for all there are.
        port: the port; with 0 each address has one of its own.

    Returns:
        The sockets, which don't block.

    Raises:
        OSError: an address is in use, or is none of this machine's; or a name is unknown.
    """
    loop = asyncio.get_running_loop()
    hosts = [host or None] if host is None or isinstance(host, str) else list(host)
    found = [
        await loop.getaddrinfo(each, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for each in hosts
    ]
    places = dict.fromkeys(
        (family, address) for addresses in found for family, _, _, _, address in addresses
    )
    sockets: list[socket.socket] = []
    try:
        for family, address in places:
            try:
                sock = socket.create_server(address, family=family, backlog=_BACKLOG)
            except OSError as error:
                # A name may stand for addresses of a family that this machine is without.
                if error.errno in _NO_SUCH_FAMILY and family == socket.AF_INET6 and len(places) > 1:
                    continue
                raise
            sock.setblocking(False)
            sockets.append(sock)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"{host!r} is no address of this machine")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def listen_unix(path: str | os.PathLike[str]) -> socket.socket:
    r"""Listen at a path; a socket that an earlier server left behind there is replaced.

    Args:
        path: where to make the socket. One that begins with \0 is Linux's abstract name.

    Returns:
        The socket, which doesn't block.

    Raises:
        OSError: there is something at the path that is no socket, or it can't be made there.
    """
    name = os.fspath(path)
    if not name.startswith("\0"):
        try:
            if stat.S_ISSOCK(Path(name).stat().st_mode):
                Path(name).unlink()
        except FileNotFoundError:
            pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(name)
        sock.listen(_BACKLOG)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = name
        raise
    return sock


class SocketFile:
    """The file of a Unix socket that listens, to be removed when nobody listens any more.

    Args:
        path: where it is.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._identity = self._found()

    def remove(self) -> None:
        """Remove it, if it is still the same: another server may have taken over the path."""
        with contextlib.suppress(OSError):
            if self._found() == self._identity:
                self._path.unlink()

    def _found(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_dev, status.st_ino

    @classmethod
    def of(cls, sock: socket.socket) -> SocketFile | None:
        """Give the file of a socket, if it has one: abstract names and TCP have none."""
        name = sock.getsockname()
        is_file = isinstance(name, str) and name and not name.startswith("\0")
        return cls(name) if is_file else None
