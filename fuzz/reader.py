"""Any bytes, read as boxes: however they are cut, the same comes out.

Only `ProtocolViolationError` may come out of a reader, and always with the same reason and place.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from typed_amp import Box, BoxReader, Limits, ProtocolViolationError
from typed_amp.box import END_OF_BOX, encode_pairs

__all__ = ["check", "pieces"]

_TIGHT = Limits(max_box_bytes=300, max_keys=3)


class _Outcome(NamedTuple):
    boxes: list[Box]
    wrong: tuple[str, int | None] | None
    offset: int
    pending_bytes: int


def check(data: bytes) -> None:
    """Read the bytes behind the first, which says how, in three ways that must agree."""
    options, stream = data[:1] or b"\0", data[1:]
    limits = _TIGHT if options[0] & 1 else Limits()
    segmented = bool(options[0] & 2)
    whole = _read([stream], limits, segmented=segmented)
    for size in (1, 2 + (options[0] >> 2)):
        assert _read(pieces(stream, size), limits, segmented=segmented) == whole
    written = b"".join(encode_pairs(box, segmented=segmented) + END_OF_BOX for box in whole.boxes)
    assert stream.startswith(written)
    if whole.wrong is None:
        assert len(stream) - len(written) == whole.pending_bytes
    else:
        assert whole.wrong[1] == len(written)
    if whole.boxes:
        _check_stops(stream, limits, whole, segmented=segmented)


def pieces(data: bytes, size: int) -> Iterable[bytes]:
    """Cut bytes into pieces of one size."""
    return (data[i : i + size] for i in range(0, len(data), size))


def _read(chunks: Iterable[bytes], limits: Limits, *, segmented: bool) -> _Outcome:
    reader = BoxReader(limits, segmented=segmented)
    boxes: list[Box] = []
    try:
        for chunk in chunks:
            boxes += reader.feed(chunk)
    except ProtocolViolationError as error:
        boxes += error.boxes
        try:
            reader.feed(b"more")
        except ProtocolViolationError as again:
            assert (again.reason, again.offset, list(again.boxes)) == (
                error.reason,
                error.offset,
                [],
            )
        else:
            raise AssertionError("a violation is final") from error
        return _Outcome(boxes, (error.reason, error.offset), 0, 0)
    return _Outcome(boxes, None, reader.offset, reader.pending_bytes)


def _check_stops(stream: bytes, limits: Limits, whole: _Outcome, *, segmented: bool) -> None:
    """Stop behind each box, go on, and behind the last take what is left."""
    reader = BoxReader(limits, segmented=segmented)
    boxes = reader.feed(stream, lambda _: True)
    for _ in whole.boxes[1:]:
        assert reader.is_stopped
        reader.resume()
        boxes += reader.feed(b"", lambda _: True)
    assert boxes == whole.boxes
    assert reader.is_stopped
    written = b"".join(encode_pairs(box, segmented=segmented) + END_OF_BOX for box in boxes)
    assert reader.offset == len(stream)
    assert reader.take_rest() == stream[len(written) :]
    assert reader.pending_bytes == 0
