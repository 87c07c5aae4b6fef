"""Types of arguments as both libraries write them, with values of each for hypothesis."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, create_model
from twisted.protocols import amp
from twisted.python.filepath import FilePath

from typed_amp import Command


@dataclass(frozen=True)
class Kind:
    """One type: our annotation, what makes Twisted's argument, and values as plain Python."""

    annotation: Any
    argument: Callable[..., Any]
    values: st.SearchStrategy[Any]


def list_of(kind: Kind) -> Kind:
    annotation: Any = list
    values = st.lists(kind.values, max_size=5)
    return Kind(annotation[kind.annotation], partial(amp.ListOf, kind.argument()), values)


def rows_of(**kinds: Kind) -> Kind:
    """Rows with these fields. Twisted sorts keys, so give them in their order."""
    fields: Any = {name: (kind.annotation, ...) for name, kind in kinds.items()}
    row: type[BaseModel] = create_model("Row", __config__=ConfigDict(allow_inf_nan=True), **fields)
    arguments = [(name.encode(), kind.argument()) for name, kind in kinds.items()]
    values = st.fixed_dictionaries({name: kind.values for name, kind in kinds.items()})
    return Kind(list[row], partial(amp.AmpList, arguments), st.lists(values, max_size=3))


def optional(kind: Kind) -> Kind:
    argument = partial(kind.argument, optional=True)
    return Kind(kind.annotation | None, argument, st.none() | kind.values)


class BothCommands:
    """One command, written for both libraries, with arguments of these kinds."""

    def __init__(self, **kinds: Kind) -> None:
        fields: Any = {name: (kind.annotation, ...) for name, kind in kinds.items()}
        arguments = [(name.encode(), kind.argument()) for name, kind in kinds.items()]
        self.ours: type[Command] = create_model("Both", __base__=Command, **fields)
        self.twisteds: Any = type("Both", (amp.Command,), {"arguments": arguments})
        self.values = st.fixed_dictionaries({name: kind.values for name, kind in kinds.items()})

    def we_write(self, values: dict[str, Any]) -> bytes:
        return self.ours.__amp_signature__().arguments.encode(self.ours(**values), b"")

    def twisted_writes(self, values: dict[str, Any]) -> bytes:
        box = self.twisteds.makeArguments(for_twisted(values), None)
        return bytes(box.serialize())

    def we_read(self, data: bytes) -> Command:
        command: Command = self.ours.__amp_signature__().arguments.decode(box_of(data))
        return command

    def twisted_reads(self, data: bytes) -> dict[str, Any]:
        values: dict[str, Any] = self.twisteds.parseArguments(box_of(data), None)
        return values


def box_of(data: bytes) -> dict[bytes, bytes]:
    """Give the one box in the data, as Twisted reads it."""
    box: dict[bytes, bytes]
    (box,) = amp.parseString(data)
    return box


def for_twisted(value: Any) -> Any:
    match value:
        case Path():
            return FilePath(str(value))
        case list():
            return [for_twisted(item) for item in value]
        case dict():
            return {key: for_twisted(item) for key, item in value.items()}
        case _:
            return value


def offsets(unit: timedelta) -> st.SearchStrategy[tzinfo]:
    """Time zones of every offset that Python allows, in multiples of a unit."""
    most = (timedelta(days=1) - timedelta.resolution) // unit
    return st.integers(-most, most).map(lambda count: timezone(count * unit))


# Python converts no more digits than this by itself, and so neither does Twisted.
BIG = 10**4_299
# FilePath knows absolute paths alone, and takes dots away.
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
ABSOLUTE_PATHS = st.lists(NAMES.filter(lambda name: name not in (".", "..")), max_size=4)

SCALARS = {
    "integer": Kind(int, amp.Integer, st.integers() | st.integers(-BIG, BIG)),
    "string": Kind(bytes, amp.String, st.binary()),
    "unicode": Kind(str, amp.Unicode, st.text()),
    "boolean": Kind(bool, amp.Boolean, st.booleans()),
    "float": Kind(float, amp.Float, st.floats()),
    "decimal": Kind(Decimal, amp.Decimal, st.decimals()),
    "datetime": Kind(datetime, amp.DateTime, st.datetimes(timezones=offsets(timedelta(minutes=1)))),
    "path": Kind(Path, amp.Path, ABSOLUTE_PATHS.map(lambda names: Path("/", *names))),
}
LISTS = {f"list of {name}": list_of(kind) for name, kind in SCALARS.items()}
NESTED_LISTS = {f"list of {name}": list_of(kind) for name, kind in LISTS.items()}
SORTED_SCALARS = dict(sorted(SCALARS.items()))
ROWS = {
    "rows": rows_of(**SORTED_SCALARS),
    "rows of optional fields": rows_of(
        **{name: optional(kind) for name, kind in SORTED_SCALARS.items()}
    ),
    "rows of rows": rows_of(
        a=SCALARS["unicode"],
        b=rows_of(c=LISTS["list of integer"], d=optional(rows_of(e=SCALARS["boolean"]))),
    ),
    "rows without a field": rows_of(),
}
KINDS = {**SCALARS, **LISTS, **NESTED_LISTS, **ROWS}
OPTIONAL_KINDS = {f"optional {name}": optional(kind) for name, kind in KINDS.items()}
