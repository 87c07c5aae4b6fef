from __future__ import annotations

import dataclasses
import random
import traceback
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import typed_amp
from tests import strategies
from typed_amp.box import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    MAX_KEY_LENGTH,
    MAX_VALUE_LENGTH,
    Box,
    BoxReader,
    decode_boxes,
    encode_box,
    encode_pairs,
    printable,
)
from typed_amp.errors import DecodeError, EncodeError, ProtocolViolationError, TooLongError
from typed_amp.limits import Limits

GOOD = b"\0\1k\0\1v\0\0"
TWICE = b"\0\1k\0\1v\0\1k\0\1w\0\0"
LONG_KEY = b"\1\0" + b"k" * 256 + b"\0\1v\0\0"

BROKEN = [
    pytest.param(b"\0\0", "a box without any key", id="empty box"),
    pytest.param(LONG_KEY, "a key of 256 bytes, where AMP allows 255", id="long key"),
    pytest.param(
        b"\0\1k\0\1v" + LONG_KEY,
        "a key of 256 bytes, where AMP allows 255",
        id="long key, not first",
    ),
    pytest.param(TWICE, "the key k twice in one box", id="key twice"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", "this is not AMP", id="HTTP"),
    pytest.param(b"\x16\x03\x01\x02\0\1\0", "this is not AMP", id="TLS"),
]


def read(
    pieces: Iterable[bytes], limits: Limits | None = None, *, segmented: bool = False
) -> tuple[list[Box], tuple[str, int | None] | None, int]:
    """Read pieces until they end or break a rule: the boxes, the reason and place, what is left."""
    reader = BoxReader(limits, segmented=segmented)
    boxes: list[Box] = []
    for piece in pieces:
        try:
            boxes += reader.feed(piece)
        except ProtocolViolationError as error:
            return [*boxes, *error.boxes], (error.reason, error.offset), 0
    return boxes, None, reader.pending_bytes


# -- Writing -------------------------------------------------------------------------------------


def test_box_is_pairs_behind_their_lengths_and_an_end() -> None:
    assert encode_box({b"key": b"value", b"none": b""}) == (
        b"\x00\x03key\x00\x05value\x00\x04none\x00\x00\x00\x00"
    )


def test_pairs_have_no_end_and_keep_their_order() -> None:
    assert encode_pairs({b"b": b"x", ASK: b"y"}) == b"\0\1b\0\1x\0\4_ask\0\1y"
    assert encode_pairs({}) == b""


@pytest.mark.parametrize("leading", [ASK, ANSWER, ERROR])
def test_key_that_says_what_a_box_is_goes_first(leading: bytes) -> None:
    box = {b"z": b"1", COMMAND: b"c", leading: b"7", b"a": b"2"}
    (read_back,), _, _ = read([encode_box(box)])
    assert list(read_back) == [leading, b"z", COMMAND, b"a"]
    assert read_back == box


def test_longest_key_and_value_can_be_written() -> None:
    box = {b"k" * MAX_KEY_LENGTH: b"v" * MAX_VALUE_LENGTH}
    assert encode_box(box) == b"\0\xff" + b"k" * 255 + b"\xff\xff" + b"v" * 65_535 + b"\0\0"


def test_key_too_long_is_refused_with_its_length() -> None:
    with pytest.raises(TooLongError, match=r"the key kkk.* is 256 bytes long") as caught:
        encode_box({b"k" * 256: b""})
    assert (caught.value.length, caught.value.limit) == (256, 255)


def test_value_too_long_is_refused_by_its_key_and_not_shown() -> None:
    with pytest.raises(TooLongError, match="the value of text is 65,536 bytes long") as caught:
        encode_box({b"text": b"secret" * 10_922 + b"full"})
    assert (caught.value.length, caught.value.limit) == (65_536, 65_535)
    assert "secret" not in str(caught.value)


def test_empty_key_is_refused() -> None:
    with pytest.raises(EncodeError, match="empty key"):
        encode_box({b"a": b"1", b"": b"2"})


def test_empty_box_is_refused() -> None:
    with pytest.raises(EncodeError, match="empty box"):
        encode_box({})


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ({"key": b""}, r"^the key 'key' is of type str; the keys and values of a box are bytes$"),
        ({b"a": b"", "k" * 300: b""}, r"^the key 'k{12}\.\.\.k{13}' is of type str; "),
        ({5: b""}, "^the key 5 is of type int; "),
        (
            {b"a": "secret"},
            "^the value of a is of type str; the keys and values of a box are bytes$",
        ),
        ({b"_ask": b"1", b"a": 5}, "^the value of a is of type int; "),
        ({b"a": None}, "^the value of a is of type NoneType; "),
        ({b"a": [b"b"]}, "^the value of a is of type list; "),
        ([(b"a", b"b")], "^a box is a dict, and the keys and values"),
    ],
)
def test_what_is_not_bytes_is_refused(box: Any, reason: str, segmented: bool) -> None:
    with pytest.raises(EncodeError, match=reason):
        encode_box(box, segmented=segmented)


# -- Reading -------------------------------------------------------------------------------------


@given(
    st.lists(strategies.boxes, max_size=5).flatmap(
        lambda boxes: st.tuples(st.just(boxes), strategies.cuts(b"".join(map(encode_box, boxes))))
    )
)
def test_boxes_cut_anywhere_come_back(drawn: tuple[list[Box], list[bytes]]) -> None:
    boxes, pieces = drawn
    assert read(pieces) == (boxes, None, 0)


@given(
    strategies.streams.flatmap(lambda data: st.tuples(st.just(data), strategies.cuts(data))),
    strategies.limits,
)
def test_stream_cut_anywhere_reads_as_in_one_piece(
    drawn: tuple[bytes, list[bytes]], limits: Limits
) -> None:
    data, pieces = drawn
    assert read(pieces, limits) == read([data], limits)


@given(st.lists(st.binary(max_size=40), max_size=10), strategies.limits)
def test_any_bytes_give_boxes_or_a_violation_and_nothing_else(
    pieces: list[bytes], limits: Limits
) -> None:
    boxes, violation, pending = read(pieces, limits)
    assert all(0 < len(key) <= 255 for box in boxes for key in box)
    assert all(0 < len(box) <= limits.max_keys for box in boxes)
    written = b"".join(map(encode_pairs_with_end, boxes))
    data = b"".join(pieces)
    assert data.startswith(written)  # what was read is what was sent, in its order
    if violation is None:
        assert len(written) + pending == len(data)
    else:
        assert violation[1] == len(written)


def encode_pairs_with_end(box: Box) -> bytes:
    return encode_pairs(box) + b"\0\0"


@pytest.mark.parametrize("piece_type", [bytes, bytearray, memoryview])
def test_pieces_of_any_bytes_type_are_read(piece_type: type) -> None:
    reader = BoxReader()
    whole = reader.feed(piece_type(GOOD))
    assert reader.feed(piece_type(GOOD[:4])) == []
    in_two = reader.feed(piece_type(GOOD[4:]))
    for (box,) in (whole, in_two):
        assert box == {b"k": b"v"}
        assert [type(part) for part in (*box, *box.values())] == [bytes, bytes]


def test_piece_may_be_reused_by_whoever_fed_it() -> None:
    reader = BoxReader()
    piece = bytearray(GOOD[:5])
    reader.feed(piece)
    piece[:] = b"\xff" * 5
    assert reader.feed(GOOD[5:]) == [{b"k": b"v"}]


def test_boxes_of_one_stream_share_nothing() -> None:
    first, second = BoxReader().feed(GOOD * 2)
    first.clear()
    assert second == {b"k": b"v"}


def test_offset_and_pending_bytes_say_where_the_stream_stands() -> None:
    reader = BoxReader()
    data = encode_box({b"a": b"1", b"b": b""}) + encode_box({b"c": b"23"})
    ends = [0, 13, 22]
    stands = [(reader.offset, reader.pending_bytes)]
    for i in range(len(data)):
        reader.feed(data[i : i + 1])
        stands.append((reader.offset, reader.pending_bytes))
    assert stands == [
        (fed, fed - max(end for end in ends if end <= fed)) for fed in range(len(data) + 1)
    ]


def test_nothing_fed_is_nothing_read() -> None:
    reader = BoxReader()
    assert [reader.feed(b""), reader.feed(GOOD[:3]), reader.feed(b"")] == [[], [], []]
    assert reader.feed(GOOD[3:]) == [{b"k": b"v"}]


# -- Violations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "reason"), BROKEN)
def test_what_is_not_amp_is_a_violation_that_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolViolationError) as caught:
        BoxReader().feed(data)
    assert reason in caught.value.reason
    assert (caught.value.offset, list(caught.value.boxes)) == (0, [])


@pytest.mark.parametrize(("data", "reason"), BROKEN)
def test_violation_carries_the_boxes_before_it_and_its_place(data: bytes, reason: str) -> None:
    reader = BoxReader()
    reader.feed(GOOD + GOOD[:3])
    with pytest.raises(ProtocolViolationError) as caught:
        reader.feed(GOOD[3:] + GOOD + data)
    assert caught.value.boxes == [{b"k": b"v"}] * 2
    assert caught.value.offset == 3 * len(GOOD)
    assert f"byte {3 * len(GOOD)}" in str(caught.value)


@pytest.mark.parametrize(("data", "reason"), BROKEN)
def test_violation_is_final(data: bytes, reason: str) -> None:
    reader = BoxReader()
    with pytest.raises(ProtocolViolationError) as first:
        reader.feed(GOOD + data)
    for later in (GOOD, b"", data):
        with pytest.raises(ProtocolViolationError) as again:
            reader.feed(later)
        assert (again.value.reason, again.value.offset) == (first.value.reason, len(GOOD))
        assert list(again.value.boxes) == []


def test_feeding_after_a_violation_keeps_nothing() -> None:
    reader = BoxReader()
    heights = set()
    for _ in range(5):
        with pytest.raises(ProtocolViolationError) as caught:
            reader.feed(b"\xff\xff")
        # A traceback that grows holds on to every piece that was ever fed.
        heights.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert max(heights) <= 4


def test_keys_of_a_peer_are_shown_escaped() -> None:
    with pytest.raises(ProtocolViolationError) as caught:
        BoxReader().feed(b"\0\2\n\0\0\0" * 2)
    assert "the key \\n\\x00 twice" in str(caught.value)


def test_long_key_is_refused_at_its_length() -> None:
    reader = BoxReader()
    assert reader.feed(b"\1") == []
    with pytest.raises(ProtocolViolationError):
        reader.feed(b"\0")


def test_value_that_announces_too_long_a_box_is_refused_before_it_comes() -> None:
    reader = BoxReader(Limits(max_box_bytes=100))
    for byte in b"\0\1k\0":
        reader.feed(bytes([byte]))
    with pytest.raises(ProtocolViolationError, match="more than 100 bytes"):
        reader.feed(b"\xff")


# -- Limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", GOOD], ids=["at the start", "after a box"])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_box_of_exactly_the_longest_is_read_and_no_longer_one(before: bytes, step: int) -> None:
    data = encode_box({b"first": b"1", b"second": b"x" * 50})
    stream = before + data
    pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
    boxes, violation, _ = read(pieces, Limits(max_box_bytes=len(data)))
    assert (len(boxes), violation) == (1 + bool(before), None)

    boxes, violation, _ = read(pieces, Limits(max_box_bytes=len(data) - 1))
    assert len(boxes) == bool(before)
    assert violation == (
        f"a box of more than {len(data) - 1} bytes (Limits.max_box_bytes)",
        len(before),
    )


@pytest.mark.parametrize("step", [1, 1000])
def test_box_of_exactly_the_most_keys_is_read_and_no_more(step: int) -> None:
    def pieces(keys: int) -> list[bytes]:
        data = GOOD + encode_box({b"%d" % i: b"" for i in range(keys)})
        return [data[i : i + step] for i in range(0, len(data), step)]

    limits = Limits(max_keys=3)
    boxes, violation, _ = read(pieces(3), limits)
    assert (len(boxes), violation) == (2, None)
    boxes, violation, _ = read(pieces(4), limits)
    assert boxes == [{b"k": b"v"}]
    assert violation == ("a box of more than 3 keys (Limits.max_keys)", len(GOOD))


@given(st.lists(st.tuples(strategies.keys, st.binary(max_size=300))), st.integers(1, 400))
def test_reader_never_holds_more_than_one_box_within_the_limits(
    pairs: list[tuple[bytes, bytes]], max_box_bytes: int
) -> None:
    reader = BoxReader(Limits(max_box_bytes=max_box_bytes))
    try:
        for key, value in pairs:  # a box that never ends
            for byte in encode_pairs({key: value}):
                reader.feed(bytes([byte]))
                assert reader.pending_bytes <= max_box_bytes
    except ProtocolViolationError:
        pass


def test_default_limits_are_the_documented_ones() -> None:
    assert Limits() == Limits(
        max_box_bytes=4 * 1024 * 1024, max_keys=1_024, max_held_bytes=16 * 1024 * 1024
    )
    values = [b"v" * MAX_VALUE_LENGTH] * 60
    box = {b"%d" % i: value for i, value in enumerate(values)}
    assert BoxReader().feed(encode_box(box)) == [box]


def test_limits_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().max_keys = 1  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("field", dataclasses.fields(Limits), ids=lambda field: field.name)
@pytest.mark.parametrize("value", [0, -1])
def test_limits_must_be_positive(field: dataclasses.Field[int], value: int) -> None:
    with pytest.raises(ValueError, match=rf"Limits\.{field.name} must be positive, not {value}"):
        Limits(**{field.name: value})


# -- Version 2: values in segments ------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "segments"),
    [
        (0, [0]),
        (65_534, [65_534]),
        (65_535, [65_535, 0]),
        (65_536, [65_535, 1]),
        (131_070, [65_535, 65_535, 0]),
        (200_000, [65_535, 65_535, 65_535, 3_395]),
    ],
)
def test_full_segment_says_that_another_follows(length: int, segments: list[int]) -> None:
    value = random.Random(length).randbytes(length)
    expected = b"\0\1k"
    for number, size in enumerate(segments):
        expected += size.to_bytes(2, "big") + value[number * 65_535 :][:size]
    expected += b"\0\1z\0\1y" + b"\0\0"
    box = {b"k": value, b"z": b"y"}
    assert encode_box(box, segmented=True) == expected
    assert read([expected * 2], segmented=True) == ([box] * 2, None, 0)


def test_versions_differ_in_full_values_alone() -> None:
    shorter = {b"k": bytes(65_534), ASK: b"1"}
    assert encode_box(shorter, segmented=True) == encode_box(shorter)
    full = encode_box({b"k": bytes(65_535)})
    assert read([full]) == ([{b"k": bytes(65_535)}], None, 0)
    assert read([full], segmented=True) == ([], None, len(full))  # the end is an empty segment


segmented_boxes = st.dictionaries(
    strategies.keys,
    strategies.values | st.sampled_from([65_534, 65_536, 131_070, 150_000]).map(bytes),
    min_size=1,
    max_size=3,
)


def in_segments(box: Box) -> bytes:
    return encode_box(box, segmented=True)


@given(
    st.lists(segmented_boxes, max_size=3).flatmap(
        lambda boxes: st.tuples(st.just(boxes), strategies.cuts(b"".join(map(in_segments, boxes))))
    )
)
def test_boxes_in_segments_cut_anywhere_come_back(drawn: tuple[list[Box], list[bytes]]) -> None:
    boxes, pieces = drawn
    assert read(pieces, segmented=True) == (boxes, None, 0)


segmented_streams = st.lists(
    segmented_boxes.map(in_segments) | strategies.violations | st.binary(max_size=20), max_size=4
).map(b"".join)


@given(
    segmented_streams.flatmap(lambda data: st.tuples(st.just(data), strategies.cuts(data))),
    strategies.limits | st.builds(Limits, max_box_bytes=st.integers(60_000, 140_000)),
)
def test_stream_in_segments_cut_anywhere_reads_as_in_one_piece(
    drawn: tuple[bytes, list[bytes]], limits: Limits
) -> None:
    data, pieces = drawn
    boxes, violation, pending = read(pieces, limits, segmented=True)
    assert (boxes, violation, pending) == read([data], limits, segmented=True)
    # What was read is what was sent, but for the order of keys.
    assert all(len(in_segments(box)) <= limits.max_box_bytes for box in boxes)
    whole = sum(len(in_segments(box)) for box in boxes)
    assert whole + pending == len(data) if violation is None else violation[1] == whole


@given(strategies.streams, strategies.limits)
def test_stream_without_full_values_reads_alike_in_both_versions(
    data: bytes, limits: Limits
) -> None:
    boxes, violation, pending = read([data], limits)
    if b"\xff\xff" not in data:
        assert read([data], limits, segmented=True) == (boxes, violation, pending)


@pytest.mark.parametrize("step", [1, 70_000, 1_000_000])
def test_box_in_segments_keeps_within_the_limit(step: int) -> None:
    data = in_segments({b"k": bytes(150_000), b"l": b""})
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    boxes, violation, _ = read(pieces, Limits(max_box_bytes=len(data)), segmented=True)
    assert (len(boxes), violation) == (1, None)
    _, violation, _ = read(pieces, Limits(max_box_bytes=len(data) - 1), segmented=True)
    assert violation == (f"a box of more than {len(data) - 1:,} bytes (Limits.max_box_bytes)", 0)


@pytest.mark.parametrize("step", [1, 1_000])
def test_box_in_segments_keeps_within_the_most_keys(step: int) -> None:
    data = in_segments({b"%d" % i: b"" for i in range(4)})
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    boxes, violation, _ = read(pieces, Limits(max_keys=4), segmented=True)
    assert (len(boxes), violation) == (1, None)
    _, violation, _ = read(pieces, Limits(max_keys=3), segmented=True)
    assert violation == ("a box of more than 3 keys (Limits.max_keys)", 0)


def test_segments_are_refused_before_they_are_stored() -> None:
    reader = BoxReader(Limits(max_box_bytes=140_000), segmented=True)
    segment = b"\xff\xff" + bytes(65_535)
    reader.feed(b"\0\1k" + segment)
    reader.feed(segment)
    with pytest.raises(ProtocolViolationError, match="more than 140,000 bytes"):
        reader.feed(b"\xff\xff")  # a third is announced
    assert reader.pending_bytes <= 140_000


@pytest.mark.parametrize(("data", "reason"), BROKEN)
def test_violation_in_segments(data: bytes, reason: str) -> None:
    _, violation, _ = read([GOOD + data], segmented=True)
    assert violation is not None
    assert reason in violation[0]
    assert violation[1] == len(GOOD)


# -- Work ----------------------------------------------------------------------------------------


class Watched(bytes):
    """Bytes that count how many of them are looked at or copied."""

    looked_at = 0

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        Watched.looked_at += 1 if isinstance(part, int) else len(part)
        # A slice is watched too, so that one that is cut again and again is seen.
        return part if isinstance(part, int) else Watched(part)


def test_work_in_one_piece_grows_with_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "looked_at", 0)
    box = {ASK: b"1f", COMMAND: b"Repeat", b"text": b"abc", b"times": b"3"}
    data = Watched(encode_box(box) * (1024 * 1024 // len(encode_box(box))))
    boxes = BoxReader().feed(data)
    assert boxes == [box] * len(boxes)
    assert len(b"".join(map(encode_box, boxes))) == len(data)
    # Each byte is looked at once: as a length, or when its key or value is taken out.
    assert Watched.looked_at <= len(data)


needs_counting = pytest.mark.skipif(
    typed_amp.COMPILED, reason="what is compiled can't be looked into"
)


class CountingReader(BoxReader):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    """A reader that counts the bytes it looks through, though it is final."""

    __slots__ = ("looked_through", "looks")

    def __init__(self, *, segmented: bool = False) -> None:
        super().__init__(segmented=segmented)
        self.looks = 0
        self.looked_through = 0

    def _parse(
        self,
        data: bytes,
        position: int,
        until: Callable[[Box], object] | None,
        most: int,
        boxes: list[Box],
    ) -> None:
        self.looks += 1
        self.looked_through += len(data)
        super()._parse(data, position, until, most, boxes)


@needs_counting
@pytest.mark.parametrize(
    ("pairs", "value_length"),
    [(17, 62_000), (1_000, 60)],
    ids=["a MiB of long pairs", "many short pairs"],
)
def test_work_byte_by_byte_grows_with_the_bytes(pairs: int, value_length: int) -> None:
    box = {b"key %d" % i: bytes(value_length) for i in range(pairs)}
    data = encode_box(box)
    reader = CountingReader()
    boxes: list[Box] = []
    for i in range(len(data)):
        boxes += reader.feed(data[i : i + 1])
    assert boxes == [box]
    # A pair is looked at when it begins and when its key's, its value's length and it have come.
    assert reader.looks <= 4 * pairs + 2
    assert reader.looked_through <= 2 * len(data)


@needs_counting
def test_work_byte_by_byte_grows_with_the_bytes_of_segments() -> None:
    box = {b"key": bytes(500_000)}
    data = in_segments(box)
    reader = CountingReader(segmented=True)
    boxes: list[Box] = []
    for i in range(len(data)):
        boxes += reader.feed(data[i : i + 1])
    assert boxes == [box]
    assert reader.looks <= 4 * (1 + 8) + 2
    assert reader.looked_through <= 2 * len(data)


def test_reader_keeps_nothing_of_the_boxes_it_gave_out() -> None:
    reader = BoxReader()
    data = encode_box({b"k": bytes(60_000)})
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(50):
            reader.feed(data[:-1])
            reader.feed(data[-1:])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < len(data)


# -- Stopping behind a box ----------------------------------------------------------------------


@given(st.lists(strategies.boxes, min_size=1, max_size=5), st.binary(max_size=50), st.data())
def test_what_follows_a_stop_is_kept_as_it_is(
    boxes: list[Box], rest: bytes, data: st.DataObject
) -> None:
    stop = data.draw(st.integers(0, len(boxes) - 1))
    last = boxes[stop]
    stop = boxes.index(last)
    before = b"".join(map(encode_box, boxes[: stop + 1]))
    reader = BoxReader()
    read: list[Box] = []
    for piece in data.draw(strategies.cuts(before + rest)):
        read += reader.feed(piece, lambda box: box == last)
    assert read == boxes[: stop + 1]
    assert reader.is_stopped
    assert reader.take_rest() == rest
    assert reader.take_rest() == b""
    assert (reader.offset, reader.pending_bytes) == (len(before + rest), 0)
    # What comes from now on is a stream of its own.
    reader.resume()
    assert reader.feed(before) == boxes[: stop + 1]


def test_what_came_behind_a_long_box_while_it_stopped_is_there_at_once() -> None:
    long, short = {b"k": bytes(1000)}, {b"k": b"v"}
    reader = BoxReader()
    data = encode_box(long)
    assert reader.feed(data[:10], lambda box: True) == []  # it waits for a thousand bytes now
    assert reader.feed(data[10:], lambda box: True) == [long]
    assert reader.feed(encode_box(short)) == []
    reader.resume()
    assert reader.feed(b"") == [short]


@given(st.lists(strategies.boxes, min_size=1, max_size=5), st.data())
def test_stopping_and_going_on_changes_nothing(boxes: list[Box], data: st.DataObject) -> None:
    stream = b"".join(map(encode_box, boxes))
    reader = BoxReader()
    read: list[Box] = []
    for piece in data.draw(strategies.cuts(stream)):
        read += reader.feed(piece, lambda box: True)
        while reader.is_stopped and data.draw(st.booleans()):
            reader.resume()
            read += reader.feed(b"", lambda box: True)
    while reader.is_stopped:
        reader.resume()
        read += reader.feed(b"", lambda box: True)
    assert read == boxes
    assert (reader.offset, reader.pending_bytes) == (len(stream), 0)


@given(strategies.streams, st.data())
def test_a_violation_behind_a_stop_is_found_when_it_goes_on(
    stream: bytes, data: st.DataObject
) -> None:
    whole = read([stream])
    reader = BoxReader()
    boxes: list[Box] = []
    reason = None
    try:
        boxes += reader.feed(stream, lambda box: True)
        while reader.is_stopped:
            reader.resume()
            boxes += reader.feed(b"", lambda box: True)
    except ProtocolViolationError as violation:
        boxes += violation.boxes
        reason = violation.reason
    assert boxes == whole[0]
    assert reason == (None if whole[1] is None else whole[1][0])


# -- A few boxes at a time -----------------------------------------------------------------------


@pytest.mark.parametrize("segmented", [False, True])
@given(
    strategies.streams.flatmap(lambda data: st.tuples(st.just(data), strategies.cuts(data))),
    strategies.limits,
    st.integers(1, 4),
    st.data(),
)
def test_stream_reads_alike_however_many_boxes_are_given_at_a_time(
    segmented: bool,
    drawn: tuple[bytes, list[bytes]],
    limits: Limits,
    most: int,
    data: st.DataObject,
) -> None:
    _, pieces = drawn
    plain = BoxReader(limits, segmented=segmented)
    reader = BoxReader(limits, segmented=segmented)
    expected: list[Box] = []
    boxes: list[Box] = []
    fed = 0

    def feed(piece: bytes) -> tuple[str, int | None] | None:
        nonlocal fed
        fed += len(piece)
        try:
            given = reader.feed(piece, most=most)
        except ProtocolViolationError as error:
            boxes.extend(error.boxes)
            return error.reason, error.offset
        boxes.extend(given)
        assert len(given) <= most
        assert not reader.has_more or len(given) == most
        assert reader.offset == fed
        # Where it is: behind the boxes that it gave.
        if not segmented:
            assert reader.box_offset == sum(len(encode_box(box)) for box in boxes)
        assert reader.pending_bytes == fed - reader.box_offset
        return None

    def feed_all() -> tuple[str, int | None] | None:
        violation = None
        while violation is None and reader.has_more:
            violation = feed(b"")
        return violation

    for piece in pieces:
        plain_violation = None
        try:
            expected += plain.feed(piece)
        except ProtocolViolationError as error:
            expected += error.boxes
            plain_violation = error.reason, error.offset
        # It may also be given more before it is asked for what it has.
        violation = feed(piece)
        if violation is None and (plain_violation is not None or data.draw(st.booleans())):
            violation = feed_all()
            assert boxes == expected
        if plain_violation is not None:
            assert violation == plain_violation
            break
        assert violation is None
    else:
        assert feed_all() is None
        assert (reader.offset, reader.box_offset) == (plain.offset, plain.box_offset)
        assert (reader.pending_bytes, reader.is_stopped) == (plain.pending_bytes, False)
    assert boxes == expected


@given(st.lists(strategies.boxes, min_size=1, max_size=6), st.integers(1, 3), st.data())
def test_stopping_goes_with_a_few_boxes_at_a_time(
    boxes: list[Box], most: int, data: st.DataObject
) -> None:
    last = boxes[data.draw(st.integers(0, len(boxes) - 1))]
    stop = boxes.index(last)
    before = b"".join(map(encode_box, boxes[: stop + 1]))
    rest = b"".join(map(encode_box, boxes[stop + 1 :]))
    reader = BoxReader()
    read: list[Box] = []
    for piece in data.draw(strategies.cuts(before + rest)):
        read += reader.feed(piece, lambda box: box == last, most)
    while reader.has_more:
        read += reader.feed(b"", lambda box: box == last, most)
    assert read == boxes[: stop + 1]
    assert reader.is_stopped
    assert reader.take_rest() == rest
    assert not reader.has_more
    assert (reader.offset, reader.pending_bytes) == (len(before + rest), 0)


def test_work_on_a_flood_grows_with_its_bytes_however_few_boxes_are_given_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Watched, "looked_at", 0)
    box = {ASK: b"1f", COMMAND: b"Repeat", b"text": b"abc", b"times": b"3"}
    data = Watched(encode_box(box) * 5_000)
    reader = BoxReader()
    boxes = reader.feed(data, most=16)
    while reader.has_more:
        boxes += reader.feed(b"", most=16)
    assert boxes == [box] * 5_000
    assert Watched.looked_at <= len(data)


# -- Series of boxes in one value ----------------------------------------------------------------


@given(st.lists(strategies.rows, max_size=4))
def test_series_of_boxes_comes_back(rows: list[Box]) -> None:
    assert decode_boxes(b"".join(map(encode_pairs_with_end, rows))) == rows


def test_series_of_boxes_may_hold_empty_ones() -> None:
    assert decode_boxes(b"") == []
    assert decode_boxes(b"\0\0" * 2) == [{}, {}]


@given(strategies.streams | st.binary(max_size=40))
def test_series_of_boxes_is_whole_or_refused(data: bytes) -> None:
    try:
        rows = decode_boxes(data)
    except DecodeError:
        _, violation, pending = read([data])
        assert violation is not None or pending  # the reader finds fault with it as well
    else:
        assert b"".join(map(encode_pairs_with_end, rows)) == data


@pytest.mark.parametrize("end", range(1, len(GOOD)))
def test_series_that_ends_inside_a_box_is_refused(end: int) -> None:
    with pytest.raises(DecodeError, match="series of boxes"):
        decode_boxes(GOOD + GOOD[:end])


@pytest.mark.parametrize("data", [LONG_KEY, TWICE], ids=["long key", "key twice"])
def test_series_keeps_the_rules_of_keys(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not a series of boxes"):
        decode_boxes(data)


# -- Showing what a peer chose -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"Repeat", "Repeat"),
        (b"", ""),
        (b'it\'s "so"', 'it\'s "so"'),
        (b"a\r\nb\0\x1b[31m", "a\\r\\nb\\x00\\x1b[31m"),
        ("Größe".encode(), "Gr\\xf6\\xdfe"),
        ("日\u202e".encode(), "\\u65e5\\u202e"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\n\xff", "\\n\\xff"),
    ],
)
def test_printable_escapes_what_is_not_plain_text(data: bytes, text: str) -> None:
    assert printable(data) == text


@given(st.binary(max_size=40))
def test_printable_never_breaks_a_line(data: bytes) -> None:
    text = printable(data)
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("segmented", [False, True])
def test_whatever_is_like_bytes_will_do(kind: Callable[[bytes], Any], segmented: bool) -> None:
    data = encode_box({b"k": b"v", b"l": b""})
    assert encode_box({b"k": kind(b"v"), b"l": kind(b"")}, segmented=segmented) == data
    reader = BoxReader(segmented=segmented)
    assert reader.feed(kind(data[:4])) == []
    assert reader.feed(kind(data[4:])) == [{b"k": b"v", b"l": b""}]


def test_reader_stops_behind_a_box_for_which_anything_true_is_said() -> None:
    reader = BoxReader()
    data = encode_box({b"k": b"v"})
    assert reader.feed(data * 2, lambda box: box.get(b"k")) == [{b"k": b"v"}]
    assert reader.is_stopped
