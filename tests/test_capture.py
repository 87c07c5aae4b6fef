from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests import strategies
from typed_amp import Box, BoxReader, Limits, ProtocolViolationError, encode_box
from typed_amp.box import encode_pairs
from typed_amp.capture import CapturedBox, Fault, read_capture

REPEAT = b"\0\4_ask\0\0011\0\x08_command\0\6Repeat\0\4text\0\3abc\0\0"

UNLIMITED = Limits(max_box_bytes=2**62, max_keys=2**62)


def read(
    chunks: Iterable[bytes], *, segmented: bool = False
) -> tuple[list[CapturedBox], Fault | None]:
    """Read a capture: its boxes, and the fault that it ends with."""
    boxes: list[CapturedBox] = []
    items = read_capture(chunks, segmented=segmented)
    for item in items:
        if isinstance(item, Fault):
            assert list(items) == []
            return boxes, item
        boxes.append(item)
    return boxes, None


def fault_of(data: bytes, *, segmented: bool = False) -> Fault:
    _, fault = read([data], segmented=segmented)
    assert fault is not None
    return fault


def verdict(data: bytes) -> tuple[list[Box], int | None, int]:
    """What `BoxReader` makes of it: the boxes, where the box begins that is wrong, what is left."""
    reader = BoxReader(UNLIMITED)
    try:
        return reader.feed(data), None, reader.pending_bytes
    except ProtocolViolationError as error:
        return list(error.boxes), error.offset, 0


# -- Against the reader of connections -----------------------------------------------------------


@given(strategies.streams)
@example(b"\0\1k\0\1v\0\1k\0\2w")
def test_any_bytes_are_read_as_connections_read_them(data: bytes) -> None:
    boxes, fault = read([data])
    expected, wrong_box, pending = verdict(data)
    assert [captured.box for captured in boxes] == expected
    if wrong_box is not None:
        assert fault is not None
        assert fault.missing is None
        assert fault.box_offset == wrong_box
        assert wrong_box <= fault.offset < len(data)
    elif pending:
        assert fault is not None
        assert fault.missing is not None
        assert (fault.box_offset, fault.offset) == (len(data) - pending, len(data))
    else:
        assert fault is None


@given(strategies.streams)
@example(b"\0\1k\0\1v\0\1k\0\1w\0\0")
def test_all_is_well_before_the_byte_that_is_wrong(data: bytes) -> None:
    _, fault = read([data])
    if fault is None or fault.missing is not None:
        return
    # There is a way to go on from there that gives a good capture.
    length = 3 if fault.key is None else len(fault.key)
    prefix = b"\0\3" if fault.key is None else b""
    ways = (prefix + bytes([byte] * length) + b"\0\0\0\0" for byte in range(256))
    assert any(read([data[: fault.offset] + way])[1] is None for way in ways)


@given(strategies.streams.flatmap(lambda data: st.tuples(st.just(data), strategies.cuts(data))))
def test_chunks_decide_nothing(drawn: tuple[bytes, list[bytes]]) -> None:
    data, chunks = drawn
    assert read(chunks) == read([data])


@given(st.lists(strategies.boxes, min_size=1, max_size=4), st.data())
def test_capture_cut_anywhere_says_where_it_ends_and_what_is_missing(
    boxes: list[Box], drawn: st.DataObject
) -> None:
    written = [encode_box(box) for box in boxes]
    data = b"".join(written)
    end = drawn.draw(st.integers(0, len(data)))
    found, fault = read([data[:end]])
    starts = [sum(map(len, written[:index])) for index in range(len(written) + 1)]
    complete = len([start for start in starts[1:] if start <= end])
    assert [captured.offset for captured in found] == starts[:complete]
    assert [captured.length for captured in found] == [len(box) for box in written[:complete]]
    if end in starts:
        assert fault is None
        return
    assert fault is not None
    assert fault.missing is not None
    assert (fault.offset, fault.box_offset) == (end, starts[complete])
    assert 0 < fault.missing <= starts[complete + 1] - end
    # So few bytes could really be what is missing, but not one less.
    assert read([data[:end] + b"\0" * (fault.missing - 1)])[0] == found


@given(strategies.boxes)
def test_pairs_have_their_places(box: Box) -> None:
    data = encode_box(box)
    ((captured,), fault) = read([data])
    assert fault is None
    assert captured.box == box
    for key, offset in captured.offsets.items():
        pair = encode_pairs({key: box[key]})
        assert data[offset : offset + len(pair)] == pair


# -- AMPv2 ----------------------------------------------------------------------------------------


def segmented_box(box: Box) -> bytes:
    parts: list[bytes] = []
    for key, value in box.items():
        parts.append(len(key).to_bytes(2, "big") + key)
        for start in range(0, len(value) + 1, 65_535):
            segment = value[start : start + 65_535]
            parts.append(len(segment).to_bytes(2, "big") + segment)
    return b"".join(parts) + b"\0\0"


@given(
    st.dictionaries(
        strategies.keys,
        st.sampled_from([0, 1, 65_534, 65_535, 65_536, 131_070, 131_071]).map(bytes),
        min_size=1,
        max_size=3,
    )
)
def test_long_values_go_on_in_segments(box: Box) -> None:
    data = segmented_box(box)
    ((captured, following), fault) = read([data, REPEAT], segmented=True)
    assert fault is None
    assert captured.box == box
    assert captured.length == following.offset == len(data)


def test_capture_that_ends_before_a_segment_says_so() -> None:
    whole = segmented_box({b"text": b"x" * 65_536})
    start = len(b"\0\4text\0\0") + 65_535
    fault = fault_of(whole[:start], segmented=True)
    assert str(fault) == (
        "byte 65,543: the capture ends inside the value of text, before its segment 2,"
        " in the box at byte 0; at least 4 more must follow"
    )
    assert fault_of(whole[: start - 1], segmented=True).missing == 5
    assert fault_of(whole[:-3], segmented=True).missing == 3


# -- What is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(REPEAT + b"\0\0", "byte 40: a box without any key", id="empty box"),
        pytest.param(
            REPEAT + b"\0\1a\0\1b\1\0",
            "byte 46: a key of 256 bytes, where AMP allows 255: this is not AMP, in the box at"
            " byte 40",
            id="long key",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\n",
            "byte 0: a key of 18,245 bytes, where AMP allows 255: this is not AMP",
            id="HTTP",
        ),
        pytest.param(
            REPEAT + b"\0\2k\n\0\1v\0\2k\n\0\1w\0\0",
            "byte 49: the key k\\n twice in one box, in the box at byte 40",
            id="key twice",
        ),
        pytest.param(
            REPEAT + b"\0\4te",
            "byte 44: the capture ends in a key, 2 of 4 bytes, in the box at byte 40; at least 6"
            " more must follow",
            id="in a key",
        ),
        pytest.param(
            b"\0\1k\0\3v",
            "byte 6: the capture ends in the value of k, 1 of 3 bytes, in the box at byte 0; at"
            " least 4 more must follow",
            id="in a value",
        ),
        pytest.param(
            b"\0\1k\0",
            "byte 4: the capture ends before the value of k, in the box at byte 0; at least 3 more"
            " must follow",
            id="before a value",
        ),
        pytest.param(
            b"\0\1k\0\0",
            "byte 5: the capture ends before the next key, in the box at byte 0; at least 2 more"
            " must follow",
            id="before a key",
        ),
    ],
)
def test_fault_says_what_and_where(data: bytes, text: str) -> None:
    assert str(fault_of(data)) == text


def test_fault_names_the_key_at_work() -> None:
    assert fault_of(b"\0\1k\0\1v\0\1k\0\1w\0\0").key == b"k"
    assert fault_of(b"\0\1k\0\3v").key == b"k"
    assert fault_of(b"\0\2k").key is None


def test_boxes_come_as_soon_as_they_are_complete() -> None:
    arrived: list[bytes] = []

    def chunks() -> Iterable[bytes]:
        for chunk in (REPEAT[:10], REPEAT[10:] + REPEAT[:5], REPEAT[5:]):
            arrived.append(chunk)
            yield chunk

    boxes = read_capture(chunks())
    next(boxes)
    assert len(arrived) == 2
    next(boxes)
    assert len(arrived) == 3
