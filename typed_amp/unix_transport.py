"""A transport for Unix sockets that carries file descriptors beside the bytes.

Rule of this module: it keeps the promises of asyncio's own transports and knows nothing of AMP.
Neither asyncio's nor uvloop's can send or receive a descriptor, so this one reads and writes the
socket itself, by `add_reader` and `add_writer`, which all event loops have.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import warnings
from array import array
from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Any, Final

from typed_amp.outgoing import MAX_DESCRIPTORS, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["UnixTransport"]

_MAX_BYTES: Final = 64 * 1024
"""How much is read at once. For more than this, C libraries map memory anew each time."""

_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * array("i").itemsize)

_CLOSED_IN_CHILDREN: Final[int] = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""Makes the system receive descriptors that child processes don't inherit, where it can."""


class UnixTransport(asyncio.Transport):
    """A connected Unix socket, for an `asyncio.Protocol` or `asyncio.BufferedProtocol`.

    It does what asyncio's own transports do, `start_tls` included, and one thing more: descriptors
    go out by `send_descriptor`. What comes in is handed to the protocol's
    `descriptors_received(descriptors: list[int])`, before the bytes that came along; it owns them
    then. A protocol without that method never sees any: they are closed.

    Args:
        loop: the event loop.
        sock: connected, and not blocking. It is the transport's from now on.
        protocol: is told of the connection in the event loop's next turn.
    """

    _start_tls_compatible = True  # what asyncio's `start_tls` asks for

    _socket: socket.socket | None = None

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.BaseProtocol
    ) -> None:
        names: dict[str, Any] = {"sockname": None, "peername": None}
        with contextlib.suppress(OSError):
            names["sockname"] = sock.getsockname()
            names["peername"] = sock.getpeername()
        super().__init__({"socket": TransportSocket(sock), **names})
        self._loop = loop
        self._socket = sock
        self._descriptor = sock.fileno()
        self._outgoing = Outgoing()
        self._is_paused = False
        self._is_at_end = False
        self._has_written_eof = False
        self._is_writing = False
        self._is_protocol_paused = False
        self._is_closing = False
        self._is_lost = False
        self.set_write_buffer_limits()
        self.set_protocol(protocol)
        loop.call_soon(self._protocol.connection_made, self)
        loop.call_soon(self._watch)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol
        self._is_buffered = isinstance(protocol, asyncio.BufferedProtocol)
        self._take_descriptors: Callable[[list[int]], None] | None = getattr(
            protocol, "descriptors_received", None
        )

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    # -- Reading -----------------------------------------------------------------------------

    def is_reading(self) -> bool:
        return not self._is_closing and not self._is_paused

    def pause_reading(self) -> None:
        if self.is_reading():
            self._is_paused = True
            self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._watch()

    def _watch(self) -> None:
        if not self._is_closing and not self._is_paused and not self._is_at_end:
            self._loop.add_reader(self._descriptor, self._read_ready)

    def _read_ready(self) -> None:
        if self._is_closing or self._is_paused or self._socket is None:
            return
        data, buffer = b"", None
        try:
            if self._is_buffered:
                buffer = self._protocol.get_buffer(-1)
                if not len(buffer):
                    raise RuntimeError("get_buffer() returned an empty buffer")
                count, ancillary, flags, _ = self._socket.recvmsg_into(
                    [buffer], _ANCILLARY_BYTES, _CLOSED_IN_CHILDREN
                )
            else:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    _MAX_BYTES, _ANCILLARY_BYTES, _CLOSED_IN_CHILDREN
                )
                count = len(data)
        except (BlockingIOError, InterruptedError):
            return
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, "reading from a Unix socket failed")
            return
        try:
            if ancillary or flags & socket.MSG_CTRUNC:
                self._receive_ancillary(ancillary, flags)
                if self._is_lost:
                    return
            if not count:
                self._receive_eof()
            elif buffer is None:
                self._protocol.data_received(data)
            else:
                self._protocol.buffer_updated(count)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._fail(error, "a protocol failed at what was read from a Unix socket")

    def _receive_ancillary(self, ancillary: list[tuple[int, int, bytes]], flags: int) -> None:
        descriptors = array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not _CLOSED_IN_CHILDREN:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
        if self._take_descriptors is None:
            _close_all(descriptors)
        elif flags & socket.MSG_CTRUNC:
            # How many were lost, nobody can tell; so what belongs to which is lost as well.
            _close_all(descriptors)
            raise ConnectionAbortedError(
                "the peer sent file descriptors that this process has no room for (see `ulimit -n`)"
            )
        elif descriptors:
            self._take_descriptors(descriptors.tolist())

    def _receive_eof(self) -> None:
        self._is_at_end = True
        if not self._protocol.eof_received():
            self.close()
        elif not self._is_closing:
            self._loop.remove_reader(self._descriptor)

    # -- Writing -----------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if self._has_written_eof:
            raise RuntimeError("write() was called after write_eof()")
        if not data or self._is_lost or self._socket is None:
            return
        outgoing = self._outgoing
        try:
            # What isn't bytes, its owner may change.
            outgoing.write(self._socket, data if isinstance(data, bytes) else bytes(data))
        except OSError as error:
            self._fail(error, "writing to a Unix socket failed")
            return
        if outgoing.size:
            if not self._is_writing:
                self._is_writing = True
                self._loop.add_writer(self._descriptor, self._write_ready)
            self._pause_protocol()

    def send_descriptor(self, descriptor: int) -> None:
        """Send a file descriptor with the first byte of what is written next.

        It is duplicated at once: the caller keeps the original, and may close it right after. Any
        number may wait for one write; of more than 253, the others go with the bytes that follow,
        253 with each. What is never sent, since nothing more is written or the connection is lost,
        is closed with the connection.

        Args:
            descriptor: of an open file, of whatever kind.

        Raises:
            OSError: it isn't open, or this process may open no more. Nothing is sent.
            RuntimeError: it comes after `write_eof`.
        """
        if self._has_written_eof:
            raise RuntimeError("send_descriptor() was called after write_eof()")
        self._outgoing.add_descriptor(descriptor)
        if self._is_lost:
            self._outgoing.clear()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._is_closing or self._has_written_eof or self._socket is None:
            return
        self._has_written_eof = True
        if not self._outgoing.size:
            self._socket.shutdown(socket.SHUT_WR)

    def get_write_buffer_size(self) -> int:
        return self._outgoing.size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high = high
        self._low = low
        self._pause_protocol()

    def _pause_protocol(self) -> None:
        if self._outgoing.size > self._high and not self._is_protocol_paused:
            self._is_protocol_paused = True
            self._tell(self._protocol.pause_writing)

    def _resume_protocol(self) -> None:
        if self._outgoing.size <= self._low and self._is_protocol_paused:
            self._is_protocol_paused = False
            self._tell(self._protocol.resume_writing)

    def _write_ready(self) -> None:
        if self._is_lost or self._socket is None:
            return
        try:
            self._outgoing.send(self._socket)
        except OSError as error:
            self._fail(error, "writing to a Unix socket failed")
            return
        self._resume_protocol()  # it may write more, or abort
        if self._outgoing.size or self._is_lost:
            return
        self._is_writing = False
        self._loop.remove_writer(self._descriptor)
        if self._is_closing:
            self._is_lost = True
            self._end(None)
        elif self._has_written_eof:
            with contextlib.suppress(OSError):  # the peer has gone; reading tells
                self._socket.shutdown(socket.SHUT_WR)

    # -- Ending ------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.remove_reader(self._descriptor)
            if not self._outgoing.size:
                self._force_close(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, error: BaseException | None) -> None:
        """End now, whatever waits. asyncio's TLS calls it too, by this name."""
        if self._is_lost:
            return
        self._is_lost = True
        self._outgoing.clear()
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._descriptor)
        if not self._is_closing:
            self._is_closing = True
            self._loop.remove_reader(self._descriptor)
        self._loop.call_soon(self._end, error)

    def _fail(self, error: BaseException, message: str) -> None:
        if not isinstance(error, OSError):
            self._report(error, message)
        self._force_close(error)

    def _end(self, error: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._outgoing.clear()
            if self._socket is not None:
                self._socket.close()
            self._socket = self._protocol = self._take_descriptors = None

    def _tell(self, method: Callable[[], None]) -> None:
        try:
            method()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._report(error, f"protocol.{method.__name__}() failed")

    def _report(self, error: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
        )

    def __repr__(self) -> str:
        status = "closed" if self._is_lost else "closing" if self._is_closing else "open"
        return f"<UnixTransport fd={self._descriptor}, {status}, {self._outgoing.size} bytes wait>"

    def __del__(self) -> None:
        if self._socket is not None:
            message = f"unclosed transport {self!r}"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
            self._outgoing.clear()
            self._socket.close()


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
