"""One value and its bytes.

Rule of this module: a codec is a pair of pure functions. It sees one value or one value's bytes,
never a box, a connection or a transport.

What is written equals, byte for byte, what the `Argument` of `twisted.protocols.amp` named with
each codec writes. What is read is held to it strictly: where Twisted takes `b" 1_0 "` for ten,
this refuses.
"""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from pathlib import PurePath
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    TypeVar,
)

from pydantic import Secret, SecretStr, TypeAdapter, ValidationError
from pydantic_core import to_json

from typed_amp.elements import (
    decode_elements,
    decode_integer,
    encode_elements,
    encode_integer,
)
from typed_amp.errors import DecodeError, EncodeError
from typed_amp.integers import decode_integers, encode_integers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from typed_amp.details import ErrorDetail

__all__ = [
    "BooleanCodec",
    "BytesCodec",
    "Codec",
    "DateTimeCodec",
    "DecimalCodec",
    "EnumCodec",
    "FloatCodec",
    "IntegerCodec",
    "Json",
    "JsonCodec",
    "JsonStringCodec",
    "ListCodec",
    "PathCodec",
    "SecretCodec",
    "TextCodec",
    "decode_error",
]

T = TypeVar("T")


class Codec(ABC, Generic[T]):
    """Turns values of one type into bytes and back; Twisted's `Argument`.

    A codec of your own goes beside the type that it carries::

        class HexCodec(Codec[bytes]):
            def encode(self, value: bytes) -> bytes:
                return value.hex().encode()

            def decode(self, data: bytes) -> bytes:
                return bytes.fromhex(data.decode())

        class Store(Command):
            digest: Annotated[bytes, HexCodec()]

    The decoded value still goes through the model that it is a field of. An instance is shared by
    all calls, so it must keep no state of a single one.
    """

    @abstractmethod
    def encode(self, value: T) -> bytes:
        """Turn a value into at most 65,535 bytes; more, if the field is marked `Large()`.

        Any exception reaches the caller as the cause of an `EncodeError`, before anything is sent.
        """

    @abstractmethod
    def decode(self, data: bytes) -> T:
        """Turn bytes that a peer chose into a value.

        Must take any bytes at all. Any exception is a refusal: it becomes a `DecodeError` that
        names the field. The text of a `DecodeError` raised here travels to the peer, so leave the
        value out of it; of every other exception the peer learns the name of its type alone.
        """


class IntegerCodec(Codec[int]):
    """Decimal digits, any number of them (Twisted's `Integer`)."""

    def encode(self, value: int) -> bytes:
        return encode_integer(value)

    def decode(self, data: bytes) -> int:
        return decode_integer(data)


class BytesCodec(Codec[bytes]):
    """The bytes themselves (Twisted's `String`)."""

    def encode(self, value: bytes) -> bytes:
        if not isinstance(value, bytes):
            raise EncodeError(f"a value of type {type(value).__name__} where bytes are declared")
        return value

    def decode(self, data: bytes) -> bytes:
        return data


class TextCodec(Codec[str]):
    """UTF-8 (Twisted's `Unicode`)."""

    def encode(self, value: str) -> bytes:
        try:
            return str.encode(value)
        except UnicodeEncodeError:
            raise EncodeError("a text with surrogates, which UTF-8 can't write") from None

    def decode(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise DecodeError("not UTF-8") from None


class BooleanCodec(Codec[bool]):
    """`True` or `False`, nothing else (Twisted's `Boolean`)."""

    def encode(self, value: bool) -> bytes:
        if value is True:
            return b"True"
        if value is False:
            return b"False"
        raise EncodeError(f"a value of type {type(value).__name__} where bool is declared")

    def decode(self, data: bytes) -> bool:
        if data == b"True":
            return True
        if data == b"False":
            return False
        raise DecodeError("neither True nor False")


class FloatCodec(Codec[float]):
    """Python's `repr`, with `nan`, `inf` and `-inf` (Twisted's `Float`)."""

    _FORM: Final = re.compile(rb"-?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|inf|nan)")

    def encode(self, value: float) -> bytes:
        if isinstance(value, int):  # which type checkers take for a float, and dataclasses keep
            value = float(value)
        return float.__repr__(value).encode()

    def decode(self, data: bytes) -> float:
        if not self._FORM.fullmatch(data):
            raise DecodeError("not a floating-point number")
        return float(data)


class DecimalCodec(Codec[Decimal]):
    """The decimal's own text, `NaN`, `sNaN` and `Infinity` too (Twisted's `Decimal`)."""

    _FORM: Final = re.compile(
        rb"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|Infinity|s?NaN[0-9]*)"
    )

    def encode(self, value: Decimal) -> bytes:
        return Decimal.__str__(value).encode()

    def decode(self, data: bytes) -> Decimal:
        if not self._FORM.fullmatch(data):
            raise DecodeError("not a decimal number")
        try:
            return Decimal(data.decode())
        except InvalidOperation:
            raise DecodeError("a decimal number beyond what Python can hold") from None


class DateTimeCodec(Codec[datetime]):
    """32 characters, as in `2012-01-23T12:34:56.054321-01:23` (Twisted's `DateTime`).

    Aware datetimes only. Of the time zone its offset in whole minutes travels: Twisted's format
    has no place for more. UTC is written `-00:00`, as Twisted does; `+00:00` is read too.
    """

    _FORM: Final = re.compile(
        rb"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})\.([0-9]{6})"
        rb"([+-])([0-9]{2}):([0-9]{2})"
    )

    def encode(self, value: datetime) -> bytes:
        offset = value.utcoffset()
        if offset is None:
            raise EncodeError("a datetime without a time zone; give it one, such as datetime.UTC")
        minutes = offset // timedelta(minutes=1)
        sign = "+" if minutes > 0 else "-"
        hours, minutes = divmod(abs(minutes), 60)
        local = value.replace(tzinfo=None).isoformat(timespec="microseconds")
        return f"{local}{sign}{hours:02}:{minutes:02}".encode()

    def decode(self, data: bytes) -> datetime:
        match = self._FORM.fullmatch(data)
        if match is None:
            raise DecodeError("not a datetime of AMP's 32 characters")
        *parts, sign, hours, minutes = match.groups()
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        year, month, day, hour, minute, second, microsecond = map(int, parts)
        try:
            zone = timezone(-offset if sign == b"-" else offset)
            return datetime(year, month, day, hour, minute, second, microsecond, zone)
        except ValueError:
            raise DecodeError("no such date, time or time zone") from None


class PathCodec(Codec[PurePath]):
    """The path's text in UTF-8 (Twisted's `Path`).

    Args:
        path_type: what to make of it: `pathlib.Path` or a relative of it.
    """

    def __init__(self, path_type: type[PurePath]) -> None:
        self._path_type = path_type
        self._text = TextCodec()

    def encode(self, value: PurePath) -> bytes:
        return self._text.encode(PurePath.__str__(value))

    def decode(self, data: bytes) -> PurePath:
        return self._path_type(self._text.decode(data))


class SecretCodec(Codec[Any]):
    """What a pydantic secret hides. It travels in clear: use TLS.

    Args:
        secret_type: `SecretStr`, `SecretBytes`, a subclass of theirs, or a `Secret[T]`.
        beneath: the codec of what it hides.
    """

    def __init__(self, secret_type: Callable[[Any], Any], beneath: Codec[Any]) -> None:
        self._secret_type = secret_type
        self._beneath = beneath

    def encode(self, value: Any) -> bytes:
        return self._beneath.encode(value.get_secret_value())

    def decode(self, data: bytes) -> Any:
        return self._secret_type(self._beneath.decode(data))


class EnumCodec(Codec[Any]):
    """The value of an enum's member, as the type of that value is written.

    Args:
        enum_type: the enum.
        beneath: the codec of its members' values.
    """

    def __init__(self, enum_type: type[enum.Enum], beneath: Codec[Any]) -> None:
        self._enum_type = enum_type
        self._beneath = beneath

    def encode(self, value: Any) -> bytes:
        # A model with use_enum_values holds the bare value.
        return self._beneath.encode(value.value if isinstance(value, enum.Enum) else value)

    def decode(self, data: bytes) -> Any:
        value = self._beneath.decode(data)
        try:
            return self._enum_type(value)
        except ValueError:
            raise DecodeError(f"no member of {self._enum_type.__name__}") from None


class JsonCodec(Codec[Any]):
    """A type's JSON, as pydantic writes and reads it.

    Args:
        json_type: any type that pydantic knows.

    Attributes:
        masks: whether asterisks would be written instead of a secret.
    """

    def __init__(self, json_type: Any) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(json_type)
        self.masks: bool = not _MASKS.isdisjoint(_serializers(self._adapter.core_schema))

    def encode(self, value: Any) -> bytes:
        # Not dump_json(): it turns nan and inf into null, which is read as something else.
        data = self._adapter.dump_python(value, mode="json", by_alias=True, warnings="error")
        return to_json(data, inf_nan_mode="constants")

    def decode(self, data: bytes) -> Any:
        try:
            return self._adapter.validate_json(data)
        except ValidationError as error:
            raise decode_error(error) from None


class JsonStringCodec(Codec[Any]):
    """The text of a type that pydantic writes as one JSON string: a UUID, a date, a URL.

    Args:
        string_type: the type, with metadata of pydantic's where only they make it a string.
        read_here: whether the text becomes the type here. If not, the field's own model has to.
        may_be_number: whether a bare number is a text of the type.
    """

    def __init__(self, string_type: Any, *, read_here: bool, may_be_number: bool = True) -> None:
        self._may_be_number = may_be_number
        self._adapter: TypeAdapter[Any] = TypeAdapter(string_type)
        self._read_here = read_here
        self._text = TextCodec()

    def encode(self, value: Any) -> bytes:
        text = self._adapter.dump_python(value, mode="json", warnings="error")
        if not isinstance(text, str):
            raise EncodeError(f"pydantic wrote it as JSON of type {type(text).__name__}, not str")
        return self._text.encode(text)

    def decode(self, data: bytes) -> Any:
        text = self._text.decode(data)
        if not self._read_here:
            return text
        if not self._may_be_number and text.strip("+-").replace(".", "", 1).isdecimal():
            raise DecodeError("a bare number")
        try:
            return self._adapter.validate_json(to_json(text), strict=True)
        except ValidationError as error:
            raise decode_error(error) from None


class ListCodec(Codec[Any]):
    """Elements one after the other, each behind its length in two bytes (Twisted's `ListOf`).

    Args:
        collection_type: list, tuple, set or frozenset. Sets are written in the order of their
            elements' bytes, so that equal sets are equal on the wire.
        element: the codec of the elements.
    """

    def __init__(
        self, collection_type: Callable[[Iterable[Any]], Collection[Any]], element: Codec[Any]
    ) -> None:
        self._collection_type = collection_type
        self._element = element
        self._is_sorted = collection_type in (set, frozenset)
        self._is_of_integers = type(element) is IntegerCodec

    def encode(self, value: Collection[Any]) -> bytes:
        if self._is_of_integers:
            return encode_integers(value, is_sorted=self._is_sorted)
        return encode_elements(self._element.encode, value, is_sorted=self._is_sorted)

    def decode(self, data: bytes) -> Collection[Any]:
        if self._is_of_integers:
            return self._collection_type(decode_integers(data))
        return self._collection_type(decode_elements(self._element.decode, data))


class Json:
    """Marks a field that travels as JSON: `Annotated[dict[str, int], Json()]`.

    Any type that pydantic can write and read fits: dicts, unions, tuples of mixed types. Peers see
    a text in UTF-8.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Json()"


def _serializers(schema: Any) -> Iterator[Any]:
    """Find the functions by which pydantic writes the parts of a type."""
    if isinstance(schema, (list, tuple)):
        for part in schema:
            yield from _serializers(part)
    elif isinstance(schema, dict):
        serialization = schema.get("serialization", {})
        if serialization.get("type") == "function-plain":
            yield serialization["function"]  # of what is within, nothing is written
        else:
            for part in schema.values():
                yield from _serializers(part)


_MASKS: Final = frozenset(
    function
    for secret_type in (SecretStr, Secret[str])
    for function in _serializers(TypeAdapter(secret_type).core_schema)
)
"""Those by which it writes asterisks instead of a secret."""


def decode_error(error: ValidationError) -> DecodeError:
    """Say what pydantic refused: where and why, never the value."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    for detail in details:
        if detail["type"] in _TELLING:
            detail["msg"] = "Input should be one of the declared kinds"
    errors: list[ErrorDetail] = [
        {"type": detail["type"], "loc": detail["loc"], "msg": detail["msg"]} for detail in details
    ]
    if len(errors) == 1:
        return DecodeError(errors[0]["msg"], errors[0]["loc"], errors)
    reasons = (str(DecodeError(detail["msg"], detail["loc"])) for detail in errors)
    return DecodeError("; ".join(reasons), (), errors)


_TELLING: Final = ("union_tag_invalid",)
"""Pydantic's types of errors whose text quotes the value."""
