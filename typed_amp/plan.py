"""The plan of a model: how its fields become pairs of a box, and a box its fields.

Rule of this module: what can be known from the class is worked out once, when the class is
written. A call then runs two straight-line functions that hold keys and codecs as constants.

Models are pydantic models, dataclasses of the standard library and pydantic's dataclasses.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError

from typed_amp.box import (
    MAX_KEY_LENGTH,
    MAX_VALUE_LENGTH,
    RESERVED_KEYS,
    Box,
    decode_boxes,
    printable,
)
from typed_amp.codecs import (
    BytesCodec,
    Codec,
    IntegerCodec,
    TextCodec,
    codec_for,
    decode_error,
    split_annotated,
)
from typed_amp.errors import DecodeError, DefinitionError, EncodeError, TooLongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic.fields import FieldInfo

_E = TypeVar("_E", bound=Exception)

__all__ = [
    "Field",
    "Key",
    "Plan",
    "RowsCodec",
    "UnresolvedError",
    "is_model",
    "plan_for",
    "substitute",
]


class Key:
    """Names the key on the wire, where it isn't the field's name: `Annotated[str, Key("from")]`.

    Args:
        key: 1 to 255 bytes; a text is written in UTF-8.
    """

    __slots__ = ("key",)

    def __init__(self, key: str | bytes) -> None:
        self.key: bytes = key.encode() if isinstance(key, str) else key

    def __repr__(self) -> str:
        return f"Key({printable(self.key)!r})"


class UnresolvedError(Exception):
    """The class names others that don't exist yet, or isn't given its type parameters.

    Not an error of the user's: the plan is made when the class is first used.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field of a model and its pair in a box.

    Attributes:
        name: the field's name.
        key: the key on the wire.
        codec: turns the value into bytes and back.
        optional: whether None is a value of it; the key is left out for None.
        has_default: whether the model fills it in where the key is missing.
    """

    name: str
    key: bytes
    codec: Codec[Any]
    optional: bool
    has_default: bool


class Plan:
    """How one model is written and read. Made by `plan_for`, once for each class.

    Attributes:
        model: the class.
        fields: its fields, in their order.
        encode: `encode(value, head)` gives the box of a value: `head`, which is pairs already
            written, then the fields' pairs, then the end. Raises `EncodeError` or `TooLongError`.
        decode: `decode(box)` gives the value, validated by the model. Keys that are no field's are
            ignored, unless the model forbids them. Raises `DecodeError`.
        is_complete: whether all of the above is there.
        is_being_made: whether `plan_for` is at it.
    """

    def __init__(self, model: type) -> None:
        self.model: type = model
        self.fields: tuple[Field, ...] = ()
        self.encode: Callable[[Any, bytes], bytes]
        self.decode: Callable[[Mapping[bytes, bytes]], Any]
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
        namespace: dict[str, Any] = {"plan": self, "validate": validate}
        for index, field in enumerate(self.fields):
            namespace[f"encode_{index}"] = field.codec.encode
            namespace[f"decode_{index}"] = field.codec.decode
        # The source is made of field names and keys that Python itself has taken or quoted.
        exec(compile(source, f"<plan of {self.model.__qualname__}>", "exec"), namespace)  # noqa: S102
        self.encode = namespace["encode"]
        self.decode = namespace["decode"]
        self.is_complete = True

    def _encode_source(self) -> Iterable[str]:
        # at: the field at work, so that an error can name it.
        in_dict = issubclass(self.model, (BaseModel, BaseException))
        form, values = b"%b", ["head"]
        yield "def encode(model, head):"
        yield "    at = 0"
        yield "    try:"
        if in_dict:
            yield "        fields = model.__dict__"
        for index, field in enumerate(self.fields):
            value = f"fields[{field.name!r}]" if in_dict else f"model.{field.name}"
            encoded = _INLINE_ENCODE.get(type(field.codec), "encode_{index}({value})")
            pair = len(field.key).to_bytes(2, "big") + field.key
            yield f"        at = {index}"
            if not field.optional:
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
        yield "        raise failure from failure.__cause__"

    def _decode_source(self) -> Iterable[str]:
        yield "def decode(box):"
        yield "    at = 0"
        yield "    values = {}"
        yield "    try:"
        if _forbids_extra(self.model):
            yield "        plan.refuse_unknown_keys(box)"
        for index, field in enumerate(self.fields):
            decoded = _INLINE_DECODE.get(type(field.codec), "decode_{index}(data)")
            yield f"        data = box.get({field.key!r})"
            yield "        if data is not None:"
            yield f"            at = {index}"
            yield f"            values[{field.name!r}] = {decoded.format(index=index)}"
            if field.optional and not field.has_default:
                yield "        else:"
                yield f"            values[{field.name!r}] = None"
        yield f"        at = {len(self.fields)}"
        yield "        return validate(values)"
        yield "    except Exception as error:"
        yield "        failure = plan.decode_failure(at, error)"
        yield "        raise failure from failure.__cause__"

    def encode_failure(self, model: Any, at: int, error: Exception) -> Exception:
        """Say what could not be written, and why. Slow: for the exceptional case.

        Args:
            model: what was to be written.
            at: the index of the field at work.
            error: what went wrong there.
        """
        if not isinstance(model, self.model):
            return EncodeError(f"a {type(model).__name__} is no {self.model.__qualname__}")
        if not self.fields:
            return error
        field = self.fields[at]
        where = f"{self.model.__qualname__}.{field.name}"
        if isinstance(error, TooLongError):
            return TooLongError(f"{where}: {error.what}", error.length, error.limit)
        if isinstance(error, EncodeError):
            return EncodeError(f"{where}: {error}")
        if not hasattr(model, field.name):
            return EncodeError(f"{where}: there is no value (model_construct makes such models)")
        value = getattr(model, field.name)
        if isinstance(error, OverflowError):
            length = len(field.codec.encode(value))
            if length > MAX_VALUE_LENGTH:
                return TooLongError(where, length, MAX_VALUE_LENGTH)
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
            return decode_error(error)
        if isinstance(error, _UnknownKeyError):
            return DecodeError("no such field", (printable(error.args[0]),))
        location = (self.fields[at].name,) if at < len(self.fields) else ()
        if isinstance(error, DecodeError):
            return DecodeError(error.reason, (*location, *error.location))
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
        known = {field.key for field in self.fields}
        for key in box:
            if key not in known and not key.startswith(b"_"):
                raise _UnknownKeyError(key)


class _UnknownKeyError(Exception):
    """A key that is no field's, in a box for a model that forbids them."""


_INLINE_ENCODE: Final = {
    BytesCodec: "{value}",
    TextCodec: "str.encode({value})",
}
"""Codecs that are one expression, spared a call: it does what the codec's method does."""

_INLINE_DECODE: Final = {
    BytesCodec: "data",
    TextCodec: "data.decode()",
    IntegerCodec: "int(data) if data.isdigit() and len(data) < 4000 else decode_{index}(data)",
}


class RowsCodec(Codec[Any]):
    """Models as boxes, one after the other (Twisted's `AmpList`).

    Args:
        plan: the plan of the model. May be completed later: models can hold themselves.
        collection_type: list, tuple, set or frozenset; or None for a single model, which is
            exactly one box.
    """

    def __init__(self, plan: Plan, collection_type: Callable[[Iterable[Any]], Any] | None) -> None:
        self._plan = plan
        self._collection_type = collection_type

    def encode(self, value: Any) -> bytes:
        models = [value] if self._collection_type is None else value
        encode = self._plan.encode
        for model in models:
            if not isinstance(model, self._plan.model):
                raise EncodeError(
                    f"a {type(model).__name__} where {self._plan.model.__qualname__} is declared"
                )
        rows = [encode(model, b"") for model in models]
        if self._collection_type in (set, frozenset):
            rows.sort()
        return b"".join(rows)

    def decode(self, data: bytes) -> Any:
        boxes = decode_boxes(data)
        decode = self._plan.decode
        if self._collection_type is None:
            if len(boxes) != 1:
                raise DecodeError(f"{len(boxes)} boxes where one is due")
            return decode(boxes[0])
        rows = []
        for index, box in enumerate(boxes):
            try:
                rows.append(decode(box))
            except DecodeError as error:
                raise DecodeError(error.reason, (index, *error.location)) from None
        return self._collection_type(rows)


def is_model(annotation: Any) -> bool:
    """Whether it is a class whose fields become the pairs of a box."""
    annotation = get_origin(annotation) or annotation
    return isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
    )


def plan_for(model: Any, namespace: Mapping[str, Any] | None = None) -> Plan:
    """Give the plan of a model, making it the first time.

    Args:
        model: a pydantic model or a dataclass; of a generic one with its parameters.
        namespace: local names that its annotations may use, beside those of its module.

    Raises:
        DefinitionError: a field has no codec, or its key is impossible or not its own.
        UnresolvedError: the class is not complete yet.
    """
    cls: type = get_origin(model) or model  # a generic dataclass with parameters is an alias
    if "__amp_plans__" not in cls.__dict__:
        type.__setattr__(cls, "__amp_plans__", {})
    plans: dict[Any, Plan] = cls.__dict__["__amp_plans__"]
    # One object for good: plans of models that hold this one, and wait for it, refer to it.
    plan = plans.setdefault(model, Plan(cls))
    if plan.is_complete or plan.is_being_made:
        return plan
    plan.is_being_made = True
    try:
        if issubclass(cls, BaseModel):
            fields, validate = _pydantic_fields(cls), _pydantic_validator(cls)
        else:
            fields = _dataclass_fields(model, cls, namespace)
            validate = _dataclass_validator(model, namespace)
        plan.complete(_planned(cls, fields, namespace), validate)
    finally:
        plan.is_being_made = False
    return plan


def plan_of_fields(
    cls: type,
    model: type[BaseModel],
    validate: Callable[[Any], Any],
    namespace: Mapping[str, Any] | None,
) -> Plan:
    """Make the plan of a class that holds the fields of a model in its own `__dict__`.

    Args:
        cls: the class.
        model: the pydantic model that declares the fields.
        validate: makes an instance of the class from a dict of the fields' values.
        namespace: local names that the annotations may use, beside those of the module.

    Raises:
        DefinitionError: as `plan_for`.
        UnresolvedError: as `plan_for`.
    """
    if not model.__pydantic_complete__:
        model.model_rebuild(raise_errors=False, _types_namespace=namespace)
    plan = Plan(cls)
    plan.complete(_planned(cls, _pydantic_fields(model), namespace), validate)
    return plan


def local_names() -> Mapping[str, Any] | None:
    """Find the local names around the class that is being written; None in a module's body.

    A class inside a function may name others beside it. Call it from the hook that runs when a
    class is made.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("typed_amp", "pydantic"):
            break
        frame = frame.f_back
    return None if frame.f_locals is frame.f_globals else dict(frame.f_locals)


_RawField: TypeAlias = tuple[str, Any, tuple[Any, ...], bool, Any]
"""Name, annotation, metadata, whether it is required, the default."""


def _planned(
    model: type, fields: Iterable[_RawField], namespace: Mapping[str, Any] | None
) -> Iterable[Field]:
    def rows(annotation: Any, collection_type: Any) -> Codec[Any] | None:
        if not is_model(annotation):
            return None
        return RowsCodec(plan_for(annotation, namespace), collection_type)

    owners: dict[bytes, str] = {}
    for name, annotation, outer_metadata, is_required, default in fields:
        where = f"{model.__qualname__}.{name}"
        annotation, inner_metadata, is_optional = split_annotated(annotation)
        metadata = (*inner_metadata, *outer_metadata)
        if _is_open(annotation):
            raise UnresolvedError(f"{where} is of type {annotation}, a type parameter")
        keys = [mark.key for mark in metadata if isinstance(mark, Key)]
        key = keys[-1] if keys else name.encode()
        if not key or len(key) > MAX_KEY_LENGTH:
            raise DefinitionError(
                f"{where}: its key has {len(key)} bytes; AMP allows 1 to {MAX_KEY_LENGTH}."
                ' Give it another with Annotated[..., Key("...")]'
            )
        if key in RESERVED_KEYS:
            raise DefinitionError(
                f"{where}: the key {printable(key)} belongs to the protocol. Give it another with"
                ' Annotated[..., Key("...")]'
            )
        if key in owners:
            raise DefinitionError(
                f"{where} and {model.__qualname__}.{owners[key]} have one key on the wire,"
                f' {printable(key)}. Give one of them another with Annotated[..., Key("...")]'
            )
        if is_optional and not is_required and default is not None:
            raise DefinitionError(
                f"{where}: None is sent by leaving the key out, and the peer would read the"
                " default. Make the default None, or take None out of the type"
            )
        owners[key] = name
        try:
            codec = codec_for(annotation, metadata, rows)
        except DefinitionError as error:
            raise DefinitionError(f"{where}: {error}") from None
        yield Field(name, key, codec, is_optional, not is_required)


def _pydantic_fields(cls: type[BaseModel]) -> Iterable[_RawField]:
    if issubclass(cls, RootModel):
        raise DefinitionError(
            f"{cls.__qualname__} is a RootModel: it has no fields to be the pairs of a box. Use a"
            " BaseModel, or Json() where it is a field's type"
        )
    if not cls.__pydantic_complete__:
        raise UnresolvedError(cls.__qualname__)
    return _field_infos(cls.model_fields)


def _field_infos(fields: Mapping[str, FieldInfo]) -> Iterable[_RawField]:
    for name, field in fields.items():
        # A factory's value is not known beforehand; an object of its own stands for it.
        default = field.default if field.default_factory is None else field
        yield name, field.annotation, tuple(field.metadata), field.is_required(), default


def _pydantic_validator(cls: type[BaseModel]) -> Callable[[Any], Any]:
    validate = cls.__pydantic_validator__.validate_python
    if any(field.validation_alias for field in cls.model_fields.values()):
        return partial(validate, by_alias=False, by_name=True)
    return validate


def _dataclass_fields(
    model: Any, cls: type, namespace: Mapping[str, Any] | None
) -> Iterable[_RawField]:
    infos: Mapping[str, FieldInfo] | None = getattr(cls, "__pydantic_fields__", None)
    try:
        hints = get_type_hints(cls, localns=dict(namespace or {}), include_extras=True)
    except NameError as error:
        raise UnresolvedError(str(error)) from None
    arguments = dict(zip(getattr(cls, "__parameters__", ()), get_args(model), strict=False))
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        annotation = substitute(hints[field.name], arguments)
        if infos is not None and field.name in infos:
            info = infos[field.name]
            default = info.default if info.default_factory is None else info
            yield field.name, annotation, tuple(info.metadata), info.is_required(), default
        elif field.default_factory is not dataclasses.MISSING:
            yield field.name, annotation, (), False, field
        else:
            is_required = field.default is dataclasses.MISSING
            yield field.name, annotation, (), is_required, field.default


def _dataclass_validator(model: Any, namespace: Mapping[str, Any] | None) -> Callable[[Any], Any]:
    adapter = TypeAdapter[Any](model)
    if not adapter.pydantic_complete:
        adapter.rebuild(raise_errors=False, _types_namespace=namespace)
    if not adapter.pydantic_complete:
        raise UnresolvedError(f"{model!r} is not fully defined")
    # The values have their exact types already. A strict dataclass would ask for an instance of
    # itself where it is given its fields.
    return partial(adapter.validator.validate_python, strict=False, by_alias=False, by_name=True)


def substitute(annotation: Any, arguments: Mapping[Any, Any]) -> Any:
    """Put types in the place of type parameters."""
    if isinstance(annotation, TypeVar):
        return arguments.get(annotation, annotation)
    # Models have parameters of their own; of other types only aliases, such as list[T], do.
    generic: Any = getattr(annotation, "__pydantic_generic_metadata__", None)
    if generic is not None:
        parameters = generic["parameters"]
    else:
        parameters = () if isinstance(annotation, type) else _parameters(annotation)
    if not parameters:
        return annotation
    values = tuple(arguments.get(parameter, parameter) for parameter in parameters)
    generic_type: Any = annotation
    return generic_type[values]


def _is_open(annotation: Any) -> bool:
    """Whether type parameters stand in it. Models are asked for their fields instead."""
    if isinstance(annotation, type):
        return False
    return isinstance(annotation, TypeVar) or bool(_parameters(annotation))


def _parameters(annotation: Any) -> tuple[Any, ...]:
    parameters: tuple[Any, ...] = getattr(annotation, "__parameters__", ())
    return parameters


def _forbids_extra(model: type) -> bool:
    config = getattr(model, "model_config", None) or getattr(model, "__pydantic_config__", {})
    return bool(config.get("extra") == "forbid")


def _with_cause(error: _E, cause: Exception) -> _E:
    error.__cause__ = cause
    return error
