"""Boxes as they are, for who passes them on without knowing the commands in them.

Rule of this module: what goes through it comes out as it went in.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from typed_amp.box import COMMAND, END_OF_BOX, ERROR_CODE, RESERVED_KEYS, encode_pairs
from typed_amp.descriptors import refuse_to_attach
from typed_amp.errors import EncodeError, RemoteAmpError
from typed_amp.plan import Plan
from typed_amp.signature import DeclaredError, Signature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


__all__ = ["RAW", "RawSignature", "encode_raw", "raw_head"]

ROUTE: Final = b"_route"


def raw_head(name: str | bytes) -> bytes:
    """Write the pair with a command's name.

    Raises:
        EncodeError: it is no text that UTF-8 can carry, and no bytes.
        TooLongError: it is too long.
    """
    try:
        return encode_pairs({COMMAND: name.encode() if isinstance(name, str) else name})
    except (TypeError, AttributeError, UnicodeEncodeError) as error:
        raise EncodeError("a command's name is a text without surrogates, or bytes") from error


def encode_raw(box: Mapping[bytes, bytes], head: bytes) -> bytes:
    """Write a box behind pairs already written, without the keys that the protocol sets by itself.

    Raises:
        EncodeError: it is no dict of bytes, or has an empty key.
        TooLongError: a key or a value is.
    """
    try:
        own = {key: value for key, value in box.items() if key not in _SET_BY_PROTOCOL}
        return head + encode_pairs(own) + END_OF_BOX
    except (TypeError, AttributeError) as error:
        raise EncodeError("a box is a dict of bytes and bytes") from error


_SET_BY_PROTOCOL: Final = RESERVED_KEYS - {ROUTE}


class RawSignature(Signature[Any, Any]):
    """What a fallback answers: any command, with any pairs or any remote error."""

    def encode_answer(
        self,
        answer: Any,
        head: bytes,
        attach: Callable[[int], int] = refuse_to_attach,  # noqa: ARG002 - nothing is attached
    ) -> bytes:
        return encode_raw(answer, head)

    def declared(self, error: BaseException) -> DeclaredError | None:
        if isinstance(error, RemoteAmpError):
            return DeclaredError(error.code.encode("utf-8", "backslashreplace"), is_fatal=False)
        return None

    def error_parts(self, error: BaseException) -> tuple[str, bytes]:
        assert isinstance(error, RemoteAmpError)
        encode_pairs({ERROR_CODE: error.code.encode("utf-8", "backslashreplace")})  # if it fits
        return error.description, encode_raw(error.fields, b"")[: -len(END_OF_BOX)]


class _RawArguments(Plan):
    """Takes a box for what it is."""

    def __init__(self) -> None:
        super().__init__(dict)
        self.encode = encode_raw
        self.decode = dict
        self.is_complete = True


RAW: Final = RawSignature(
    title="the fallback",
    name=b"",
    head=b"",
    arguments=_RawArguments(),
    answer=None,
    errors=MappingProxyType({}),
    error_types=MappingProxyType({}),
    requires_answer=True,
)
