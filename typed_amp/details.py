"""What was wrong with values, in a form that programs can read.

Rule of this module: it says which value and why, never the value itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ERROR_DETAILS", "ErrorDetail", "decode_details", "encode_details"]

ERROR_DETAILS: Final = b"_error_details"
"""The key of an error's box in which a typed_amp program says more of arguments it refused."""

_MOST_BYTES: Final = 60_000
"""What one value of a box can carry, with a margin."""


class ErrorDetail(TypedDict):
    """One thing that was wrong with a value, as pydantic tells it.

    Attributes:
        type: pydantic's type of error; `undecodable` where the bytes are no value at all.
        loc: the way to it: field names, and the indexes of elements and rows.
        msg: what is wrong, without the value.
    """

    type: str
    loc: tuple[str | int, ...]
    msg: str


def encode_details(errors: Sequence[ErrorDetail]) -> bytes:
    """Write what was wrong as JSON; of what is too much for one value, the first part."""
    parts: list[str] = []
    size = 2
    for error in errors:
        part = json.dumps(error, separators=(",", ":"))
        size += len(part) + 1
        if size > _MOST_BYTES:
            break
        parts.append(part)
    return f"[{','.join(parts)}]".encode()


def decode_details(data: bytes) -> list[ErrorDetail]:
    """Read what was wrong; empty for what says nothing of that kind."""
    try:
        return [
            {
                "type": str(error["type"]),
                "loc": tuple(step if isinstance(step, int) else str(step) for step in error["loc"]),
                "msg": str(error["msg"]),
            }
            for error in json.loads(data)
        ]
    except (ValueError, TypeError, LookupError, RecursionError):
        return []
