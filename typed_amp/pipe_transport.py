"""One transport over two pipes: one to read from, one to write to.

Rule of this module: it joins what the event loop gives for each pipe, and keeps asyncio's promises
for the whole. What pipes carry, and what is at their other ends, is no business of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PipeTransport", "join_pipes"]

_LAST_WORDS_TIMEOUT: Final = 5.0
"""How many seconds a peer that doesn't read any more has to end what it writes."""

_LEFT_OPEN_TIMEOUT: Final = 1.0
"""How many seconds are waited for the end of a pipe whose peer has ended; others may hold it."""


async def join_pipes(
    protocol: asyncio.BaseProtocol,
    read_fd: int,
    write_fd: int,
    *,
    peer_ended: asyncio.Future[Exception | None] | None = None,
    on_closing: Callable[[], None] | None = None,
) -> PipeTransport:
    """Join two pipes into one transport, and tell the protocol that it is there.

    Cancelling closes both pipes. A protocol that was told of its transport by then is told of the
    loss.

    Args:
        protocol: what is told of all that comes.
        read_fd: the end of a pipe to read from. It is taken over: closed at the end, in the mode,
            blocking or not, that it came in.
        write_fd: the end of a pipe to write to, likewise.
        peer_ended: done when the peer has ended, with the reason that the protocol is told. Left
            out, the peer is taken to end with its pipes.
        on_closing: called once, when the transport begins to close, for whatever reason.

    Raises:
        OSError: the event loop can't watch one of them.
    """
    loop = asyncio.get_running_loop()
    read_pipe, write_pipe = _Pipe(read_fd), _Pipe(write_fd)
    transport = PipeTransport(protocol, peer_ended=peer_ended, on_closing=on_closing)
    try:
        await loop.connect_write_pipe(lambda: _WriteEnd(transport, write_pipe), write_pipe)
    except BaseException:
        read_pipe.close()
        transport._never_made()
        raise
    try:
        await loop.connect_read_pipe(lambda: _ReadEnd(transport, read_pipe), read_pipe)
    except BaseException:
        transport._never_made()
        raise
    return transport


class PipeTransport(asyncio.Transport):
    """A transport whose two directions are pipes. Made by `join_pipes`.

    It differs from a socket's in two ways. A peer that doesn't read any more is still read from,
    for a while, as it may have said why. And where the end of the peer is known by other means,
    `connection_lost` waits for that end too; what the peer writes after `close` is read and thrown
    away meanwhile, so that it can come to its end.
    """

    def __init__(
        self,
        protocol: asyncio.BaseProtocol,
        *,
        peer_ended: asyncio.Future[Exception | None] | None,
        on_closing: Callable[[], None] | None,
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol = cast("asyncio.Protocol", protocol)
        self._peer_ended = peer_ended
        self._on_closing = on_closing
        self._read_end: asyncio.ReadTransport
        self._write_end: asyncio.WriteTransport
        self._is_made = False
        self._is_reading = True
        self._is_full = False
        self._is_closing = False
        self._is_reading_over = False
        self._is_writing_over = False
        self._is_lost = False
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- What protocols call -------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing and not self._is_writing_over:
            self._write_end.write(data)

    def get_write_buffer_size(self) -> int:
        return 0 if self._is_writing_over else self._write_end.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if not self._is_writing_over:  # or else uvloop refuses
            self._write_end.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (0, 0) if self._is_writing_over else self._write_end.get_write_buffer_limits()

    def can_write_eof(self) -> bool:
        # As nothing that was written to a pipe is lost when it closes, there is no need.
        return False

    def pause_reading(self) -> None:
        if self._is_reading and not self._is_closing and not self._is_reading_over:
            self._is_reading = False
            self._read_end.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_reading and not self._is_closing:
            self._resume()

    def is_reading(self) -> bool:
        return self._is_reading and not self._is_closing and not self._is_reading_over

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        if not self._is_writing_over:
            self._write_end.close()  # when what is left has gone out
        if self._peer_ended is None:
            self._close_read_end()
        else:
            self._resume()
        if self._on_closing is not None:
            self._on_closing()

    def abort(self) -> None:
        # asyncio's own abort is for a transport that isn't on its way to its end by itself.
        if not self._is_writing_over and self._write_end.get_write_buffer_size():
            self._write_end.abort()
        self.close()

    # -- What the two ends tell ------------------------------------------------------------------

    def _made(self, read_end: asyncio.ReadTransport) -> None:
        self._read_end = read_end
        if self._is_closing:
            return
        self._is_made = True
        if self._peer_ended is not None:
            self._peer_ended.add_done_callback(self._peer_has_ended)
        self._protocol.connection_made(self)

    def _never_made(self) -> None:
        """One of the ends could not be had, and the event loop has closed it."""
        self._is_reading_over = True
        if hasattr(self, "_write_end"):
            self.abort()
        self._is_closing = True
        self._check_lost()

    def _received(self, data: bytes) -> None:
        if not self._is_closing:
            self._protocol.data_received(data)

    def _received_end(self) -> None:
        if not self._is_closing and not self._protocol.eof_received():
            self.close()

    def _read_end_lost(self, error: Exception | None) -> None:
        self._is_reading_over = True
        if error is not None:
            self._error = self._error or error
            self.close()
        self._check_lost()

    def _write_end_lost(self, error: Exception | None) -> None:
        self._is_writing_over = True
        if not self._is_closing:
            self._error = error or BrokenPipeError("the peer doesn't read any more")
            self._close_in(_LAST_WORDS_TIMEOUT)
            self._resume_protocol()  # or else it might never read what is to be read
        self._check_lost()

    def _pause_protocol(self) -> None:
        self._is_full = True
        self._protocol.pause_writing()

    def _resume_protocol(self) -> None:
        if self._is_full:
            self._is_full = False
            self._protocol.resume_writing()

    # -- The end ---------------------------------------------------------------------------------

    def _peer_has_ended(self, _: asyncio.Future[Exception | None]) -> None:
        if not self._is_reading_over or not self._is_writing_over:
            self._close_in(_LEFT_OPEN_TIMEOUT)
        self._check_lost()

    def _close_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._time_is_over)

    def _time_is_over(self) -> None:
        self.abort()
        if self._peer_ended is None or self._peer_ended.done():
            self._close_read_end()

    def _resume(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            if not self._is_reading_over:
                self._read_end.resume_reading()

    def _close_read_end(self) -> None:
        if not self._is_reading_over:
            self._read_end.close()

    def _check_lost(self) -> None:
        if self._is_lost or not self._is_reading_over or not self._is_writing_over:
            return
        if self._peer_ended is not None and not self._peer_ended.done():
            return
        self._is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._is_made:
            reason = None if self._peer_ended is None else self._peer_ended.result()
            self._protocol.connection_lost(reason or self._error)


class _ReadEnd(asyncio.Protocol):
    """Told by the event loop of the pipe that is read from."""

    def __init__(self, transport: PipeTransport, pipe: _Pipe) -> None:
        self._transport = transport
        self._pipe = pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport._made(cast("asyncio.ReadTransport", transport))

    def data_received(self, data: bytes) -> None:
        self._transport._received(data)

    def eof_received(self) -> None:
        self._transport._received_end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipe.restore_mode()
        self._transport._read_end_lost(exc)


class _WriteEnd(asyncio.BaseProtocol):
    """Told by the event loop of the pipe that is written to."""

    def __init__(self, transport: PipeTransport, pipe: _Pipe) -> None:
        self._transport = transport
        self._pipe = pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport._write_end = cast("asyncio.WriteTransport", transport)

    def pause_writing(self) -> None:
        self._transport._pause_protocol()

    def resume_writing(self) -> None:
        self._transport._resume_protocol()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pipe.restore_mode()
        self._transport._write_end_lost(exc)


class _Pipe:
    """A descriptor as the event loop wants it: with `fileno` and `close`.

    Not a file of Python's, which closes its number once more when it is freed: uvloop closes
    descriptors behind the backs of such files, and the number may be another's by then.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_blocking = os.get_blocking(fd)

    def fileno(self) -> int:
        return self._fd

    def restore_mode(self) -> None:
        # The mode isn't the descriptor's own, but that of the open file, which others may share.
        if self._is_blocking:
            with contextlib.suppress(OSError):
                os.set_blocking(self._fd, True)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd != -1:
            with contextlib.suppress(OSError):  # uvloop has closed it
                os.close(fd)
