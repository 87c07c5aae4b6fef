"""Serving whoever started this program, over the pipes that it gave us.

Rule of this module: nobody who prints breaks the stream, not while it lasts and not afterwards.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING

from typing_extensions import TypeVar, Unpack

from typed_amp.connection import Connection
from typed_amp.descriptors import close_descriptors
from typed_amp.lifetime import greeted
from typed_amp.opening import Opening
from typed_amp.options import check_options
from typed_amp.pipe_transport import join_pipes
from typed_amp.protocol import LinkProtocol
from typed_amp.settings import Settings

if TYPE_CHECKING:
    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router

__all__ = ["serve_fds", "serve_stdio", "take_standard_streams"]

S = TypeVar("S", default=None)


def serve_stdio(
    router: Router[S],
    **options: Unpack[ConnectionOptions],
) -> Opening[Connection[S]]:
    """Speak AMP over standard input and output, with whoever started this program.

    The whole program of a child::

        async with serve_stdio(router) as connection:
            await connection.wait_closed()

    From now on, descriptor 0 is empty and 1 is standard error: whatever prints, or reads, or starts
    programs that do, leaves the stream alone. So it stays when the connection has ended, or could
    not be opened, and when this is cancelled: a program serves by this once. The peer sees the end
    of the stream when the connection ends.

    The hooks of `router.on_connect` are done when the connection is there. Twisted has `StandardIO`
    for this.

    Args:
        router: answers what the peer asks.
        options: see `ConnectionOptions`.

    Raises:
        OSError: one of the descriptors is closed. Both stay what they are.
        ValueError: one of them is no pipe, socket or terminal, or leads the wrong way. Likewise.
        ConnectionLostError: a hook failed, or the peer closed meanwhile.
    """

    async def open_connection() -> Connection[S]:
        _check(0, 1)
        fds = take_standard_streams()
        return await _open(router, *fds, peer="standard input and output", **options)

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
    **options: Unpack[ConnectionOptions],
) -> Connection[S]:
    check_options(options)
    connection = Connection(Settings(router, **options, is_server=True, peer=peer))
    protocol = LinkProtocol(connection)
    if _is_socket(read_fd, write_fd):
        # Of one that leads both ways a pipe's transport would take what comes for the end.
        sock = socket.socket(fileno=read_fd)
        if write_fd != read_fd:
            os.close(write_fd)
        loop = asyncio.get_running_loop()
        await protocol.join(loop.connect_accepted_socket(lambda: protocol, sock))
    else:
        await join_pipes(protocol, read_fd, write_fd)
    try:
        await greeted(connection._link)
    except BaseException:
        connection.close(drain_timeout=0)
        raise
    return connection


def take_standard_streams() -> tuple[int, int]:
    """Give duplicates of descriptors 0 and 1, and have the two lead elsewhere for good.

    If they were put back some time, what is printed after that would be taken for AMP.
    """
    fds: list[int] = []
    try:
        fds += [os.dup(0)]
        fds += [os.dup(1)]
        fds += [os.open(os.devnull, os.O_RDWR)]
    except OSError:  # this process may open no more
        close_descriptors(fds)
        raise
    read_fd, write_fd, empty = fds
    os.dup2(empty, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.dup2(empty, 1)
    os.close(empty)
    return read_fd, write_fd


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
        except (OSError, OverflowError):  # the latter for a number that none can have
            raise OSError(
                errno.EBADF, f"AMP is to {use} descriptor {fd}, which is closed"
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
