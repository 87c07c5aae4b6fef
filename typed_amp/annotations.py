"""Which codec an annotation gets.

Rule of this module: what it can't write it refuses, and says what to do about it; it never guesses.
"""

from __future__ import annotations

import enum
from datetime import datetime
from decimal import Decimal
from pathlib import PurePath
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import (
    AwareDatetime,
    EncodedBytes,
    EncodedStr,
    FutureDatetime,
    PastDatetime,
    Secret,
    SecretBytes,
    SecretStr,
    TypeAdapter,
)
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError

from typed_amp.codecs import (
    BooleanCodec,
    BytesCodec,
    Codec,
    DateTimeCodec,
    DecimalCodec,
    EnumCodec,
    FloatCodec,
    IntegerCodec,
    Json,
    JsonCodec,
    JsonStringCodec,
    ListCodec,
    PathCodec,
    SecretCodec,
    TextCodec,
)
from typed_amp.descriptors import Descriptor, DescriptorCodec
from typed_amp.errors import DefinitionError
from typed_amp.large import Large

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["codec_for", "large_of", "only_mark", "split_annotated"]

M = TypeVar("M")

_SCALARS: Final[dict[Any, Codec[Any]]] = {
    int: IntegerCodec(),
    bytes: BytesCodec(),
    str: TextCodec(),
    bool: BooleanCodec(),
    float: FloatCodec(),
    Decimal: DecimalCodec(),
    datetime: DateTimeCodec(),
    AwareDatetime: DateTimeCodec(),
    FutureDatetime: DateTimeCodec(),
    PastDatetime: DateTimeCodec(),
}

_NEVER_NUMBERS: Final = ("date", "time", "date-time", "duration")
"""Formats of JSON strings of which pydantic reads bare numbers too, as seconds or days."""

_COLLECTIONS: Final = (list, tuple, set, frozenset)


def split_annotated(annotation: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Take an annotation apart: the type, what stands beside it in `Annotated`, whether `None` is
    one of its values. Looks through `NewType` and `type X = ...`."""
    metadata: tuple[Any, ...] = ()
    is_optional = False
    while True:
        annotation = _unwrap_alias(annotation)
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            metadata = (*more, *metadata)
            continue
        annotation, had_none = _without_none(annotation)
        if not had_none:
            return annotation, metadata, is_optional
        is_optional = True


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not NoneType]
        if len(members) < len(get_args(annotation)):
            return (members[0] if len(members) == 1 else Union[tuple(members)]), True  # noqa: UP007
    if get_origin(annotation) is Literal and None in get_args(annotation):
        values = tuple(value for value in get_args(annotation) if value is not None)
        return Literal[values], True
    return annotation, False


def only_mark(metadata: tuple[Any, ...], *kinds: type[M]) -> M | None:
    """Find the mark that is of one of these kinds; None if there is none.

    Raises:
        DefinitionError: there are several.
    """
    # pydantic may repeat one and the same.
    marks = {id(mark): mark for mark in metadata if isinstance(mark, kinds)}
    if len(marks) > 1:
        names = " and ".join(type(mark).__name__ for mark in marks.values())
        raise DefinitionError(f"{names} stand beside one type in Annotated[...]; keep one of them")
    return next(iter(marks.values()), None)


def large_of(metadata: tuple[Any, ...]) -> Large | None:
    """Find the mark of a field whose values may be long.

    Raises:
        DefinitionError: there are several, or the class stands there.
    """
    for mark in metadata:
        if isinstance(mark, type) and issubclass(mark, Large):
            raise DefinitionError(f"{mark.__name__} stands there as a class; write an instance")
    return only_mark(metadata, Large)


def codec_for(
    annotation: Any, metadata: tuple[Any, ...], rows: Callable[[Any, Any], Codec[Any] | None]
) -> Codec[Any]:
    """Choose the codec of an annotation.

    Args:
        annotation: the type, as `split_annotated` gives it.
        metadata: likewise.
        rows: makes the codec of a collection of models and of a single one, given the model and
            the collection's type or None; returns None for what is no model. Models are made of
            fields, which are the business of a higher layer.

    Raises:
        DefinitionError: it has none, or several.
    """
    only_mark(metadata, Codec, Json, Descriptor)
    for mark in reversed(metadata):
        if isinstance(mark, Codec):
            return mark
        if isinstance(mark, Json):
            return _json_codec(annotation)
        if isinstance(mark, Descriptor):
            return _descriptor_codec(annotation)
        if isinstance(mark, (EncodedBytes, EncodedStr)):
            # Base64 and the like: the model decodes what is written, so the text of it is written.
            return JsonStringCodec(Annotated[(annotation, *metadata)], read_here=False)
        if isinstance(mark, type) and issubclass(mark, (Codec, Json, Descriptor)):
            raise DefinitionError(f"{mark.__name__} stands there as a class; write an instance")
    origin = get_origin(annotation)
    if annotation in _COLLECTIONS or (origin in _COLLECTIONS and not get_args(annotation)):
        raise DefinitionError(
            f"say of what it is a {_shown(origin or annotation)}, or put Json() beside it in"
            " Annotated[...]"
        )
    if origin in _COLLECTIONS:
        return _collection_codec(annotation, origin, rows)
    codec = (
        _scalar_codec(annotation)
        or _secret_codec(annotation, rows)
        or rows(annotation, None)
        or _json_string_codec(annotation, metadata)
    )
    if codec is None:
        raise DefinitionError(
            f"{_shown(annotation)} has no codec; put Json() or a Codec of your own beside it in"
            " Annotated[...]"
        )
    return codec


def _collection_codec(
    annotation: Any, origin: Any, rows: Callable[[Any, Any], Codec[Any] | None]
) -> Codec[Any]:
    element, *others = get_args(annotation)
    if (origin is tuple) != (others == [Ellipsis]):
        raise DefinitionError(
            f"{_shown(annotation)} has no codec: AMP's lists have elements of one type and any"
            " number of them; put Json() beside it in Annotated[...]"
        )
    element, metadata, is_optional = split_annotated(element)
    _refuse_large(metadata, "of a list")
    is_marked = any(isinstance(mark, (Codec, Json)) for mark in metadata)
    if is_optional:
        raise DefinitionError(
            f"{_shown(annotation)} has no codec: AMP's lists have no None; put Json() beside it"
            " in Annotated[...]"
        )
    if not is_marked and (codec := rows(element, origin)):
        return codec
    codec = codec_for(element, metadata, rows)
    if isinstance(codec, DescriptorCodec):
        raise DefinitionError(
            f"{_shown(annotation)} has no codec: descriptors are fields of their own; put them into"
            " a model, and make it a list of that"
        )
    return ListCodec(origin, codec)


def _descriptor_codec(annotation: Any) -> Codec[Any]:
    if annotation is not int:
        raise DefinitionError(f"a Descriptor() is an int, not {_shown(annotation)}")
    return DescriptorCodec()


def _refuse_large(metadata: tuple[Any, ...], where: str) -> None:
    if large_of(metadata) is not None:
        raise DefinitionError(
            f"Large() stands within the brackets {where}; a field is cut as a whole, so put it"
            " around them: Annotated[..., Large()]"
        )


def _secret_codec(
    annotation: Any, rows: Callable[[Any, Any], Codec[Any] | None]
) -> Codec[Any] | None:
    if get_origin(annotation) is None and isinstance(annotation, type):
        if issubclass(annotation, SecretStr):
            return SecretCodec(annotation, TextCodec())
        if issubclass(annotation, SecretBytes):
            return SecretCodec(annotation, BytesCodec())
    hidden = _hidden_type(annotation)
    if hidden is None:
        return None
    hidden, metadata, _ = split_annotated(hidden)
    _refuse_large(metadata, "of a secret")
    return SecretCodec(annotation, codec_for(hidden, metadata, rows))


def _hidden_type(annotation: Any) -> Any:
    """Find what stands in the brackets of a `Secret[...]`, or of one that a class derives from."""
    if get_origin(annotation) is Secret:
        return get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, Secret):
        for base in annotation.__mro__:
            for written in vars(base).get("__orig_bases__", ()):
                if get_origin(written) is Secret:
                    return get_args(written)[0]
    return None


def _json_codec(annotation: Any) -> Codec[Any]:
    try:
        codec = JsonCodec(annotation)
    except PydanticUserError as error:
        raise DefinitionError(f"pydantic has no JSON for {_shown(annotation)}: {error}") from None
    if codec.masks:
        raise DefinitionError(
            f"{_shown(annotation)} has a secret in it, which pydantic writes as asterisks in JSON."
            " Make it a field of its own, or say that it is to be written in clear:"
            " Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value)]"
        )
    return codec


def _scalar_codec(annotation: Any) -> Codec[Any] | None:
    if get_origin(annotation) is Literal:
        return _literal_codec(annotation, get_args(annotation))
    if not isinstance(annotation, type):
        return None
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if issubclass(annotation, enum.Enum):
        members = tuple(member.value for member in annotation)
        return EnumCodec(annotation, _literal_codec(annotation, members))
    if issubclass(annotation, PurePath):
        return PathCodec(annotation)
    return None


def _literal_codec(annotation: Any, values: tuple[Any, ...]) -> Codec[Any]:
    types = {type(value) for value in values}
    if len(types) == 1 and (codec := _scalar_codec(types.pop())):
        return codec
    raise DefinitionError(
        f"{_shown(annotation)} has no codec: its values must all be of one type, and that must"
        " have one; or put Json() beside it in Annotated[...]"
    )


def _json_string_codec(annotation: Any, metadata: tuple[Any, ...]) -> Codec[Any] | None:
    schema = _json_string_schema(annotation)
    if schema is not None:
        may_be_number = schema.get("format") not in _NEVER_NUMBERS
        return JsonStringCodec(annotation, read_here=True, may_be_number=may_be_number)
    annotated = Annotated[(annotation, *metadata)] if metadata else annotation
    if metadata and _json_string_schema(annotated) is not None:
        return JsonStringCodec(annotated, read_here=False)
    return None


def _json_string_schema(annotation: Any) -> dict[str, Any] | None:
    try:
        adapter = TypeAdapter(annotation)
        schemas = [adapter.json_schema(mode=mode) for mode in ("validation", "serialization")]
    except (PydanticUserError, PydanticSerializationError, TypeError):
        return None
    return schemas[0] if all(schema.get("type") == "string" for schema in schemas) else None


def _unwrap_alias(annotation: Any) -> Any:
    """Look through `NewType` and `type X = ...`."""
    while True:
        if _is_type_alias(annotation):
            annotation = annotation.__value__
        elif _is_type_alias(get_origin(annotation)):
            annotation = get_origin(annotation).__value__[get_args(annotation)]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation


def _is_type_alias(annotation: Any) -> bool:
    # By name: typing and typing_extensions each have a class of their own on some Pythons.
    return type(annotation).__name__ == "TypeAliasType"


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
