"""Lists of integers, written and read as a whole.

Rule of this module: it is `elements` with `encode_integer` and `decode_integer`, and faster. What
is not plain, and what fails, is left to those, value by value, and so are all errors.

A list may have thousands of elements, and a call of a Python function for each takes most of the
time. Here each step is one call for all of them.
"""

from __future__ import annotations

import marshal
import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter
from pydantic_core import from_json

from typed_amp.elements import decode_elements, decode_integer, encode_elements, encode_integer

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["decode_integers", "encode_integers"]

_FEW: Final = 16
"""Of fewer, one by one is faster."""

_MOST: Final = 31
"""Bytes of a plain integer. A length up to that is no digit, and no sign of JSON."""

_PLAIN: Final = re.compile(
    b"(?:\\0(?:%b))*+"
    % b"|".join(b"\\x%02x[0-9-]{%d}+" % (length, length) for length in range(1, _MOST + 1))
)
_COMMAS: Final = bytes.maketrans(bytes(range(1, _MOST + 1)), b"," * _MOST)
_ZEROS: Final = bytes.maketrans(b"123456789-", b"0000000000")
_MARSHALLED_LIST: Final = 5
"""How many bytes marshal writes of a list before its elements."""

_MARSHALLED_BYTES: Final = bytes.maketrans(b"s", b"\0")

_to_json: Final = TypeAdapter(list[int]).serializer.to_json


def encode_integers(values: Iterable[Any], *, is_sorted: bool = False) -> bytes:
    """Write integers one after the other, each behind its length in two bytes.

    Args:
        values: the integers.
        is_sorted: whether they go in the order of their bytes.

    Raises:
        TooLongError: one has more than 65,535 digits.
        Exception: one is no integer.
    """
    values = list(values)
    if len(values) < _FEW:
        return encode_elements(encode_integer, values, is_sorted=is_sorted)
    try:
        text = _to_json(values, warnings="error")
    except ValueError:  # what it takes for no integer, others may
        text = b"null"  # as it writes None
    if b"n" in text or b"0" * (_MOST + 1) in text.translate(_ZEROS):
        return encode_elements(encode_integer, values, is_sorted=is_sorted)
    elements = text[1:-1].split(b",")
    if is_sorted:
        elements.sort()
    # In its version 2, which is for all Pythons, marshal writes a bytes object as an s, the length
    # in four bytes, the last of which are zero here, and the bytes. Integers have neither s nor
    # zero bytes in them: without the zero bytes, and with one for each s, that is what is wanted.
    marshalled = marshal.dumps(elements, 2)
    return marshalled[_MARSHALLED_LIST:].translate(_MARSHALLED_BYTES, b"\0")


def decode_integers(data: bytes) -> list[int]:
    """Read what `encode_integers` writes.

    Raises:
        DecodeError: as `decode_elements` and `decode_integer`.
    """
    if _PLAIN.fullmatch(data):
        try:
            integers: list[int] = from_json(b"[%b]" % data.translate(_COMMAS, b"\0")[1:])
        except ValueError:
            pass  # zeros before it, or a minus within
        else:
            return integers
    return decode_elements(decode_integer, data)
