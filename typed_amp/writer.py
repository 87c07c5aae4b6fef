"""Writing boxes to a transport, at the pace at which the peer reads.

Rule of this module: answers are always taken, asks wait. Whoever asks can wait; whoever was asked
has the answer on his hands. What keeps answers from piling up is that the connection stops reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from typed_amp.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from typed_amp.limits import Limits

__all__ = ["HIGH_WATER", "BoxWriter"]

HIGH_WATER: Final = 64 * 1024
"""How many bytes may wait in the transport before it counts as full; asyncio's own default."""

_LARGE_BOX: Final = 8 * 1024
"""How long boxes are, on average, that are cheaper to write one by one than to join."""


class BoxWriter:
    """Joins the boxes of one turn of the event loop into one write; holds asks back while the
    transport is full.

    Args:
        transport: where to write. Its `pause_writing` and `resume_writing` must be passed on.
        loop: the event loop it belongs to.
        limits: how much may wait to be read, and how long a box may be.
    """

    __slots__ = (
        "_boxes",
        "_flushed_bytes",
        "_held",
        "_is_encrypted",
        "_limits",
        "_loop",
        "_rooms",
        "_size",
        "_transport",
        "is_choked",
        "is_full",
        "is_locked",
    )

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        loop: asyncio.AbstractEventLoop,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._transport = transport
        self._is_encrypted = transport.get_extra_info("ssl_object") is not None
        self._loop = loop
        self._limits = limits
        self._boxes: list[bytes] | None = None
        """What was taken in this turn, if anything was."""
        self._size = 0
        self._held: dict[object, tuple[bytes, Callable[[], None] | None]] | None = None
        """The asks that wait until there is room, if there are any."""
        self.is_full: bool = False
        """Whether the transport has no room."""
        self.is_choked: bool = False
        """Whether answers pile up, since they were written to a full transport. Asks don't."""
        self.is_locked: bool = False
        """Whether nothing may be written for now; see `lock`."""
        self._flushed_bytes = 0
        self._rooms: list[asyncio.Future[None]] | None = None

    @property
    def unwritten_bytes(self) -> int:
        """How many bytes wait here and in the transport for the peer to read."""
        return self._transport.get_write_buffer_size() + self._size

    @property
    def taken_bytes(self) -> int:
        """How many bytes were taken to be written up to now."""
        return self._flushed_bytes + self._size

    @property
    def sent_bytes(self) -> int:
        """How many bytes the system has taken up to now."""
        return self.taken_bytes - self.unwritten_bytes

    @property
    def is_overfull(self) -> bool:
        """Whether so much waits that what can wait elsewhere had better do so."""
        return (self.is_full or self.is_locked) and (
            self.unwritten_bytes > self._limits.max_unwritten_bytes
        )

    @property
    def is_overflowing(self) -> bool:
        """Whether so much waits that nothing more may be caused to be written."""
        if not (self.is_full or self.is_locked):
            return False
        # What may be written by two sides that wait for each other: asks until the transport is
        # full, answers until it is overfull, and the box that makes it so, each.
        limits = self._limits
        most = limits.max_unwritten_bytes + 2 * (limits.max_box_bytes + HIGH_WATER)
        return self.unwritten_bytes > most

    def write_answer(self, box: bytes, *, is_last: bool = False) -> None:
        """Take a box now, whether there is room or not; see `write`."""
        if self.is_full or (self.is_locked and self._size > HIGH_WATER):
            self.is_choked = True
        self.write(box, is_last=is_last)

    def write(self, box: bytes, *, is_last: bool = False) -> None:
        """Take a box now.

        Args:
            box: the box.
            is_last: whether no other is to be expected in this turn, so that there is nothing to
                wait for. With TLS it waits all the same: a server that refuses this side's
                certificate says so after the handshake, and who writes before he has read that
                learns of a broken pipe instead.
        """
        is_last = is_last and not self._is_encrypted
        if self._boxes is None:
            self._boxes = []
            if not is_last:
                self._loop.call_soon(self.flush)
        self._boxes.append(box)
        self._size += len(box)
        if is_last or self._size > HIGH_WATER:
            self.flush()

    def write_ask(
        self,
        key: object,
        box: bytes,
        on_written: Callable[[], None] | None = None,
        *,
        is_last: bool = False,
    ) -> bool:
        """Take a box now, or hold it back until the transport has room.

        Args:
            key: by which `withdraw` finds it.
            box: the box.
            on_written: called when a box that was held back is taken.
            is_last: see `write`.

        Returns:
            Whether it was taken now.
        """
        if self.is_full or self._held or self.is_locked:
            if self._held is None:
                self._held = {}
            self._held[key] = box, on_written
            return False
        self.write(box, is_last=is_last)
        return True

    def withdraw(self, key: object) -> bool:
        """Forget a box that is held back. False: it is not; it was taken."""
        return self._held is not None and self._held.pop(key, None) is not None

    def held(self) -> list[object]:
        """Give the keys of the boxes that are held back."""
        return list(self._held or ())

    def flush(self) -> None:
        """Hand all that was taken to the transport."""
        boxes = self._boxes
        if boxes is not None and not self.is_locked:
            self._boxes = None
            if self._size < len(boxes) * _LARGE_BOX:
                boxes = [b"".join(boxes)]
            for data in boxes:
                # One by one: what the transport says of itself meanwhile must be right.
                self._flushed_bytes += len(data)
                self._size -= len(data)
                if not self._transport.is_closing():  # asyncio's would log each write that is lost
                    self._transport.write(data)

    def room(self) -> asyncio.Future[None]:
        """Give what is done when the transport has room again, or the connection is gone."""
        room: asyncio.Future[None] = self._loop.create_future()
        if self._rooms is None:
            self._rooms = []
        self._rooms.append(room)
        return room

    def pause(self) -> None:
        """The transport is full."""
        self.is_full = True

    def resume(self) -> None:
        """The transport has room again: take what was held back, as long as there is."""
        self.is_full = False
        self.is_choked = False
        self._wake()
        while self._held and not (self.is_full or self.is_locked):
            key = next(iter(self._held))
            box, on_written = self._held.pop(key)
            self.write(box)
            if on_written is not None:
                on_written()

    def lock(self) -> None:
        """Write nothing more behind what was taken by now, until `unlock`."""
        self.flush()
        self.is_locked = True

    def unlock(self, transport: asyncio.WriteTransport | None = None) -> None:
        """Write what was taken meanwhile.

        Args:
            transport: where to write from now on, if that has changed.
        """
        self.is_locked = False
        if transport is not None:
            transport.set_write_buffer_limits(high=HIGH_WATER)
            self._transport = transport
            self._is_encrypted = transport.get_extra_info("ssl_object") is not None
            self.is_full = False
        self.flush()
        if not self.is_full:
            self.resume()

    def discard(self) -> None:
        """The connection is gone: forget everything."""
        self._boxes = None
        self._size = 0
        self._held = None
        self._wake()

    def _wake(self) -> None:
        rooms, self._rooms = self._rooms, None
        for room in rooms or ():
            if not room.done():
                room.set_result(None)
