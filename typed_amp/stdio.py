"""Serving whoever started this program, over the pipes that it gave us.

Rule of this module: what a descriptor was before, it is again afterwards, and nobody who prints
breaks the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import stat
import sys
from typing import TYPE_CHECKING

from typing_extensions import TypeVar, Unpack

from typed_amp.connection import Connection
from typed_amp.link import LinkProtocol
from typed_amp.opening import Opening
from typed_amp.pipe_transport import join_pipes

if TYPE_CHECKING:
    from collections.abc import Callable

    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router

__all__ = ["serve_fds", "serve_stdio"]

S = TypeVar("S", default=None)


def serve_stdio(
    router: Router[S],
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[S]]:
    """Speak AMP over standard input and output, with whoever started this program.

    The whole program of a child::

        async with serve_stdio(router) as connection:
            await connection.wait_closed()

    Until the connection has ended, descriptor 0 is empty and 1 is standard error: whatever prints,
    or reads, or starts programs that do, leaves the stream alone. Then both are what they were. So
    the peer sees the end of the stream when this program ends, also where this side closes first.

    The hooks of `router.on_connect` are done when the connection is there. Cancelling puts both
    descriptors back. Twisted has `StandardIO` for this.

    Args:
        router: answers what the peer asks.
        options: see `ConnectionOptions`.

    Raises:
        OSError: one of the descriptors is closed.
        ValueError: one of them is no pipe, socket or terminal, or leads the wrong way.
        ConnectionLostError: a hook failed, or the peer closed meanwhile.
    """

    async def open_connection() -> Connection[S]:
        _check(0, 1)
        streams = _StandardStreams()
        try:
            return await _open(
                router,
                *streams.duplicates(),
                peer="standard input and output",
                on_ended=streams.put_back,
                **options,
            )
        except BaseException:
            streams.put_back()
            raise

    return Opening(open_connection())


def serve_fds(
    router: Router[S],
    read_fd: int,
    write_fd: int,
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[S]]:
    """Speak AMP over two descriptors, with whoever started this program.

    They are taken over: closed at the end, also when opening fails, but for errors in what they
    are. Everything else is as with `serve_stdio`, but that nothing is done for who prints: 0 and 1
    are not concerned.

    Args:
        router: answers what the peer asks.
        read_fd: the descriptor to read from. ampoule's children use 3.
        write_fd: the descriptor to write to, 4 for ampoule's; for a socket the same.
        options: see `ConnectionOptions`.

    Raises:
        OSError: one of the descriptors is closed.
        ValueError: one of them is no pipe, socket or terminal, or leads the wrong way.
        ConnectionLostError: a hook failed, or the peer closed meanwhile.
    """

    async def open_connection() -> Connection[S]:
        _check(read_fd, write_fd)
        peer = f"descriptors {read_fd} and {write_fd}"
        return await _open(router, read_fd, write_fd, peer=peer, **options)

    return Opening(open_connection())


async def _open(
    router: Router[S],
    read_fd: int,
    write_fd: int,
    *,
    peer: str,
    on_ended: Callable[[], None] | None = None,
    **options: Unpack[ConnectionOptions],
) -> Connection[S]:
    connection = Connection(
        router,
        **options,
        is_server=True,
        on_ended=None if on_ended is None else lambda _: on_ended(),
        peer=peer,
    )
    protocol = LinkProtocol(connection)
    if _is_socket(read_fd, write_fd):
        # Of one that leads both ways a pipe's transport would take what comes for the end.
        sock = socket.socket(fileno=read_fd)
        if write_fd != read_fd:
            os.close(write_fd)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
    else:
        await join_pipes(protocol, read_fd, write_fd)
    try:
        await connection._link.greeted()
    except BaseException:
        connection.close(drain_timeout=0)
        raise
    return connection


class _StandardStreams:
    """Descriptors 0 and 1, which lead elsewhere until they are put back."""

    def __init__(self) -> None:
        self._saved = [os.dup(fd) for fd in (0, 1)]
        self._are_blocking = [os.get_blocking(fd) for fd in self._saved]
        empty = os.open(os.devnull, os.O_RDWR)
        os.dup2(empty, 0)
        try:
            os.dup2(2, 1)
        except OSError:  # there is no standard error
            os.dup2(empty, 1)
        os.close(empty)

    def duplicates(self) -> tuple[int, int]:
        read_fd, write_fd = (os.dup(fd) for fd in self._saved)
        return read_fd, write_fd

    def put_back(self) -> None:
        """Make both what they were. Doing it again does nothing."""
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None, or closed
            sys.stdout.flush()  # what was printed meanwhile is no part of the stream
        for fd, (saved, is_blocking) in enumerate(
            zip(self._saved, self._are_blocking, strict=True)
        ):
            os.set_blocking(saved, is_blocking)
            os.dup2(saved, fd)
            os.close(saved)
        self._saved = []
        self._are_blocking = []


def _check(read_fd: int, write_fd: int) -> None:
    """Refuse what no stream can come over, in words that say what was found instead.

    An event loop may find out later, or not say so.
    """
    for fd, use, wrong_way in (
        (read_fd, "read from", os.O_WRONLY),
        (write_fd, "write to", os.O_RDONLY),
    ):
        try:
            mode = os.fstat(fd).st_mode
        except OSError as error:
            raise OSError(
                error.errno, f"AMP is to {use} descriptor {fd}, which is closed"
            ) from None
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)):
            raise ValueError(
                f"AMP is to {use} descriptor {fd}, which is {_kind(mode)};"
                " it must be a pipe or a socket, from the program that started this one"
            )
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == wrong_way:
            raise ValueError(f"AMP is to {use} descriptor {fd}, which is the other end of a pipe")


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "a regular file"
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "something else"


def _is_socket(read_fd: int, write_fd: int) -> bool:
    """Say whether both are the same socket."""
    status = os.fstat(read_fd)
    return stat.S_ISSOCK(status.st_mode) and os.path.samestat(status, os.fstat(write_fd))
