"""The plan of a model: how its fields become pairs of a box, and a box its fields.

Rule of this module: what can be known from the class is worked out once, when the class is
written. A call then runs two straight-line functions that hold keys and codecs as constants; they
are made when they are first used.

Models are pydantic models, dataclasses of the standard library and pydantic's dataclasses.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import cached_property
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    TypeVar,
)

from pydantic import ValidationError

from typed_amp.box import (
    MAX_VALUE_LENGTH,
    Box,
    decode_boxes,
)
from typed_amp.codecs import Codec, ListCodec, decode_error
from typed_amp.descriptors import DescriptorCodec
from typed_amp.errors import DecodeError, EncodeError, TooLongError
from typed_amp.plan_source import (
    decode_function,
    encode_function,
    encode_rows_function,
    read_rows_function,
)
from typed_amp.rows import RowsCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typed_amp.large import Large

__all__ = ["Field", "Plan"]

_E = TypeVar("_E", bound=Exception)


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field of a model and its pair in a box.

    Attributes:
        name: the field's name.
        key: the key on the wire.
        codec: turns the value into bytes and back.
        optional: whether None is a value of it; the key is left out for None.
        has_default: whether the model fills it in where the key is missing.
        large: how the value is cut, if it may be longer than one pair of a box.
    """

    name: str
    key: bytes
    codec: Codec[Any]
    optional: bool
    has_default: bool
    large: Large | None = None

    def keys_in(self, box: Mapping[bytes, bytes]) -> list[bytes]:
        """Give the keys of a box that hold the field's value, in their order."""
        if self.large is not None:
            return list(self.large.keys_in(self.key, box))
        return [self.key] if self.key in box else []

    def value_in(self, box: Mapping[bytes, bytes]) -> Any:
        """Read the field alone, which is there; the model has no say in it.

        Raises:
            DecodeError: it can't be read.
            Exception: what a codec of the user's own raises.
        """
        data = box.get(self.key) if self.large is None else self.large.decode(self.key, box)
        return self.codec.decode(b"" if data is None else data)


class Plan:
    """How one model is written and read. Made by `plan_for`, once for each class.

    Attributes:
        model: the class.
        accepted: the class that a value must be of: of a generic model with parameters the one
            without, since that is what a type checker takes for the same.
        fields: its fields, in their order.
        encode: `encode(value, head)` gives the box of a value: `head`, which is pairs already
            written, then the fields' pairs, then the end. Raises `EncodeError` or `TooLongError`.
            A third argument, `attach`, gives the number of a descriptor that is to be sent.
        decode: `decode(box)` gives the value, validated by the model. Keys that are no field's are
            ignored, unless the model forbids them. Raises `DecodeError`. A second argument,
            `claim`, gives the descriptor of a number.
        encode_rows: `encode_rows(models)` gives the boxes of many; None if there is no faster way
            than one by one.
        read_rows: `read_rows(data)` gives the values of the fields of many boxes, for `validate`,
            or None where it can't tell. Raises anything. None if there is no faster way.
        validate: makes a value of the model from a dict of its fields' values.
        is_complete: whether all of the above is there.
        is_being_made: whether `plan_for` is at it.
    """

    def __init__(self, model: type) -> None:
        self.model: type = model
        generic = getattr(model, "__pydantic_generic_metadata__", None)
        self.accepted: type = (generic and generic["origin"]) or model
        self.fields: tuple[Field, ...] = ()
        self.validate: Callable[[Any], Any]
        self.is_complete: bool = False
        self.is_being_made: bool = False

    def complete(self, fields: Iterable[Field], validate: Callable[[Any], Any]) -> None:
        """Say what there is to write and read. The functions are compiled when first used.

        Args:
            fields: the model's fields.
            validate: makes a value of the model from a dict of its fields' values.
        """
        self.fields = tuple(fields)
        self.validate = validate
        self.is_complete = True

    @cached_property
    def encode(self) -> Callable[..., bytes]:
        return encode_function(self)

    @cached_property
    def decode(self) -> Callable[..., Any]:
        return decode_function(self)

    @cached_property
    def encode_rows(self) -> Callable[[Iterable[Any]], list[bytes]] | None:
        return encode_rows_function(self) if self._is_plain else None

    @cached_property
    def read_rows(self) -> Callable[[bytes], list[dict[str, Any]] | None] | None:
        # Where most fields may be missing, row by row is faster.
        may_be_missing = sum(field.optional for field in self.fields)
        if not self._is_plain or 2 * may_be_missing > len(self.fields):
            return None
        return read_rows_function(self)

    @property
    def _is_plain(self) -> bool:
        """Whether all fields are single values of types that the library knows."""
        return bool(self.fields) and all(
            type(field.codec).__module__ == Codec.__module__
            and not isinstance(field.codec, ListCodec)
            and field.large is None
            for field in self.fields
        )

    @property
    def carries_descriptors(self) -> bool:
        """Whether there are descriptors in it, or in its rows."""
        return any(
            isinstance(field.codec, DescriptorCodec)
            for plan in self._with_rows()
            for field in plan.fields
        )

    def _with_rows(self) -> list[Plan]:
        plans: list[Plan] = [self]
        for plan in plans:  # which grows meanwhile
            rows = [field.codec.plan for field in plan.fields if isinstance(field.codec, RowsCodec)]
            plans += [row for row in rows if row not in plans]
        return plans

    def descriptors_in(self, model: Any) -> Iterator[int]:
        """Find the descriptors in a value, and in its rows."""
        if not isinstance(model, self.accepted):
            return
        for field in self.fields:
            value = getattr(model, field.name, None)
            if value is None:
                continue
            if isinstance(field.codec, DescriptorCodec):
                yield value
            elif isinstance(field.codec, RowsCodec):
                for row in field.codec.models(value):
                    yield from field.codec.plan.descriptors_in(row)

    def skip_descriptors(self, box: Box, skip: Callable[[int], None]) -> None:
        """Tell of the descriptors that a box names which can't be read as a whole."""
        for field in self.fields:
            data = box.get(field.key)
            if data is None:
                continue
            with contextlib.suppress(DecodeError):
                if isinstance(field.codec, DescriptorCodec):
                    skip(field.codec.decode(data))
                elif isinstance(field.codec, RowsCodec):
                    for row in decode_boxes(data):
                        field.codec.plan.skip_descriptors(row, skip)

    def encode_failure(self, model: Any, at: int, error: Exception) -> Exception:
        """Say what could not be written, and why. Slow: for the exceptional case.

        Args:
            model: what was to be written.
            at: the index of the field at work.
            error: what went wrong there.
        """
        if not isinstance(model, self.accepted):
            return EncodeError(f"a {type(model).__name__} is no {self.model.__qualname__}")
        field = self.fields[at]
        where = f"{self.model.__qualname__}.{field.name}"
        if isinstance(error, TooLongError):
            what = f"{where}: {error.what}" if error.what else where
            return TooLongError(what, error.length, error.limit, error.rule)
        if isinstance(error, EncodeError):
            return EncodeError(f"{where}: {error}")
        if not hasattr(model, field.name):
            return EncodeError(f"{where}: there is no value (model_construct makes such models)")
        value = getattr(model, field.name)
        if isinstance(error, OverflowError) and field.large is None:
            with contextlib.suppress(OverflowError, EncodeError):  # else it is the codec's own
                length = len(field.codec.encode(value))
                return TooLongError(where, length, MAX_VALUE_LENGTH, _VALUE_RULE)
        if isinstance(error, UnicodeEncodeError):
            return EncodeError(f"{where}: a text with surrogates, which UTF-8 can't write")
        return _with_cause(
            EncodeError(
                f"{where}: {type(field.codec).__name__} can't write a value of type"
                f" {type(value).__name__} ({type(error).__name__})"
            ),
            error,
        )

    def decode_failure(self, at: int, error: Exception) -> DecodeError:
        """Say what could not be read, and why. Slow: for the exceptional case.

        Args:
            at: the index of the field at work; their number if it was the model as a whole.
            error: what went wrong there.
        """
        if isinstance(error, ValidationError):
            error = decode_error(error)
        if isinstance(error, _UnknownKeyError):
            key: bytes = error.args[0]
            return DecodeError("no such field", (key.decode("utf-8", "backslashreplace"),))
        location = (self.fields[at].name,) if at < len(self.fields) else ()
        if isinstance(error, DecodeError):
            return error.within(*location)
        if isinstance(error, UnicodeDecodeError):
            return DecodeError("not UTF-8", location)
        if isinstance(error, RecursionError):
            return DecodeError("nested too deeply", location)
        return _with_cause(DecodeError(f"{type(error).__name__} while reading it", location), error)

    def refuse_unknown_keys(self, box: Box) -> None:
        """Refuse keys that are no field's, for a model with `extra="forbid"`.

        Keys that begin with an underscore are let through: the protocol and its extensions use
        them.
        """
        known = {key for field in self.fields for key in field.keys_in(box)}
        for key in box:
            if key not in known and not key.startswith(b"_"):
                raise _UnknownKeyError(key)


class _UnknownKeyError(Exception):
    """A key that is no field's, in a box for a model that forbids them."""


_VALUE_RULE: Final = (
    f"AMP carries at most {MAX_VALUE_LENGTH:,} in one value. Mark the field with Large() on both"
    " sides to send it in slices"
)


def _with_cause(error: _E, cause: Exception) -> _E:
    error.__cause__ = cause
    return error
