from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from typed_amp import Box, BoxReader, Limits, ProtocolViolationError, encode_box
from typed_amp.message import box_of

boxes = st.dictionaries(
    st.binary(min_size=1, max_size=255), st.binary(max_size=300), min_size=1, max_size=8
)


@given(boxes)
@example({b"k": bytes(65_535)})
@example({b"k" * 255: b""})
def test_box_is_read_as_it_was_written(box: Box) -> None:
    assert box_of(encode_box(box), 8) == box


def read(data: bytes) -> Box | None:
    """Read a message as a stream that is to be one box."""
    reader = BoxReader(Limits(max_keys=5))
    try:
        found = reader.feed(data)
    except ProtocolViolationError:
        return None
    return found[0] if len(found) == 1 and not reader.pending_bytes else None


@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(boxes, max_size=2).map(lambda several: b"".join(map(encode_box, several))),
        st.tuples(boxes.map(encode_box), st.integers(0, 60), st.binary(max_size=3)).map(
            lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]
        ),
    )
)
@example(b"")
@example(b"\0")
@example(b"\0\0")
@example(b"\0\1k\0\1v\0\1k\0\1w\0\0")
@example(b"\0\1k\0\5v\0\0")
@example(b"\1\0" + b"k" * 256 + b"\0\0\0\0")
def test_any_bytes_are_read_as_a_stream_is_read(data: bytes) -> None:
    try:
        box = box_of(data, 5)
    except ProtocolViolationError:
        box = None
    assert box == read(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no end"),
        (b"hello, world", "not AMP"),
        (b"\0\0", "without any key"),
        (encode_box({b"a": b"1"}) * 2, "more than one box"),
        (encode_box({b"a": b"1"})[:-2] + encode_box({b"a": b"1"}), "a key twice"),
        (encode_box({b"%d" % number: b"" for number in range(6)}), "more than 5 keys"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolViolationError, match=reason):
        box_of(data, 5)
