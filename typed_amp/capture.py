"""Captures: the boxes in a recorded stream, and where it stops being AMP.

Rule of this module: every byte has its place. A box, a pair and whatever is wrong are told with
their offset in the capture.

`BoxReader` reads what a peer sends now, within limits, and tells where the box begins that is
wrong. Here somebody looks for the very byte, and nothing is limited but by AMP itself. Both find
the same streams good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from typed_amp.box import MAX_KEY_LENGTH, MAX_VALUE_LENGTH, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typed_amp.box import Box

__all__ = [
    "CapturedBox",
    "Fault",
    "read_capture",
]

_PREFIX: Final = 2
"""How many bytes say a length."""

_END: Final = _PREFIX
"""How many bytes end a box."""


class CapturedBox(NamedTuple):
    """A complete box.

    Attributes:
        offset: where it begins.
        length: how many bytes it has, its end included.
        box: its keys and values, in the order of the capture.
        offsets: where each pair begins, by its key.
    """

    offset: int
    length: int
    box: Box
    offsets: dict[bytes, int]


class Fault(NamedTuple):
    """What is wrong with a capture: the last that is read of it.

    Attributes:
        reason: what is wrong, and where within the box.
        offset: the byte that is wrong; where the capture ends too early, its length.
        box_offset: where the box begins in which it is.
        key: the key at work, if it is known.
        missing: how many bytes are missing at the least, where the capture ends too early.
    """

    reason: str
    offset: int
    box_offset: int
    key: bytes | None = None
    missing: int | None = None

    def __str__(self) -> str:
        text = f"byte {self.offset:,}: {self.reason}"
        if self.offset != self.box_offset:
            text += f", in the box at byte {self.box_offset:,}"
        if self.missing is not None:
            text += f"; at least {self.missing:,} more must follow"
        return text


def read_capture(
    chunks: Iterable[bytes], *, segmented: bool = False
) -> Iterator[CapturedBox | Fault]:
    """Read the boxes of a capture, one at a time.

    It holds one box and one chunk. A box comes as soon as its last byte has come.

    Args:
        chunks: the bytes, cut anywhere.
        segmented: whether values are written as AMPv2 has it: one of exactly 65,535 bytes goes on
            in another that stands behind its length, with no key.

    Yields:
        The complete boxes. If the capture is broken, or ends inside a box, a `Fault` after them;
        then nothing more.
    """
    stream = _Stream(chunks)
    while not stream.is_at_end():
        try:
            yield _read_box(stream, segmented=segmented)
        except _FaultError as error:
            yield error.fault
            return


class _FaultError(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class _Stream:
    """Chunks as one stream, of which one takes so many bytes."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._position = 0
        self.offset = 0

    def is_at_end(self) -> bool:
        while self._position == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._chunk, self._position = chunk, 0
        return False

    def take(self, count: int) -> bytes:
        """Give the next bytes: so many, or fewer at the end."""
        parts: list[bytes] = []
        missing = count
        while missing and not self.is_at_end():
            part = self._chunk[self._position : self._position + missing]
            self._position += len(part)
            missing -= len(part)
            parts.append(part)
        self.offset += count - missing
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_box(stream: _Stream, *, segmented: bool) -> CapturedBox:
    start = stream.offset
    box: Box = {}
    offsets: dict[bytes, int] = {}
    while True:
        pair_start = stream.offset
        key_length = _read_length(stream, start, "before the next key" if box else "in a key")
        if not key_length:
            if not box:
                raise _FaultError(Fault("a box without any key", pair_start, start))
            return CapturedBox(start, stream.offset - start, box, offsets)
        if key_length > MAX_KEY_LENGTH:
            reason = (
                f"a key of {key_length:,} bytes, where AMP allows {MAX_KEY_LENGTH}: this is not AMP"
            )
            raise _FaultError(Fault(reason, pair_start, start))
        key = stream.take(key_length)
        if len(key) < key_length:
            where = f"in a key, {len(key):,} of {key_length:,} bytes"
            missing = key_length - len(key) + _PREFIX + _END
            raise _ended(stream, start, where, None, missing)
        value = _read_value(stream, start, key, segmented=segmented)
        if key in box:
            reason = f"the key {printable(key)} twice in one box"
            raise _FaultError(Fault(reason, pair_start + _PREFIX, start, key))
        box[key] = value
        offsets[key] = pair_start


def _read_value(stream: _Stream, start: int, key: bytes, *, segmented: bool) -> bytes:
    segments: list[bytes] = []
    while True:
        where = f"before the value of {printable(key)}"
        if segments:
            where = f"inside the value of {printable(key)}, before its segment {len(segments) + 1}"
        length = _read_length(stream, start, where, key, _END)
        segment = stream.take(length)
        segments.append(segment)
        if len(segment) < length:
            where = f"in the value of {printable(key)}, {len(segment):,} of {length:,} bytes"
            more = _PREFIX if segmented and length == MAX_VALUE_LENGTH else 0
            raise _ended(stream, start, where, key, length - len(segment) + more + _END)
        if not segmented or length < MAX_VALUE_LENGTH:
            return segment if len(segments) == 1 else b"".join(segments)


def _read_length(
    stream: _Stream, start: int, where: str, key: bytes | None = None, more: int = 0
) -> int:
    prefix = stream.take(_PREFIX)
    if len(prefix) < _PREFIX:
        raise _ended(stream, start, where, key, _PREFIX - len(prefix) + more)
    return int.from_bytes(prefix, "big")


def _ended(stream: _Stream, start: int, where: str, key: bytes | None, missing: int) -> _FaultError:
    return _FaultError(Fault(f"the capture ends {where}", stream.offset, start, key, missing))
