"""Annotations, the values that go with them, and short ways to write and read a model."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, SecretBytes, SecretStr, create_model
from pydantic.dataclasses import dataclass as pydantic_dataclass

from typed_amp import Box, Codec, Command, Json
from typed_amp.box import decode_boxes
from typed_amp.planning import plan_for

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.StrEnum):
    SMALL = "s"
    LARGE = "l"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class HexCodec(Codec[bytes]):
    """A codec of the user's own, as in the documentation of `Codec`."""

    def encode(self, value: bytes) -> bytes:
        return value.hex().encode()

    def decode(self, data: bytes) -> bytes:
        return bytes.fromhex(data.decode())


class Row(BaseModel):
    number: int
    text: str | None = None


class FrozenRow(BaseModel, frozen=True):
    number: int


@dataclass
class PlainRow:
    number: int
    text: str = "default"


@dataclass(slots=True)
class SlottedRow:
    number: int
    text: str = "default"


@pydantic_dataclass
class CheckedRow:
    number: int
    text: str = "default"


class Page(BaseModel, Generic[T]):
    items: list[T]


@dataclass
class PlainPage(Generic[T]):
    items: list[T]


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Chain(BaseModel):
    next: Chain | None = None


class LaterAnswered(Command["LaterAnswer"]):
    """Its answer is written below it. Another module derives from it."""


class LaterAnswer(BaseModel):
    number: int


class Everything(Command):
    """One field for each row of the table of annotations."""

    integer: int | None = None
    octets: bytes | None = None
    text: str | None = None
    boolean: bool | None = None
    number: float | None = None
    decimal: Decimal | None = None
    moment: datetime | None = None
    path: Path | None = None
    integers: list[int] | None = None
    moments: tuple[datetime, ...] | None = None
    decimals: set[Decimal] | None = None
    texts: frozenset[str] | None = None
    nested: list[list[tuple[bool, ...]]] | None = None
    rows: list[Row] | None = None
    plain_rows: tuple[PlainRow, ...] | None = None
    frozen_rows: frozenset[FrozenRow] | None = None
    row: Row | None = None
    checked_row: CheckedRow | None = None
    tree: Tree | None = None
    colour: Colour | None = None
    level: Level | None = None
    access: Access | None = None
    choice: Literal["a", "b"] | None = None
    identifier: UUID | None = None
    day: date | None = None
    daytime: time | None = None
    span: timedelta | None = None
    address: IPv4Address | None = None
    network: IPv6Network | None = None
    url: AnyUrl | None = None
    secret_text: SecretStr | None = None
    secret_octets: SecretBytes | None = None
    json_dict: Annotated[dict[str, list[int]] | None, Json()] = None
    digest: Annotated[bytes | None, HexCodec()] = None


def carrier(annotation: Any, default: Any = ..., **keywords: Any) -> Any:
    """Make a command of one field, `value`, with this annotation."""
    return create_model(
        "Carrier", __base__=Command, __cls_kwargs__=keywords, value=(annotation, default)
    )


def unchecked(model: type[BaseModel], **values: Any) -> Any:
    """Make a model's instance with any values at all."""
    return model.model_construct(**values)


def write(value: Any, model: Any = None) -> Box:
    """Give the box of a model's instance."""
    [box] = decode_boxes(plan_for(model or type(value)).encode(value, b""))
    return box


def read(model: Any, box: Box) -> Any:
    """Make a model's instance from a box."""
    return plan_for(model).decode(box)


def written(annotation: Any, value: Any) -> bytes:
    """Give the bytes of one value under one annotation."""
    return write(carrier(annotation)(value=value))[b"value"]


def read_back(annotation: Any, data: bytes) -> Any:
    """Give the value that these bytes are under one annotation."""
    return read(carrier(annotation), {b"value": data}).value


def list_of(*elements: bytes) -> bytes:
    """Write elements as AMP's ListOf does."""
    return b"".join(len(element).to_bytes(2, "big") + element for element in elements)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, a NaN and itself too."""
    with contextlib.suppress(InvalidOperation):  # a signaling NaN
        if one == other:
            return True
    return repr(one) == repr(other)


# Strategies.

minutes = st.integers(-24 * 60 + 1, 24 * 60 - 1)
zones = minutes.map(lambda offset: timezone(timedelta(minutes=offset)))
datetimes = st.datetimes(timezones=zones | st.just(UTC))
huge_integers = st.integers(4_200, 20_000).map(lambda digits: 10**digits + 7)
integers = st.integers() | huge_integers | huge_integers.map(lambda value: -value)

SCALARS: Sequence[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (bytes, st.binary(max_size=40)),
    (str, st.text(max_size=40)),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False)),
    (Decimal, st.decimals(allow_nan=False)),
    (datetime, datetimes),
    (Path, st.text(max_size=20).map(Path)),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Access, st.sampled_from([*Access, Access.READ | Access.WRITE])),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (UUID, st.uuids()),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (IPv4Address, st.ip_addresses(v=4)),
    (FrozenRow, st.builds(FrozenRow, number=st.integers())),
    (Annotated[bytes, HexCodec()], st.binary(max_size=20)),
]
"""Annotations of hashable values, each with a strategy for them."""

JSON: Sequence[tuple[Any, st.SearchStrategy[Any]]] = [
    (Annotated[dict[str, int], Json()], st.dictionaries(st.text(max_size=5), st.integers())),
    (Annotated[tuple[int, str], Json()], st.tuples(st.integers(), st.text(max_size=5))),
    (Annotated[int | str, Json()], st.integers() | st.text(max_size=5)),
]

_Pair = tuple[Any, st.SearchStrategy[Any]]


def _collections(pairs: st.SearchStrategy[_Pair]) -> st.SearchStrategy[_Pair]:
    def of(pair: _Pair, kind: Any) -> _Pair:
        annotation, values = pair
        elements = st.lists(values, max_size=3)
        return kind[(annotation, ...) if kind is tuple else annotation], elements.map(kind)

    return st.builds(of, pairs, st.sampled_from([list, tuple]))


def _sets(pair: _Pair) -> _Pair:
    annotation, values = pair
    kind: Any = frozenset
    return kind[annotation], st.frozensets(values, max_size=3)


def _optional(pair: _Pair) -> _Pair:
    return pair[0] | None, st.none() | pair[1]


_scalars = st.sampled_from(SCALARS)
_required = st.recursive(_scalars | _scalars.map(_sets), _collections, max_leaves=3)
fields = _required | _required.map(_optional) | st.sampled_from(JSON)
"""Annotations of all kinds, each with a strategy for its values."""


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """Commands with fields of any kind."""
    drawn = draw(st.dictionaries(st.sampled_from("abcdef"), fields, max_size=4))
    definitions: dict[str, Any] = {name: (pair[0], ...) for name, pair in drawn.items()}
    model: Any = create_model("Drawn", __base__=Command, **definitions)
    command: Any = model(**{name: draw(pair[1]) for name, pair in drawn.items()})
    return command  # type: ignore[no-any-return]


any_bytes = (
    st.binary(max_size=60)
    | st.lists(st.binary(max_size=10), max_size=4).map(lambda elements: list_of(*elements))
    | st.text(alphabet="0123456789-+:.TZPDEeNaInfisty_ \n", max_size=40).map(str.encode)
)
"""Bytes of no form, and ones that come near the forms of values."""
