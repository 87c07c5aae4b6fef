"""Bytes and file descriptors on their way into a Unix socket.

Rule of this module: it knows a socket and what is to go into it; event loops and protocols are the
transport's business.
"""

from __future__ import annotations

import os
import socket
from array import array
from collections import deque
from itertools import islice
from typing import Final

__all__ = ["MAX_DESCRIPTORS", "Outgoing"]

MAX_DESCRIPTORS: Final = 253
"""How many descriptors go with one byte; Linux's `SCM_MAX_FD`."""

_MAX_BUFFERS: Final = 64
"""How many buffers one system call gets; every system takes as many."""


class Outgoing:
    """What waits for room in a socket. A descriptor never comes after the byte it was put before.

    The system takes a descriptor only along with a byte, and no more than 253 at once. So they go
    with the byte that is written next, 253 of them; those above go with the bytes after it, 253
    with each.
    """

    def __init__(self) -> None:
        self._chunks: deque[memoryview] = deque()
        self._descriptors: deque[tuple[int, int]] = deque()
        """Descriptors of our own, each behind the number of bytes that go before it."""
        self._sent = 0
        self.size: int = 0
        """How many bytes wait."""

    def add_descriptor(self, descriptor: int) -> None:
        """Take a duplicate of a descriptor, to go with the byte that is written next.

        Raises:
            OSError: it isn't open, or this process may open no more. Nothing was taken.
        """
        self._descriptors.append((self._sent + self.size, os.dup(descriptor)))

    def write(self, sock: socket.socket, data: bytes) -> None:
        """Send bytes, with the descriptors that wait for them; what finds no room waits.

        Raises:
            OSError: the socket failed.
        """
        if self.size:
            self._add(data)
        elif self._descriptors:
            self._add(data)
            self.send(sock)
        else:
            try:
                count = sock.send(data)
            except (BlockingIOError, InterruptedError):
                self._add(data)
            else:
                if count < len(data):
                    self._add(memoryview(data)[count:])

    def send(self, sock: socket.socket) -> None:
        """Send of what waits as much as finds room now.

        Raises:
            OSError: the socket failed.
        """
        while self.size:
            descriptors, limit = self._due()
            buffers, offered = self._buffers(limit)
            rights = array("i", descriptors).tobytes()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
            try:
                count = sock.sendmsg(buffers, ancillary)
            except (BlockingIOError, InterruptedError):
                return
            for _ in descriptors:  # they went with the first byte, however few it took
                os.close(self._descriptors.popleft()[1])
            self._remove(count)
            if count < offered:
                return

    def clear(self) -> None:
        """Forget everything, and close the descriptors that were not sent."""
        self._chunks.clear()
        self.size = 0
        while self._descriptors:
            os.close(self._descriptors.popleft()[1])

    def _add(self, data: bytes | memoryview) -> None:
        self._chunks.append(memoryview(data))
        self.size += len(data)

    def _due(self) -> tuple[list[int], int]:
        """Give the descriptors that go with the next byte, and how many bytes may go with them."""
        due: list[int] = []
        for position, descriptor in self._descriptors:
            if position > self._sent:
                return due, min(self.size, position - self._sent)
            if len(due) == MAX_DESCRIPTORS:
                return due, 1
            due.append(descriptor)
        return due, self.size

    def _buffers(self, limit: int) -> tuple[list[memoryview], int]:
        buffers: list[memoryview] = []
        offered = 0
        for chunk in islice(self._chunks, _MAX_BUFFERS):
            buffers.append(chunk[: limit - offered])
            offered += len(buffers[-1])
            if offered == limit:
                break
        return buffers, offered

    def _remove(self, count: int) -> None:
        self._sent += count
        self.size -= count
        while count:
            chunk = self._chunks.popleft()
            if len(chunk) > count:
                self._chunks.appendleft(chunk[count:])
                return
            count -= len(chunk)
