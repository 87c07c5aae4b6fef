"""What hypothesis draws from: boxes, streams good and bad, and the ways a network cuts them."""

from __future__ import annotations

from hypothesis import strategies as st

from typed_amp.box import RESERVED_KEYS, encode_box
from typed_amp.limits import Limits

keys = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from(sorted(RESERVED_KEYS)),
    st.binary(min_size=255, max_size=255),
)
"""Keys of 1 to 255 bytes: many short ones, so that some come twice."""

values = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([255, 256, 65_535]).map(bytes),
    st.just(b"\0\0" * 3),
)
"""Values of 0 to 65,535 bytes, and ones that look like ends of boxes."""

boxes = st.dictionaries(keys, values, min_size=1, max_size=5)
"""Boxes that AMP can carry."""

rows = st.dictionaries(keys, values, max_size=3)
"""Boxes that may be empty, as those within a value may."""

limits = st.builds(Limits, max_box_bytes=st.integers(1, 600), max_keys=st.integers(1, 4)) | st.just(
    Limits()
)
"""Limits, mostly so tight that a drawn box may break them."""

violations = st.sampled_from(
    [
        b"\0\0",  # a box without any key
        b"\1\0" + b"k" * 256,  # a key of 256 bytes
        b"\0\1k\0\1v\0\1k\0\1w\0\0",  # a key twice
        b"GET / HTTP/1.1\r\n\r\n",
    ]
)
"""Bytes that are no box."""

streams = st.lists(boxes.map(encode_box) | violations | st.binary(max_size=20), max_size=6).map(
    b"".join
)
"""Streams of bytes: whole boxes, and sooner or later something else."""


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Ways to cut a stream: at a few places, some of them the same, or into single bytes."""
    if len(data) < 2_000 and draw(st.booleans()):
        return [data[i : i + 1] for i in range(len(data))]
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[i:j] for i, j in zip([0, *places], [*places, len(data)], strict=True)]
