"""Boxes: bytes in, boxes out, and back.

Rule of this module: it knows how a box is written and nothing of what one means. It imports
neither asyncio nor pydantic.

A box is a series of pairs, each a key and its value behind their lengths in two bytes, and ends
with a key of no length::

    (<2-byte length><key><2-byte length><value>)* 00 00

Keys have 1 to 255 bytes, values 0 to 65,535 (https://amp-protocol.net; Twisted's
`twisted.protocols.amp.AmpBox` and `BinaryBoxProtocol`).
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from typed_amp.details import ERROR_DETAILS
from typed_amp.errors import DecodeError, EncodeError, ProtocolViolationError, TooLongError
from typed_amp.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ANSWER",
    "ASK",
    "BUSY",
    "CANCELLED",
    "CLOSING",
    "COMMAND",
    "DEADLINE",
    "ERROR",
    "ERROR_CODE",
    "ERROR_DESCRIPTION",
    "INVALID_ARGUMENTS",
    "MAX_KEY_LENGTH",
    "MAX_VALUE_LENGTH",
    "NOT_ALLOWED",
    "RESERVED_KEYS",
    "TIMEOUT",
    "UNHANDLED",
    "UNKNOWN",
    "Box",
    "BoxReader",
    "decode_boxes",
    "encode_box",
    "encode_pairs",
    "printable",
]

Box: TypeAlias = dict[bytes, bytes]
"""One message: keys and their values. The order of the keys means nothing."""

ASK: Final = b"_ask"
ANSWER: Final = b"_answer"
COMMAND: Final = b"_command"
ERROR: Final = b"_error"
ERROR_CODE: Final = b"_error_code"
ERROR_DESCRIPTION: Final = b"_error_description"

UNHANDLED: Final = b"UNHANDLED"
UNKNOWN: Final = b"UNKNOWN"
INVALID_ARGUMENTS: Final = b"INVALID_ARGUMENTS"
CLOSING: Final = b"CLOSING"
BUSY: Final = b"BUSY"
CANCELLED: Final = b"CANCELLED"
TIMEOUT: Final = b"TIMEOUT"
NOT_ALLOWED: Final = b"NOT_ALLOWED"
"""Values of `_error_code` that belong to the protocol. The first two are Twisted's."""

DEADLINE: Final = b"_deadline"
"""The key of an ask in which a typed_amp program says how long it waits."""

RESERVED_KEYS: Final = frozenset(
    {
        *(ASK, ANSWER, COMMAND, ERROR, ERROR_CODE, ERROR_DESCRIPTION),
        *(DEADLINE, ERROR_DETAILS),
        b"_route",
    }
)
"""Keys that belong to the protocol: no field may use them.

`_route` is not ours: epsilon's `amprouter` and CalendarServer use it to address one of several
dialogues on one connection.
"""

MAX_KEY_LENGTH: Final = 255
MAX_VALUE_LENGTH: Final = 65_535

END_OF_BOX: Final = b"\0\0"

# A peer may look at the first key alone to know what a box is (AmpJS does), so the one that says
# it goes first. Twisted sorts keys, which for its own boxes comes to the same.
_LEADING_KEYS: Final = (ASK, ANSWER, ERROR)


_BYTES: Final = (bytes, bytearray, memoryview)


def printable(data: bytes) -> str:
    """Show bytes that a peer chose (a key, a name, a code) as ASCII text, escaped where needed.

    What comes out never breaks a log line or a terminal, whatever went in.
    """
    text = data.decode("utf-8", "backslashreplace")
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)


def encode_pairs(box: Mapping[bytes, bytes], *, segmented: bool = False) -> bytes:
    """Write the pairs of a box in their order, with no end.

    Args:
        box: the pairs.
        segmented: as `encode_box`.

    Raises:
        EncodeError: a key is empty.
        TooLongError: a key is longer than 255 bytes, or a value than 65,535 and not segmented.
    """
    parts: list[bytes] = []
    pairs: Mapping[Any, Any] = box  # whatever is like bytes will do
    for key, value in pairs.items():
        if not key:
            raise EncodeError("a box can't have an empty key: that is how a box ends")
        if len(key) > MAX_KEY_LENGTH:
            raise TooLongError(f"the key {printable(key[:32])}...", len(key), MAX_KEY_LENGTH)
        if segmented:
            parts += (len(key).to_bytes(2, "big"), key)
            for start in range(0, len(value) + 1, MAX_VALUE_LENGTH):
                segment = value[start : start + MAX_VALUE_LENGTH]
                parts += (len(segment).to_bytes(2, "big"), segment)
            continue
        if len(value) > MAX_VALUE_LENGTH:
            raise TooLongError(f"the value of {printable(key)}", len(value), MAX_VALUE_LENGTH)
        parts += (len(key).to_bytes(2, "big"), key, len(value).to_bytes(2, "big"), value)
    return b"".join(parts)


def encode_box(box: Mapping[bytes, bytes], *, segmented: bool = False) -> bytes:
    """Write a box: `_ask`, `_answer` or `_error` first, the other keys in their order.

    Args:
        box: the box.
        segmented: write it as AMP's version 2 has it, in which values have any length: a segment
            of exactly 65,535 bytes means that another of the same value follows, without a key.
            For tools: a connection of ours speaks version 1, and so does nearly everything.

    Raises:
        EncodeError: the box is empty, or a key is; or something in it isn't bytes.
        TooLongError: a key is longer than 255 bytes, or a value than 65,535 and not segmented.
    """
    if not box:
        raise EncodeError("an empty box says nothing: peers take it for a violation")
    for key in _LEADING_KEYS:
        if key in box:
            box = {key: box[key], **box}
            break
    try:
        return encode_pairs(box, segmented=segmented) + END_OF_BOX
    except (TypeError, AttributeError) as error:
        raise EncodeError(_why_no_box(box)) from error


def _why_no_box(box: Any) -> str:
    """Say what in a box isn't bytes. A value is not shown: it may be a secret."""
    due = "the keys and values of a box are bytes"
    for key, value in box.items() if isinstance(box, Mapping) else ():
        if not isinstance(key, _BYTES):
            return f"the key {reprlib.repr(key)} is of type {type(key).__name__}; {due}"
        if not isinstance(value, _BYTES):
            name = printable(bytes(key))
            return f"the value of {name} is of type {type(value).__name__}; {due}"
    return f"a box is a dict, and {due}"


def decode_boxes(data: bytes) -> list[Box]:
    """Read boxes that stand one after the other in one value (Twisted's `AmpList`).

    Boxes without keys are allowed here: a row whose fields are all left out is one. How many keys
    there are is bounded by the value's own length.

    Raises:
        DecodeError: the data is no series of boxes, or its last box is not complete.
    """
    boxes: list[Box] = []
    box: Box = {}
    position = 0
    end = len(data)
    while position < end:
        key_length = int.from_bytes(data[position : position + 2], "big")
        if key_length == 0:
            boxes.append(box)
            box = {}
            position += 2
            continue
        key_end = position + 2 + key_length
        key = data[position + 2 : key_end]
        position = key_end + 2 + int.from_bytes(data[key_end : key_end + 2], "big")
        if position > end or key_length > MAX_KEY_LENGTH or key in box:
            raise DecodeError("not a series of boxes")
        box[key] = data[key_end + 2 : position]
    if box or position != end:
        raise DecodeError("a series of boxes that ends inside one")
    return boxes


@final
class BoxReader:
    """Turn a stream of bytes, cut anywhere, into boxes.

    Feed it what arrives; it returns the boxes that are complete by then. It looks at each byte a
    bounded number of times, so that its work grows with the bytes alone and not with the pieces
    they come in, and it holds at most one box that is within the limits.

    Args:
        limits: how large a box may grow.
        segmented: read AMP's version 2, see `encode_box`. Nothing in the stream says which version
            it is, and a value of exactly 65,535 bytes is the only difference.
    """

    __slots__ = (
        "_ahead",
        "_ahead_from",
        "_box",
        "_box_bytes",
        "_held",
        "_key",
        "_limits",
        "_needed",
        "_read_bytes",
        "_segments",
        "_violation",
        "is_stopped",
    )

    def __init__(self, limits: Limits | None = None, *, segmented: bool = False) -> None:
        self._limits = limits or Limits()
        self._box: Box | None = None
        """The pairs read so far of the box that is not complete yet, if there are any."""
        self._held: bytearray | None = None
        """What arrived of the next pair, if anything did."""
        self._needed = 0
        """How many bytes must be held before it is worth looking at them."""
        self._ahead = b""
        self._ahead_from = 0
        """Where in these bytes the boxes begin that were too many for one `feed`."""
        self._read_bytes = 0
        """How many bytes of the stream have become pairs or ends of boxes."""
        self._box_bytes = 0
        """How many of them are of the box that is not complete yet."""
        self._violation: ProtocolViolationError | None = None
        self.is_stopped: bool = False
        """Whether it stopped behind a box. What comes then is kept as it is, until `resume`."""
        self._key: bytes | None = None
        """With segments: the key whose value is not complete yet."""
        self._segments: list[bytes] | None = [] if segmented else None
        """Those of its value that are there; None without segments."""

    @property
    def offset(self) -> int:
        """How many bytes were fed up to now."""
        return self._read_bytes + self._unread_bytes

    @property
    def _unread_bytes(self) -> int:
        held = self._held
        return len(self._ahead) - self._ahead_from + (len(held) if held is not None else 0)

    @property
    def box_offset(self) -> int:
        """Where in the stream the box begins that is not complete yet, or comes next."""
        return self._read_bytes - self._box_bytes

    @property
    def has_more(self) -> bool:
        """Whether there are bytes that it has not looked at, since it gave `most` boxes."""
        return bool(self._ahead)

    @property
    def pending_bytes(self) -> int:
        """How many bytes arrived of a box that is not complete; 0 between two boxes."""
        return self._box_bytes + self._unread_bytes

    def feed(
        self,
        data: bytes | bytearray | memoryview,
        until: Callable[[Box], object] | None = None,
        most: int = sys.maxsize,
    ) -> list[Box]:
        """Take the next bytes of the stream and return the boxes that they complete.

        Args:
            data: the bytes.
            until: asked about each box in turn; the reader stops behind the first for which it
                returns true, since what follows may not be AMP.
            most: how many boxes to return at the most. If `has_more` says that there are bytes
                left, `feed(b"")` goes on with them.

        Raises:
            ProtocolViolationError: the bytes are not AMP or go beyond the limits. `boxes` of the
                error holds the boxes that these bytes had completed before. Final: every later
                call raises the same error, with no boxes.
        """
        if self._violation is not None:
            raise self._violation.with_traceback(None)
        if self.is_stopped:
            self._hold(data)
            return []
        boxes: list[Box] = []
        position = 0
        if self._ahead:
            position = self._ahead_from
            if data:
                data = self._ahead[position:] + data
                position = 0
            else:
                data = self._ahead
            self._ahead = b""
            self._ahead_from = 0
        # What comes behind the pair that is held is not copied to it: it may be much.
        while self._held:
            missing = max(self._needed - len(self._held), 0)
            self._held += data[position : position + missing]
            if missing > len(data) - position:
                return boxes
            position += missing
            held = bytes(self._held)
            self._held = None
            self._parse(held, 0, until, most, boxes)
            if self.is_stopped:
                self._hold(data[position:])
                return boxes
            if len(boxes) == most:
                break
        if len(boxes) == most:
            self._ahead = self._ahead[self._ahead_from :] + data[position:]
            self._ahead_from = 0
        elif position < len(data):
            if not isinstance(data, bytes):
                data, position = bytes(data[position:]), 0
            self._parse(data, position, until, most, boxes)
        return boxes

    def _hold(self, data: bytes | bytearray | memoryview) -> None:
        if self._held is not None:
            self._held += data
        elif data:
            self._held = bytearray(data)

    def resume(self) -> None:
        """Go on after a stop; `feed(b"")` gives the boxes that are there by now."""
        self.is_stopped = False
        self._needed = 0

    def take_rest(self) -> bytes:
        """Give, after a stop, the bytes that came since: they belong to something else."""
        rest = bytes(self._held or b"")
        self._held = None
        self._read_bytes += len(rest)
        return rest

    def _parse(
        self,
        data: bytes,
        position: int,
        until: Callable[[Box], object] | None,
        most: int,
        boxes: list[Box],
    ) -> None:
        """Add the boxes to those that are there already, `most` at the most with them."""
        if self._segments is not None:
            self._parse_segmented(data, position, until, most, boxes)
            return
        # The hot loop of the library: locals only, one pair a turn, no calls but the slices.
        box = self._box or {}
        end = len(data)
        # Where data begins in the stream, and this box in data; before it, if that is negative.
        origin = self._read_bytes - position
        start = position - self._box_bytes
        max_keys = self._limits.max_keys
        max_box_bytes = self._limits.max_box_bytes
        needed = 2
        while end - position >= 2:
            key_length = data[position] << 8 | data[position + 1]
            if not key_length:
                position += 2
                if not box:
                    raise self._violated("a box without any key", origin + start, boxes)
                boxes.append(box)
                start = position
                if until is not None and until(box):
                    box = {}
                    self.is_stopped = True
                    break
                box = {}
                if len(boxes) == most:
                    break
                continue
            if key_length > MAX_KEY_LENGTH:
                raise self._violated(
                    f"a key of {key_length:,} bytes, where AMP allows {MAX_KEY_LENGTH}: this is"
                    " not AMP",
                    origin + start,
                    boxes,
                )
            key_end = position + 2 + key_length
            value_start = key_end + 2
            if value_start > end:
                if value_start + 2 - start > max_box_bytes:
                    raise self._violated(
                        f"a box of more than {max_box_bytes:,} bytes (Limits.max_box_bytes)",
                        origin + start,
                        boxes,
                    )
                needed = value_start - position
                break
            value_end = value_start + (data[key_end] << 8 | data[key_end + 1])
            # The end of the box follows at the least: two bytes that are counted from the start.
            if value_end + 2 - start > max_box_bytes:
                raise self._violated(
                    f"a box of more than {max_box_bytes:,} bytes (Limits.max_box_bytes)",
                    origin + start,
                    boxes,
                )
            if value_end > end:
                needed = value_end - position
                break
            key = data[position + 2 : key_end]
            if key in box:
                raise self._violated(
                    f"the key {printable(key)} twice in one box", origin + start, boxes
                )
            if len(box) == max_keys:
                raise self._violated(
                    f"a box of more than {max_keys:,} keys (Limits.max_keys)", origin + start, boxes
                )
            box[key] = data[value_start:value_end]
            position = value_end
        if position < end and len(boxes) == most and not self.is_stopped:
            self._ahead, self._ahead_from = data, position
        elif position < end:
            self._hold(data[position:] if position else data)
            self._needed = needed
        self._box = box or None
        self._box_bytes = position - start
        self._read_bytes = origin + position

    def _parse_segmented(
        self,
        data: bytes,
        position: int,
        until: Callable[[Box], object] | None,
        most: int,
        boxes: list[Box],
    ) -> None:
        # A key is an item, and so is each segment of its value: lengths with bytes behind them.
        box = self._box or {}
        key = self._key
        segments = self._segments
        assert segments is not None
        end = len(data)
        origin = self._read_bytes - position
        start = position - self._box_bytes
        max_keys = self._limits.max_keys
        max_box_bytes = self._limits.max_box_bytes
        needed = 2
        while end - position >= 2:
            length = data[position] << 8 | data[position + 1]
            item_end = position + 2 + length
            if key is None and not length:
                position = item_end
                if not box:
                    raise self._violated("a box without any key", origin + start, boxes)
                boxes.append(box)
                start = position
                if until is not None and until(box):
                    box = {}
                    self.is_stopped = True
                    needed = 0
                    break
                box = {}
                if len(boxes) == most:
                    break
                continue
            if key is None and length > MAX_KEY_LENGTH:
                raise self._violated(
                    f"a key of {length:,} bytes, where AMP allows {MAX_KEY_LENGTH}: this is not"
                    " AMP",
                    origin + start,
                    boxes,
                )
            # Behind a key and a full segment a length follows at the least, and the box's end.
            least = 4 if key is None or length == MAX_VALUE_LENGTH else 2
            if item_end + least - start > max_box_bytes:
                raise self._violated(
                    f"a box of more than {max_box_bytes:,} bytes (Limits.max_box_bytes)",
                    origin + start,
                    boxes,
                )
            if item_end > end:
                needed = item_end - position
                break
            item = data[position + 2 : item_end]
            position = item_end
            if key is None:
                key = item
                continue
            segments.append(item)
            if length == MAX_VALUE_LENGTH:
                continue
            if key in box:
                raise self._violated(
                    f"the key {printable(key)} twice in one box", origin + start, boxes
                )
            if len(box) == max_keys:
                raise self._violated(
                    f"a box of more than {max_keys:,} keys (Limits.max_keys)", origin + start, boxes
                )
            box[key] = b"".join(segments)
            segments.clear()
            key = None
        if position < end and len(boxes) == most and not self.is_stopped:
            self._ahead, self._ahead_from = data, position
        elif position < end:
            self._hold(data[position:] if position else data)
            self._needed = needed
        self._key = key
        self._box = box or None
        self._box_bytes = position - start
        self._read_bytes = origin + position

    def _violated(self, reason: str, offset: int, boxes: list[Box]) -> ProtocolViolationError:
        self._violation = ProtocolViolationError(reason, offset)
        self._box = None
        return ProtocolViolationError(reason, offset, boxes)
