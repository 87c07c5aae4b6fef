"""One box that is a message of its own, such as one of NATS.

Rule of this module: what it takes, `BoxReader` takes too, and reads the same. It need not wait for
more to come, so it is done in half the time. It imports neither asyncio nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from typed_amp.errors import ProtocolViolationError

if TYPE_CHECKING:
    from typed_amp.box import Box

__all__ = ["box_of"]


def box_of(data: bytes, max_keys: int) -> Box:
    """Read a message.

    Args:
        data: all of it.
        max_keys: how many keys the box may have.

    Raises:
        ProtocolViolationError: it is not exactly one box, or one with too many keys.
    """
    box: Box = {}
    position = pairs = 0
    try:
        while True:
            key_length = data[position + 1]
            if data[position]:
                raise ProtocolViolationError("a key of more than 255 bytes: this is not AMP")
            if not key_length:
                break
            key_end = position + 2 + key_length
            value_end = key_end + 2 + (data[key_end] << 8 | data[key_end + 1])
            box[data[position + 2 : key_end]] = data[key_end + 2 : value_end]
            position = value_end
            pairs += 1
            if pairs > max_keys:
                raise ProtocolViolationError(f"a box of more than {max_keys:,} keys")
    except IndexError:
        raise ProtocolViolationError("a box that has no end") from None
    if position + 2 != len(data):
        raise ProtocolViolationError("more than one box, where one message has one")
    if not box:
        raise ProtocolViolationError("a box without any key")
    if len(box) != pairs:
        raise ProtocolViolationError("a key twice in one box")
    return box
