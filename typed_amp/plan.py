"""The plan of a model: how its fields become pairs of a box, and a box its fields.

Rule of this module: what can be known from the class is worked out once, when the class is
written. A call then runs two straight-line functions that hold keys and codecs as constants.

Models are pydantic models, dataclasses of the standard library and pydantic's dataclasses.
"""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    TypeVar,
)

from pydantic import BaseModel, ValidationError

from typed_amp.box import (
    MAX_VALUE_LENGTH,
    Box,
    decode_boxes,
)
from typed_amp.codecs import (
    BytesCodec,
    Codec,
    IntegerCodec,
    TextCodec,
    decode_error,
)
from typed_amp.descriptors import (
    DescriptorCodec,
    refuse_to_attach,
    refuse_to_claim,
)
from typed_amp.errors import DecodeError, EncodeError, TooLongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typed_amp.large import Large

__all__ = ["Field", "Plan", "RowsCodec"]

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
        is_complete: whether all of the above is there.
        is_being_made: whether `plan_for` is at it.
    """

    def __init__(self, model: type) -> None:
        self.model: type = model
        generic = getattr(model, "__pydantic_generic_metadata__", None)
        self.accepted: type = (generic and generic["origin"]) or model
        self.fields: tuple[Field, ...] = ()
        self.encode: Callable[..., bytes]
        self.decode: Callable[..., Any]
        self.is_complete: bool = False
        self.is_being_made: bool = False

    def complete(self, fields: Iterable[Field], validate: Callable[[Any], Any]) -> None:
        """Compile the two functions.

        Args:
            fields: the model's fields.
            validate: makes a value of the model from a dict of its fields' values.
        """
        self.fields = tuple(fields)
        source = "\n".join([*self._encode_source(), *self._decode_source()])
        namespace: dict[str, Any] = {
            "plan": self,
            "validate": validate,
            "refuse_to_attach": refuse_to_attach,
            "refuse_to_claim": refuse_to_claim,
        }
        for index, field in enumerate(self.fields):
            namespace[f"encode_{index}"] = _checked(field.codec)
            namespace[f"decode_{index}"] = field.codec.decode
            if field.large is not None:
                namespace[f"cut_{index}"] = partial(field.large.encode, field.key)
                namespace[f"join_{index}"] = partial(field.large.decode, field.key)
        # The source is made of field names and keys that Python itself has taken or quoted.
        exec(compile(source, f"<plan of {self.model.__qualname__}>", "exec"), namespace)  # noqa: S102
        self.encode = namespace["encode"]
        self.decode = namespace["decode"]
        self.is_complete = True

    def _encode_source(self) -> Iterable[str]:
        # at: the field at work, so that an error can name it.
        in_dict = issubclass(self.model, (BaseModel, BaseException))
        form, values = b"%b", ["head"]
        yield "def encode(model, head, attach=refuse_to_attach):"
        yield "    at = 0"
        yield "    try:"
        if in_dict:
            yield "        fields = model.__dict__"
        for index, field in enumerate(self.fields):
            value = f"fields[{field.name!r}]" if in_dict else f"model.{field.name}"
            encoded = _INLINE_ENCODE.get(type(field.codec), "encode_{index}({value})")
            pair = len(field.key).to_bytes(2, "big") + field.key
            yield f"        at = {index}"
            if field.large is not None:
                # Its pairs are complete already, however many there are.
                yield f"        v{index} = {value}"
                encoded = f"cut_{index}({encoded.format(index=index, value=f'v{index}')})"
                if field.optional:
                    encoded += f" if v{index} is not None else b''"
                yield f"        v{index} = {encoded}"
                form += b"%b"
                values.append(f"v{index}")
            elif not field.optional:
                yield f"        v{index} = {encoded.format(index=index, value=value)}"
                yield f"        n{index} = len(v{index}).to_bytes(2, 'big')"
                form += pair.replace(b"%", b"%%") + b"%b%b"
                values += [f"n{index}", f"v{index}"]
            else:
                yield f"        v{index} = {value}"
                yield f"        if v{index} is not None:"
                encoded = encoded.format(index=index, value=f"v{index}")
                yield f"            v{index} = {encoded}"
                yield f"            n{index} = len(v{index}).to_bytes(2, 'big')"
                yield f"            v{index} = b'%b%b%b' % ({pair!r}, n{index}, v{index})"
                yield "        else:"
                yield f"            v{index} = b''"
                form += b"%b"
                values.append(f"v{index}")
        form += b"\0\0"
        yield f"        return {form!r} % ({', '.join(values)},)"
        yield "    except Exception as error:"
        yield "        failure = plan.encode_failure(model, at, error)"
        yield "        try:"
        yield "            raise failure from failure.__cause__"
        yield "        finally:"
        yield "            del failure  # which holds its traceback, and that this frame"

    def _decode_source(self) -> Iterable[str]:
        yield "def decode(box, claim=refuse_to_claim):"
        yield "    at = 0"
        yield "    values = {}"
        yield "    try:"
        if _forbids_extra(self.model):
            yield "        plan.refuse_unknown_keys(box)"
        for index, field in enumerate(self.fields):
            decoded = _INLINE_DECODE.get(type(field.codec), "decode_{index}(data)")
            if field.large is None:
                yield f"        data = box.get({field.key!r})"
            else:
                yield f"        at = {index}"
                yield f"        data = join_{index}(box)"
                if field.large.zero_based and not (field.optional or field.has_default):
                    yield "        if data is None:"
                    yield "            data = b''"
            yield "        if data is not None:"
            if field.large is None:
                yield f"            at = {index}"
            yield f"            values[{field.name!r}] = {decoded.format(index=index)}"
            if field.optional and not field.has_default:
                yield "        else:"
                yield f"            values[{field.name!r}] = None"
        yield f"        at = {len(self.fields)}"
        yield "        return validate(values)"
        yield "    except Exception as error:"
        yield "        failure = plan.decode_failure(at, error)"
        yield "        try:"
        yield "            raise failure from failure.__cause__"
        yield "        finally:"
        yield "            del failure  # which holds its traceback, and that this frame"

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


def _checked(codec: Codec[Any]) -> Callable[[Any], bytes]:
    """Hold a codec of the user's own to its promise."""
    if type(codec).__module__.startswith("typed_amp."):
        return codec.encode

    def encode(value: Any) -> bytes:
        data: object = codec.encode(value)
        if not isinstance(data, bytes):
            raise EncodeError(
                f"{type(codec).__name__}.encode returned {type(data).__name__}, not bytes"
            )
        return data

    return encode


class _UnknownKeyError(Exception):
    """A key that is no field's, in a box for a model that forbids them."""


_VALUE_RULE: Final = (
    f"AMP carries at most {MAX_VALUE_LENGTH:,} in one value. Mark the field with Large() on both"
    " sides to send it in slices"
)


class RowsCodec(Codec[Any]):
    """Models as boxes, one after the other (Twisted's `AmpList`).

    Args:
        plan: the plan of the model. May be completed later: models can hold themselves.
        collection_type: list, tuple, set or frozenset; or None for a single model, which is
            exactly one box.
    """

    def __init__(self, plan: Plan, collection_type: Callable[[Iterable[Any]], Any] | None) -> None:
        self.plan: Plan = plan
        self._collection_type = collection_type

    def models(self, value: Any) -> Iterable[Any]:
        """Give the models in a value: itself, or its elements."""
        return [value] if self._collection_type is None else value

    def encode(self, value: Any, attach: Callable[[int], int] = refuse_to_attach) -> bytes:
        models = self.models(value)
        encode = self.plan.encode
        for model in models:
            if not isinstance(model, self.plan.accepted):
                raise EncodeError(
                    f"a {type(model).__name__} where {self.plan.model.__qualname__} is declared"
                )
        rows = [encode(model, b"", attach) for model in models]
        if self._collection_type in (set, frozenset):
            rows.sort()
        return b"".join(rows)

    def decode(self, data: bytes, claim: Callable[[int], int] = refuse_to_claim) -> Any:
        boxes = decode_boxes(data)
        decode = self.plan.decode
        if self._collection_type is None:
            if len(boxes) != 1:
                raise DecodeError(f"{len(boxes)} boxes where one is due")
            return decode(boxes[0], claim)
        rows = []
        for index, box in enumerate(boxes):
            try:
                rows.append(decode(box, claim))
            except DecodeError as error:
                failure = error.within(index)
                if claim is refuse_to_claim:  # else what follows would take descriptors
                    self._note_others(failure, boxes, index + 1)
                raise failure from None
        return self._collection_type(rows)

    def _note_others(self, failure: DecodeError, boxes: list[Box], begin: int) -> None:
        """Have an error about one row tell of those behind it as well."""
        for index in range(begin, len(boxes)):
            if len(failure.errors) >= _MOST_ERRORS:
                return
            try:
                self.plan.decode(boxes[index])
            except DecodeError as error:
                failure.errors += error.within(index).errors


_MOST_ERRORS: Final = 20
"""Of how many errors in rows an error tells: a few help, and all of them cost time."""

_INLINE_ENCODE: Final = {
    BytesCodec: "{value} if type({value}) is bytes else encode_{index}({value})",
    TextCodec: "str.encode({value})",
    DescriptorCodec: "encode_{index}(attach({value}))",
    RowsCodec: "encode_{index}({value}, attach)",
}
"""Codecs that are one expression, spared a call: it does what the codec's method does. And those
that need more than the value."""

_INLINE_DECODE: Final = {
    BytesCodec: "data",
    TextCodec: "data.decode()",
    IntegerCodec: "int(data) if data.isdigit() and len(data) < 640 else decode_{index}(data)",
    DescriptorCodec: "claim(decode_{index}(data))",
    RowsCodec: "decode_{index}(data, claim)",
}


def _forbids_extra(model: type) -> bool:
    is_pydantic = issubclass(model, BaseModel)
    config = getattr(model, "model_config" if is_pydantic else "__pydantic_config__", {})
    return bool(config.get("extra") == "forbid")


def _with_cause(error: _E, cause: Exception) -> _E:
    error.__cause__ = cause
    return error
