"""Any bytes, read as a capture: the command line and a connection find the same boxes.

Nothing may come out of reading a capture, nor of showing it. What is shown is plain text.
"""

from __future__ import annotations

import json

from fuzz.plans import Asked, Sliced
from fuzz.reader import pieces
from tests.typed_values import Everything
from typed_amp import Box, BoxReader, Limits, ProtocolViolationError
from typed_amp.capture import CapturedBox, Fault, read_capture
from typed_amp.rendering import fault_as_json, meaning_as_json, meaning_as_text
from typed_amp.transcript import Transcript

__all__ = ["check"]

_UNLIMITED = Limits(max_box_bytes=2**62, max_keys=2**62)

_SIGNATURES = {
    signature.name: signature
    for signature in (
        Everything.__amp_signature__(),
        Asked.__amp_signature__(),
        Sliced.__amp_signature__(),
    )
}


def check(data: bytes) -> None:
    """Read the bytes behind the first, which says how."""
    options, stream = (data[:1] or b"\0")[0], data[1:]
    segmented = bool(options & 1)
    captured: list[CapturedBox] = []
    fault: Fault | None = None
    for item in read_capture(pieces(stream, 1 + (options >> 1)), segmented=segmented):
        assert fault is None
        if isinstance(item, Fault):
            fault = item
        else:
            captured.append(item)
    _compare(stream, captured, fault, segmented=segmented)
    transcript = Transcript(_SIGNATURES)
    for box in captured:
        meaning = transcript.meaning(box)
        assert all(line.isprintable() for line in meaning_as_text(meaning).split("\n"))
        json.loads(meaning_as_json(meaning, "capture"))
    if fault is not None:
        assert str(fault).isprintable()
        json.loads(fault_as_json(fault, "capture"))


def _compare(
    stream: bytes, captured: list[CapturedBox], fault: Fault | None, *, segmented: bool
) -> None:
    reader = BoxReader(_UNLIMITED, segmented=segmented)
    boxes: list[Box] = []
    wrong: int | None = None
    try:
        boxes = reader.feed(stream)
    except ProtocolViolationError as error:
        boxes, wrong = list(error.boxes), error.offset
    assert [box.box for box in captured] == boxes
    if wrong is not None:
        assert fault is not None
        assert (fault.box_offset, fault.missing) == (wrong, None)
    elif reader.pending_bytes:
        assert fault is not None
        assert fault.missing
        assert fault.offset == len(stream)
        assert fault.box_offset == len(stream) - reader.pending_bytes
    else:
        assert fault is None
