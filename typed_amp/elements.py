"""Elements one after the other, and the digits that many of them are.

Rule of this module: what is done for each element of a list is done here, since there may be
thousands in one value; `integers` does the same for those in few steps. It imports neither asyncio
nor pydantic.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from typed_amp.box import MAX_VALUE_LENGTH
from typed_amp.errors import DecodeError, TooLongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["decode_elements", "decode_integer", "encode_elements", "encode_integer"]

_ELEMENT_RULE: Final = (
    f"AMP carries at most {MAX_VALUE_LENGTH:,} in one element of a list. Large() cuts the list as a"
    " whole and no element of it: put Json() beside it, or make each element a row whose field is"
    " marked with Large()"
)


def encode_elements(
    encode: Callable[[Any], Any], values: Iterable[Any], *, is_sorted: bool = False
) -> bytes:
    """Write elements one after the other, each behind its length in two bytes.

    Args:
        encode: writes an element, as bytes.
        values: the elements.
        is_sorted: whether they go in the order of their bytes.

    Raises:
        TooLongError: an element takes more than 65,535 bytes.
        Exception: what `encode` raises.
    """
    elements = [encode(value) for value in values]
    if is_sorted:
        elements.sort()
    parts: list[Any] = []
    for index, element in enumerate(elements):
        length = len(element)
        if length > MAX_VALUE_LENGTH:
            raise TooLongError(f"element {index}", length, MAX_VALUE_LENGTH, _ELEMENT_RULE)
        parts.append(length.to_bytes(2, "big"))
        parts.append(element)
    return b"".join(parts)


def decode_elements(decode: Callable[[bytes], Any], data: bytes) -> list[Any]:
    """Read what `encode_elements` writes.

    Args:
        decode: reads an element.
        data: the bytes.

    Raises:
        DecodeError: the bytes end inside an element, or one can't be read. Its location says which.
        Exception: what else `decode` raises.
    """
    pieces: list[bytes] = []
    position = 0
    end = len(data)
    while position + 1 < end:
        start = position + 2
        position = start + (data[position] << 8 | data[position + 1])
        pieces.append(data[start:position])
    if position > end:
        pieces.pop()
    elements: list[Any] = []
    try:
        for piece in pieces:  # compiled, an `extend` would add none before the last is read
            elements.append(decode(piece))  # noqa: PERF401
    except DecodeError as error:
        raise error.within(len(elements)) from None
    if position != end:
        raise DecodeError("a list that ends inside an element", (len(pieces),))
    return elements


def encode_integer(value: int) -> bytes:
    """Write an int as decimal digits, any number of them."""
    try:
        return int.__repr__(value).encode()
    except ValueError:
        # CPython converts no int of more than 4,300 digits; Decimal has no such limit, and the
        # value is this side's own.
        return str(Decimal(value)).encode()


def decode_integer(data: bytes) -> int:
    """Read an int of decimal digits.

    Raises:
        DecodeError: it is anything else.
    """
    # bytes.isdigit() knows ASCII digits alone, unlike str.isdigit().
    if data.isdigit():
        return _joined(data, {})
    if data[:1] == b"-" and data[1:].isdigit():
        return -_joined(data[1:], {})
    raise DecodeError("not an integer")


def _joined(digits: bytes, powers: dict[int, int]) -> int:
    """Make an int of any number of digits, in less time than grows with their square.

    CPython converts no more than 4,300 at once, or 640 if told so, because its time does.
    """
    if len(digits) <= 640:
        return int(digits)
    # Powers of 10 are powers of 5 shifted, and few different ones if all halves are powers of two.
    lower = 1 << (len(digits) - 1).bit_length() - 1
    if lower not in powers:
        powers[lower] = 5**lower
    upper = _joined(digits[:-lower], powers) * powers[lower] << lower
    return upper + _joined(digits[-lower:], powers)
