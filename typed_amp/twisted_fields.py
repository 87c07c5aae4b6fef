"""From Twisted's arguments to the fields of models.

Rule of this module: a field is written as Twisted's argument is, down to the last byte, or it is a
comment that says why not.
"""

from __future__ import annotations

import builtins
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel

from typed_amp.box import MAX_KEY_LENGTH, RESERVED_KEYS
from typed_amp.python_source import (
    INDENT,
    Imports,
    Names,
    bytes_literal,
    comment_lines,
    docstring_lines,
    field_lines,
    identifier,
    text_literal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "CantTurnError",
    "Field",
    "FieldWriter",
    "Sheet",
    "differs",
    "place_of",
]

_IMPORTED: Final = (
    "Annotated", "BaseModel", "Command", "ConfigDict", "Decimal", "Descriptor", "Key", "Large",
    "Path", "StartTLS", "SwitchProtocol", "datetime",
)  # fmt: skip
"""The names that the source imports, and that nothing else in it may have."""

_TYPES: Final = {
    "Integer": "int",
    "String": "bytes",
    "Unicode": "str",
    "Boolean": "bool",
    "Float": "float",
    "Decimal": "Decimal",
    "DateTime": "datetime",
    "Path": "Path",
}
"""The arguments that carry one value each, and its type."""

_TYPE_MODULES: Final = {"Decimal": "decimal", "datetime": "datetime", "Path": "pathlib"}

_ARGUMENT_METHODS: Final = (
    "fromBox", "toBox", "retrieve", "fromStringProto", "toStringProto", "fromString", "toString",
)  # fmt: skip
"""What says how an argument is written. A subclass that leaves them alone is its base."""


class CantTurnError(Exception):
    """Why something has no counterpart here.

    Attributes:
        suggestion: the annotation that a field could have, once somebody has written what is
            missing.
    """

    def __init__(self, reason: str, suggestion: str = "") -> None:
        super().__init__(reason)
        self.suggestion = suggestion


class Field(NamedTuple):
    """A field, written.

    Attributes:
        lines: its lines, or those of the comment in its place.
        holds_decimals: whether decimals are in it.
    """

    lines: tuple[str, ...]
    holds_decimals: bool


class Sheet:
    """The module that is being written.

    Attributes:
        imports: its imports.
        names: its names.
        classes: its classes, each as lines.
        left_out: how many things are comments, since they could not be turned.
    """

    def __init__(self) -> None:
        self.imports: Imports = Imports([Path.cwd(), Path.cwd() / "src"])
        self.names: Names = Names([*dir(builtins), *_IMPORTED])
        self.classes: list[list[str]] = []
        self.left_out: int = 0

    def add_model(self, name: str, description: str, fields: Sequence[Field]) -> None:
        """Add a pydantic model: an answer or a row."""
        self.imports.add("pydantic", "BaseModel")
        if any(field.holds_decimals for field in fields):
            self.imports.add("pydantic", "ConfigDict")
            config = (f"{INDENT}model_config = ConfigDict(allow_inf_nan=True)", "")
            fields = [Field(config, False), *fields]
        self.add_class([f"class {name}(BaseModel):"], description, fields)

    def add_class(self, head: list[str], description: str, fields: Sequence[Field]) -> None:
        """Add a class.

        Args:
            head: what stands before its body.
            description: its docstring.
            fields: its fields.
        """
        documentation = docstring_lines(description)
        body = [line for field in fields for line in field.lines]
        if documentation and body:
            documentation.append("")
        if not documentation and all(line.lstrip().startswith("#") for line in body):
            body.append(f"{INDENT}pass")
        self.classes.append([*head, *documentation, *body])

    def comment(self, text: str, indent: str = "") -> list[str]:
        """Write a comment on something that could not be turned."""
        self.left_out += 1
        return comment_lines(text, indent)


class FieldWriter:
    """Writes the fields of commands, answers and rows, and the models for rows.

    Args:
        amp: `twisted.protocols.amp`.
        sheet: where to write.
    """

    def __init__(self, amp: Any, sheet: Sheet) -> None:
        self._amp = amp
        self._sheet = sheet
        self._row_names: dict[tuple[Field, ...], str] = {}

    def fields(
        self, pairs: Iterable[tuple[bytes, Any]], owner: str, shown_owner: str
    ) -> list[Field]:
        """Write the fields of a class.

        Args:
            pairs: as Twisted has them.
            owner: the class.
            shown_owner: the same, as messages say it.
        """
        fields: list[Field] = []
        names = Names(_FIELD_NAMES_TAKEN)
        keys: set[bytes] = set()
        for key, argument in pairs:
            if self.is_local(argument):
                continue  # it never travels
            is_optional = bool(getattr(argument, "optional", False))
            name = identifier(key.decode("utf-8", "replace"))
            if name.startswith(_PROTECTED):
                name = f"field_{name}"
            name = names.claim(name, f"{name}_")
            try:
                _check_key(key, keys)
                annotation = self._type(argument, f"{owner}{_camel(name)}Row", shown_owner, name)
            except CantTurnError as reason:
                lines = self._sheet.comment(f"{name} is left out: {reason}", INDENT)
                lines += _suggested(name, key, reason.suggestion, is_optional=is_optional)
                fields.append(Field(tuple(lines), False))
                continue
            keys.add(key)
            marks: list[str] = []
            if annotation == _DESCRIPTOR:
                annotation = "int"
                marks.append("Descriptor()")
                self._sheet.imports.add("typed_amp", "Descriptor")
            if key != name.encode():
                marks.append(f"Key({_key_literal(key)})")
                self._sheet.imports.add("typed_amp", "Key")
            if marks:
                self._sheet.imports.add("typing", "Annotated")
            if is_optional:
                annotation += " | None"
            lines = field_lines(name, annotation, marks, "None" * is_optional)
            fields.append(Field(tuple(lines), "Decimal" in annotation))
        return fields

    def _type(self, argument: Any, row_name: str, owner: str, name: str) -> str:
        """Give the annotation for an argument, importing and writing what it names."""
        amp = self._amp
        known = self._known_class(argument)
        if known is amp.Descriptor:
            return _DESCRIPTOR
        if known is amp.ListOf:
            element = argument.elementType
            try:
                if self._known_class(element) is amp.AmpList:
                    raise CantTurnError("Twisted can't write a ListOf of an AmpList either.")
                element_type = self._type(element, row_name, owner, name)
            except CantTurnError as reason:
                within = reason.suggestion and f"list[{reason.suggestion}]"
                raise CantTurnError(str(reason), within) from None
            # In a list Twisted writes a descriptor as the integer that it is.
            return f"list[{'int' if element_type == _DESCRIPTOR else element_type}]"
        if known is amp.AmpList:
            path = f"{owner}.{name}"
            fields = self.fields(argument.subargs, row_name.removesuffix("Row"), path)
            return f"list[{self._row(tuple(fields), row_name, path)}]"
        annotation = _TYPES[known.__name__]
        if annotation in _TYPE_MODULES:
            self._sheet.imports.add(_TYPE_MODULES[annotation], annotation)
        return annotation

    def _known_class(self, argument: Any) -> Any:
        """Give the class of Twisted's that an argument is written as."""
        cls = type(argument)
        known = [getattr(self._amp, name) for name in (*_TYPES, "ListOf", "AmpList", "Descriptor")]
        base = next((base for base in cls.__mro__ if base in known), self._amp.Argument)
        changed = [name for name in _ARGUMENT_METHODS if differs(cls, base, name)]
        if base in known and not changed:
            return base
        place = f"{place_of(cls)} is an argument class of its own"
        if {"fromBox", "toBox"} & set(changed):
            raise CantTurnError(
                f"{place}, which reads and writes keys by itself. If that is for values over"
                " 65,535 bytes, this may do it; see the documentation:",
                "Annotated[bytes, Large()]",
            )
        raise CantTurnError(
            f"{place}. Write a Codec that does what its fromString and toString do, and then:",
            "Annotated[YourType, YourCodec()]",
        )

    def _row(self, fields: tuple[Field, ...], name: str, place: str) -> str:
        """Give the name of the model for rows with these fields, writing it the first time."""
        if fields not in self._row_names:
            self._row_names[fields] = self._sheet.names.claim(name)
            self._sheet.add_model(self._row_names[fields], f"A row of {place}.", fields)
        return self._row_names[fields]

    def is_local(self, argument: Any) -> bool:
        """Whether it is one of StartTLS's, which look like arguments and never travel."""
        local: type = self._amp._LocalArgument
        return isinstance(argument, local)


_DESCRIPTOR: Final = "Descriptor"

_FIELD_NAMES_TAKEN: Final = frozenset(
    {*dir(BaseModel), *_TYPES.values(), "list", *_IMPORTED, "self", "cls"}
)
"""Names that mean something else in the body of a model."""


_PROTECTED: Final = ("model_dump", "model_validate")
"""How no field of pydantic's may begin."""


def _check_key(key: bytes, keys: set[bytes]) -> None:
    if not key or len(key) > MAX_KEY_LENGTH:
        raise CantTurnError(f"its key has {len(key)} bytes; AMP allows 1 to {MAX_KEY_LENGTH}.")
    if key in RESERVED_KEYS:
        raise CantTurnError(f"the key {bytes_literal(key)} belongs to the protocol.")
    if key in keys:
        raise CantTurnError(f"the key {bytes_literal(key)} stands there twice.")


def _key_literal(key: bytes) -> str:
    try:
        return text_literal(key.decode())
    except UnicodeDecodeError:
        return bytes_literal(key)


def _suggested(name: str, key: bytes, suggestion: str, *, is_optional: bool) -> Iterator[str]:
    """Write a field as a comment."""
    if suggestion:
        key_mark = "" if key == name.encode() else f", Key({_key_literal(key)})"
        annotation = f"{suggestion} | None" if is_optional else suggestion
        if key_mark:
            annotation = f"Annotated[{annotation}{key_mark}]"
        yield f"{INDENT}# {name}: {annotation}{' = None' * is_optional}"


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def differs(cls: type, base: type, name: str) -> bool:
    """Whether a class has something of its own under a name."""
    own, inherited = (inspect.getattr_static(owner, name, None) for owner in (cls, base))
    return own is not inherited


def place_of(cls: type) -> str:
    """Say where a class is written."""
    try:
        line = f" (line {inspect.getsourcelines(cls)[1]})"
    except (OSError, TypeError):
        line = ""
    return f"{cls.__module__}.{cls.__qualname__}{line}"
