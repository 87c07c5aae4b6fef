"""From a class to its plan: reading its fields, choosing their keys and codecs.

Rule of this module: a class is judged where it is written. What it names may be written later; then
the judging waits until it is used.
"""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, RootModel, TypeAdapter

from typed_amp.annotations import codec_for, large_of, only_mark, split_annotated
from typed_amp.box import MAX_KEY_LENGTH, RESERVED_KEYS, printable
from typed_amp.errors import DefinitionError
from typed_amp.plan import Field, Plan
from typed_amp.rows import RowsCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType

    from pydantic.fields import FieldInfo

    from typed_amp.codecs import Codec
    from typed_amp.large import Large

__all__ = [
    "Key",
    "UnresolvedError",
    "is_model",
    "local_names",
    "plan_for",
    "plan_of_fields",
    "substitute",
]


class Key:
    """Names the key on the wire, where it isn't the field's name: `Annotated[str, Key("from")]`.

    Args:
        key: 1 to 255 bytes; a text is written in UTF-8.

    Raises:
        DefinitionError: it is neither bytes nor a text that UTF-8 can write.
    """

    __slots__ = ("key",)

    def __init__(self, key: str | bytes) -> None:
        try:
            self.key: bytes = key.encode() if isinstance(key, str) else bytes(memoryview(key))
        except (TypeError, UnicodeEncodeError):
            raise DefinitionError(f"Key() takes bytes or a text, not {key!r}") from None

    def __repr__(self) -> str:
        return f"Key({printable(self.key)!r})"


class UnresolvedError(Exception):
    """The class names others that don't exist yet, or isn't given its type parameters.

    Not an error of the user's: the plan is made when the class is first used.
    """


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
    if plan.carries_descriptors:
        raise DefinitionError(f"{cls.__qualname__}: an error can't carry a Descriptor()")
    return plan


def local_names() -> Mapping[str, Any] | None:
    """Find the local names around the class that is being written; None in a module's body.

    A class inside a function may name others beside it. Call it from the hook that runs when a
    class is made.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame):
        frame = frame.f_back
    return None if frame.f_locals is frame.f_globals else dict(frame.f_locals)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("typed_amp", "pydantic")


_RawField: TypeAlias = tuple[str, Any, tuple[Any, ...], bool, Any]
"""Name, annotation, metadata, whether it is required, the default."""


def _planned(
    model: type, fields: Iterable[_RawField], namespace: Mapping[str, Any] | None
) -> Iterable[Field]:
    def rows(annotation: Any, collection_type: Any) -> Codec[Any] | None:
        if not is_model(annotation):
            return None
        return RowsCodec(plan_for(annotation, namespace), collection_type)

    owners: dict[bytes, tuple[str, Large | None]] = {}
    for name, annotation, outer_metadata, is_required, default in fields:
        where = f"{model.__qualname__}.{name}"
        annotation, inner_metadata, is_optional = split_annotated(annotation)
        metadata = (*inner_metadata, *outer_metadata)
        if _is_open(annotation):
            raise UnresolvedError(f"{where} is of type {annotation}, a type parameter")
        try:
            named = only_mark(metadata, Key)
            large = large_of(metadata)
        except DefinitionError as error:
            raise DefinitionError(f"{where}: {error}") from None
        key = named.key if named else name.encode()
        max_key_length = large.max_key_length() if large else MAX_KEY_LENGTH
        if not key or len(key) > max_key_length:
            raise DefinitionError(
                f"{where}: its key has {len(key)} bytes; AMP allows 1 to {max_key_length}"
                f"{', so that the keys of its slices fit too' if large else ''}."
                ' Give it another with Annotated[..., Key("...")]'
            )
        if key in RESERVED_KEYS:
            raise DefinitionError(
                f"{where}: the key {printable(key)} belongs to the protocol. Give it another with"
                ' Annotated[..., Key("...")]'
            )
        if key in owners:
            raise DefinitionError(
                f"{where} and {model.__qualname__}.{owners[key][0]} have one key on the wire,"
                f' {printable(key)}. Give one of them another with Annotated[..., Key("...")]'
            )
        if is_optional and not is_required and default is not None:
            raise DefinitionError(
                f"{where}: None is sent by leaving the key out, and the peer would read the"
                " default. Make the default None, or take None out of the type"
            )
        owners[key] = (name, large)
        try:
            codec = codec_for(annotation, metadata, rows)
        except DefinitionError as error:
            raise DefinitionError(f"{where}: {error}") from None
        yield Field(name, key, codec, is_optional, not is_required, large)
    _check_slices(model, owners)


def _check_slices(model: type, owners: Mapping[bytes, tuple[str, Large | None]]) -> None:
    """See that the keys of slices are nobody else's."""
    for key, (name, large) in owners.items():
        for other_key, (other, _) in owners.items():
            if large is not None and large.owns(key, other_key):
                raise DefinitionError(
                    f"{model.__qualname__}.{other}: a slice of {model.__qualname__}.{name}, which"
                    f" is marked with Large(), may have its key, {printable(other_key)}. Give one"
                    ' of them another with Annotated[..., Key("...")]'
                )


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
    infos: Mapping[str, FieldInfo] = {}
    if getattr(cls, "__pydantic_complete__", False):
        infos = getattr(cls, "__pydantic_fields__", {})
    try:
        hints: Mapping[str, Any]
        if all(field.name in infos for field in dataclasses.fields(cls) if field.init):
            hints = {name: info.annotation for name, info in infos.items()}
        else:
            hints = get_type_hints(cls, localns=dict(namespace or {}), include_extras=True)
    except NameError as error:
        raise UnresolvedError(str(error)) from None
    arguments = _type_arguments(cls, get_args(model))
    for name, field in cls.__dataclass_fields__.items():  # type: ignore[attr-defined]
        is_init_var = repr(field._field_type) == "_FIELD_INITVAR"
        if is_init_var and field.default is dataclasses.MISSING:
            raise DefinitionError(
                f"{cls.__qualname__}.{name}: an InitVar can't be sent; give it a default"
            )
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        annotation = substitute(hints[field.name], arguments)
        if field.name in infos:
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


def _type_arguments(cls: type, values: Iterable[Any]) -> dict[Any, Any]:
    """Say what stands for each type parameter of a class and of its generic bases."""
    arguments = dict(zip(getattr(cls, "__parameters__", ()), values, strict=False))
    for base in getattr(cls, "__orig_bases__", ()):
        origin = get_origin(base)
        if isinstance(origin, type) and origin is not Generic:
            given = [substitute(value, arguments) for value in get_args(base)]
            arguments = {**_type_arguments(origin, given), **arguments}
    return arguments


def _is_open(annotation: Any) -> bool:
    """Whether type parameters stand in it. Models are asked for their fields instead."""
    if isinstance(annotation, type):
        return False
    return isinstance(annotation, TypeVar) or bool(_parameters(annotation))


def _parameters(annotation: Any) -> tuple[Any, ...]:
    parameters: tuple[Any, ...] = getattr(annotation, "__parameters__", ())
    return parameters
