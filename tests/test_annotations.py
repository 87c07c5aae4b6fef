"""Which codec an annotation gets, and which gets none."""

import enum
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NewType, Optional, TypeVar, Union
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    Base64Str,
    BaseModel,
    ConfigDict,
    Field,
    FutureDate,
    FutureDatetime,
    GetCoreSchemaHandler,
    HttpUrl,
    IPvAnyAddress,
    PastDatetime,
    PlainSerializer,
    PlainValidator,
    PositiveInt,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    StrictStr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import core_schema
from typing_extensions import TypeAliasType

from tests.typed_values import (
    Access,
    CheckedRow,
    Colour,
    FrozenRow,
    HexCodec,
    Level,
    Page,
    PlainPage,
    PlainRow,
    Row,
    Size,
    SlottedRow,
    carrier,
    list_of,
    read,
    read_back,
    same,
    written,
)
from typed_amp import Codec, DecodeError, DefinitionError, Descriptor, EncodeError, Json, encode_box
from typed_amp.annotations import split_annotated

T = TypeVar("T")
UserId = NewType("UserId", int)
Digest = NewType("Digest", bytes)
Count = TypeAliasType("Count", int)
MaybeText = TypeAliasType("MaybeText", str | None)
MaybeCount = TypeAliasType("MaybeCount", Count | None)
Many = TypeAliasType("Many", list[T], type_params=(T,))
Hex = Annotated[bytes, HexCodec()]


class Numbers(enum.Enum):
    ONE = 1


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Tuples(enum.Enum):
    ONE = (1, 2)


class Nameless(enum.Enum):
    """An enum without members."""


class Password(SecretStr):
    """A secret of the user's own."""


class Birthday(Secret[date]):
    """One of another type, which says itself what is shown of it."""

    def _display(self) -> str:
        return "****-**-**"


InClear = Annotated[SecretStr, PlainSerializer(SecretStr.get_secret_value)]


class Masked(BaseModel):
    """A model whose JSON has asterisks in it."""

    password: SecretStr


class Point:
    """A type that pydantic knows by what it says of itself: a JSON string."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.x, self.y))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        from_text = core_schema.no_info_after_validator_function(
            lambda text: cls(*map(int, text.split(","))), core_schema.str_schema()
        )
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema(
                [core_schema.is_instance_schema(cls), from_text]
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda point: f"{point.x},{point.y}", return_schema=core_schema.str_schema()
            ),
        )


class Opaque:
    """A type that pydantic knows nothing of."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"Opaque({self.text!r})"


def opaque(value: Any) -> Opaque:
    return value if isinstance(value, Opaque) else Opaque(value)


Shown = Annotated[
    Opaque,
    PlainValidator(opaque, json_schema_input_type=str),
    PlainSerializer(lambda value: value.text, return_type=str),
]
"""A type that only the functions beside it make a JSON string."""

IN_ZONE = datetime(2012, 1, 23, 12, 34, 56, 54_321, timezone(-timedelta(hours=1, minutes=23)))
ZONED = b"2012-01-23T12:34:56.054321-01:23"
ROW = encode_box({b"number": b"1", b"text": b"a"})
IDENTIFIER = UUID("12345678-1234-5678-1234-567812345678")

GOLDEN: list[tuple[Any, Any, bytes]] = [
    (int, -5, b"-5"),
    (bytes, b"\0", b"\0"),
    (str, "ż", "ż".encode()),
    (bool, True, b"True"),
    (float, 1.5, b"1.5"),
    (float, float("nan"), b"nan"),
    (Decimal, Decimal("1.50"), b"1.50"),
    (Decimal, Decimal("NaN"), b"NaN"),
    (Decimal, Decimal("sNaN"), b"sNaN"),
    (Decimal, Decimal("-Infinity"), b"-Infinity"),
    (datetime, IN_ZONE, ZONED),
    (AwareDatetime, datetime(2012, 1, 23, tzinfo=UTC), b"2012-01-23T00:00:00.000000-00:00"),
    (PastDatetime, datetime(2012, 1, 23, tzinfo=UTC), b"2012-01-23T00:00:00.000000-00:00"),
    (FutureDatetime, datetime(9999, 1, 1, tzinfo=UTC), b"9999-01-01T00:00:00.000000-00:00"),
    (Path, Path("a/b"), b"a/b"),
    (PurePosixPath, PurePosixPath("a/b"), b"a/b"),
    # Collections.
    (list[int], [1, 2], list_of(b"1", b"2")),
    (typing.List[int], [1], list_of(b"1")),  # noqa: UP006
    (tuple[int, ...], (1, 2), list_of(b"1", b"2")),
    (set[str], {"b", "a"}, list_of(b"a", b"b")),
    (frozenset[int], frozenset({10, 9}), list_of(b"10", b"9")),
    (list[list[bool]], [[True], []], list_of(list_of(b"True"), b"")),
    (list[datetime], [IN_ZONE], list_of(ZONED)),
    (list[Colour], [Colour.RED], list_of(b"red")),
    (list[UUID], [IDENTIFIER], list_of(str(IDENTIFIER).encode())),
    (list[Hex], [b"\xff"], list_of(b"ff")),
    (list[Annotated[int | str, Json()]], [1, "1"], list_of(b"1", b'"1"')),
    (list[Annotated[int, Field(ge=0)]], [1], list_of(b"1")),
    (list[UserId], [UserId(1)], list_of(b"1")),
    (Many[int], [1], list_of(b"1")),
    # Rows.
    (list[Row], [Row(number=1, text="a"), Row(number=2)], ROW + encode_box({b"number": b"2"})),
    (tuple[Row, ...], (Row(number=1, text="a"),), ROW),
    (list[Row], [], b""),
    (list[list[Row]], [[Row(number=1, text="a")], []], list_of(ROW, b"")),
    (list[Annotated[Row, Field(description="one")]], [Row(number=1, text="a")], ROW),
    (frozenset[FrozenRow], frozenset({FrozenRow(number=1)}), encode_box({b"number": b"1"})),
    (list[PlainRow], [PlainRow(1, "a")], ROW),
    (list[SlottedRow], [SlottedRow(1, "a")], ROW),
    (list[CheckedRow], [CheckedRow(1, "a")], ROW),
    (Row, Row(number=1, text="a"), ROW),
    (PlainRow, PlainRow(1, "a"), ROW),
    (SlottedRow, SlottedRow(1, "a"), ROW),
    (CheckedRow, CheckedRow(1, "a"), ROW),
    (Page[int], Page[int](items=[1]), encode_box({b"items": list_of(b"1")})),
    (PlainPage[int], PlainPage([1]), encode_box({b"items": list_of(b"1")})),
    # As the type beneath.
    (Colour, Colour.RED, b"red"),
    (Size, Size.SMALL, b"s"),
    (Level, Level.HIGH, b"2"),
    (Access, Access.READ | Access.WRITE, b"3"),
    (Numbers, Numbers.ONE, b"1"),
    (Literal["a", "b"], "a", b"a"),
    (Literal[1, 2], 2, b"2"),
    (Literal[True], True, b"True"),
    (Literal[Colour.RED, Colour.BLUE], Colour.BLUE, b"blue"),
    (UserId, UserId(7), b"7"),
    (Digest, Digest(b"\xff"), b"\xff"),
    (Count, 7, b"7"),
    (PositiveInt, 7, b"7"),
    (StrictStr, "a", b"a"),
    (Annotated[str, StringConstraints(to_upper=True)], "A", b"A"),
    (Annotated[Annotated[int, Field(ge=0)], Field(le=9)], 7, b"7"),
    # What pydantic writes as one JSON string.
    (UUID, IDENTIFIER, str(IDENTIFIER).encode()),
    (date, date(2012, 1, 23), b"2012-01-23"),
    (FutureDate, date(9999, 1, 1), b"9999-01-01"),
    (time, time(12, 34, 56, 7), b"12:34:56.000007"),
    (timedelta, timedelta(days=-1, microseconds=1), b"-PT23H59M59.999999S"),
    (IPv4Address, IPv4Address("127.0.0.1"), b"127.0.0.1"),
    (IPv6Address, IPv6Address("::1"), b"::1"),
    (IPv4Network, IPv4Network("10.0.0.0/8"), b"10.0.0.0/8"),
    (IPvAnyAddress, IPv6Address("::1"), b"::1"),
    (AnyUrl, AnyUrl("amp://example.org/a?b=c"), b"amp://example.org/a?b=c"),
    (HttpUrl, HttpUrl("https://example.org/"), b"https://example.org/"),
    (Point, Point(1, -2), b"1,-2"),
    (list[Point], [Point(1, 2)], list_of(b"1,2")),
    (Shown, Opaque("a"), b"a"),
    (list[Shown], [Opaque("a")], list_of(b"a")),
    (SecretStr, SecretStr("a"), b"a"),
    (SecretBytes, SecretBytes(b"\xff"), b"\xff"),
    (list[SecretStr], [SecretStr("a")], list_of(b"a")),
    (Birthday, Birthday(date(2020, 1, 2)), b"2020-01-02"),
    (Annotated[dict[str, InClear], Json()], {"a": SecretStr("b")}, b'{"a":"b"}'),
    # What the user chose.
    (Hex, b"\xff", b"ff"),
    (Annotated[dict[str, int], Json()], {"a": 1}, b'{"a":1}'),
    (Annotated[tuple[int, str], Json()], (1, "a"), b'[1,"a"]'),
    (Annotated[int | str, Json()], "1", b'"1"'),
    (Annotated[list[int | None], Json()], [1, None], b"[1,null]"),
    (Annotated[Row, Json()], Row(number=1), b'{"number":1,"text":null}'),
    (Annotated[int, Json()], 1, b"1"),
]


def golden_id(case: Any) -> str:
    # Alike in every process: neither the order of a set nor an address is.
    text = repr(sorted(case)) if isinstance(case, (set, frozenset)) else repr(case)
    return re.sub(r" at 0x[0-9a-f]+", "", text).replace("typing.", "")[:50]


@pytest.mark.parametrize(("annotation", "value", "data"), GOLDEN, ids=golden_id)
def test_an_annotation_gives_these_bytes(annotation: Any, value: Any, data: bytes) -> None:
    assert written(annotation, value) == data


@pytest.mark.parametrize(("annotation", "value", "data"), GOLDEN, ids=golden_id)
def test_these_bytes_give_the_value_back(annotation: Any, value: Any, data: bytes) -> None:
    decoded = read_back(annotation, data)

    assert same(decoded, value)
    assert type(decoded) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Password, Password("secret")),
        (Secret[str], Secret("secret")),
        (Base64Bytes, b"aGVsbG8="),
        (Base64Str, "aGVsbG8="),
    ],
)
def test_what_pydantic_writes_otherwise_than_it_reads_comes_back_or_is_refused(
    annotation: Any, value: Any
) -> None:
    try:
        command = carrier(annotation)(value=value)
    except DefinitionError:
        return
    assert read_back(annotation, written(annotation, value)) == command.value


@pytest.mark.parametrize(
    ("annotation", "data"),
    [
        (date, b"86400"),  # a timestamp is not how a date is written
        (date, b"2012-01-32"),
        (date, b"2012-01-23 trailing"),
        (time, b"25:00:00"),
        (timedelta, b"1 fortnight"),
        (UUID, b"12345678"),
        (IPv4Address, b"::1"),
        (AnyUrl, b"no url"),
        (AnyUrl, b"\xff"),
        (Point, b"1,x"),
        (Point, b"1"),
        (Shown, b"\xff"),
        (PositiveInt, b"0"),
        (Literal["a", "b"], b"c"),
        (Literal[1, 2], b"3"),
        (Literal[Colour.RED], b"blue"),
        (Annotated[dict[str, int], Json()], b'{"a":"x"}'),
        (Hex, b"xyz"),
        (Row, b""),
        (Row, ROW + ROW),
        (Row, ROW[:-1]),
        (Row, ROW + b"trailing"),
        (list[Row], ROW[:-2]),
        (list[Row], ROW + b"\0"),
        (list[Row], encode_box({b"text": b"a"})),
        (set[Decimal], list_of(b"sNaN")),  # has no hash
        (PastDatetime, b"9999-01-01T00:00:00.000000-00:00"),
        (AwareDatetime, b"2012-01-23T12:34:56Z"),
    ],
    ids=golden_id,
)
def test_bytes_that_are_no_such_value_are_refused(annotation: Any, data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^value"):
        read_back(annotation, data)


@pytest.mark.parametrize(
    ("annotation", "way_out"),
    [
        (dict[str, int], "Json()"),
        (int | str, "Json()"),
        (Union[int, str, None], "Json()"),  # noqa: UP007
        (Sequence[int], "Json()"),
        (Any, "Json()"),
        (object, "Json()"),
        (None, "Json()"),
        (tuple[int, str], "Json()"),
        (tuple[int], "Json()"),
        (tuple[()], "Json()"),
        (list[int | None], "have no None; put Json()"),
        (list[Optional[Row]], "have no None; put Json()"),  # noqa: UP045
        (list[Literal["a", None]], "have no None; put Json()"),  # noqa: PYI061
        (list[dict[str, int]], "Json()"),
        (list[Any], "Json()"),
        (list, "say of what it is a list"),
        (tuple, "say of what it is a tuple"),
        (set, "say of what it is a set"),
        (frozenset, "say of what it is a frozenset"),
        (list[list], "say of what it is a list"),  # type: ignore[type-arg]
        (typing.List, "say of what it is a list"),  # noqa: UP006
        (Mixed, "must all be of one type"),
        (Tuples, "must all be of one type"),
        (Nameless, "must all be of one type"),
        (Literal[1, "a"], "must all be of one type"),
        (Literal[1, True], "must all be of one type"),
        (Literal[None], "Json()"),  # noqa: PYI061
        (RootModel[int], "Json()"),
        (Annotated[int, Json], "Json stands there as a class"),
        (Annotated[bytes, HexCodec], "HexCodec stands there as a class"),
        (
            Annotated[Hex, HexCodec()],
            "HexCodec and HexCodec stand beside one type in Annotated[...]; keep one",
        ),
        (Annotated[bytes, Json(), HexCodec()], "Json and HexCodec stand beside one type"),
        (Annotated[int, Descriptor(), Json()], "Descriptor and Json stand beside one type"),
        (list[Annotated[bytes, Json(), HexCodec()]], "Json and HexCodec stand beside one type"),
        (Annotated[Opaque, PlainValidator(opaque)], "Json()"),
        (Annotated[int | str, AfterValidator(str)], "Json()"),
    ],
    ids=golden_id,
)
def test_an_annotation_without_a_codec_is_refused_where_it_is_written(
    annotation: Any, way_out: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        carrier(annotation)

    assert "Carrier.value" in str(caught.value)
    assert way_out in str(caught.value)


@pytest.mark.parametrize(
    "annotation",
    [SecretBytes, dict[str, SecretStr], list[Secret[int] | None], Masked, dict[str, Masked]],
    ids=golden_id,
)
def test_json_of_a_secret_is_refused_since_asterisks_would_be_sent(annotation: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Carrier\.value.*PlainSerializer\(SecretStr\.get"):
        carrier(Annotated[annotation, Json()])


def test_json_of_what_pydantic_does_not_know_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Carrier\.value"):
        carrier(Annotated[Opaque, Json()], arbitrary_types_allowed=True)


@pytest.mark.parametrize(
    "annotation",
    [
        Optional[int],  # noqa: UP045
        int | None,
        Optional[Annotated[int, Field(ge=0)]],  # noqa: UP045
        Annotated[int | None, Field(ge=0)],
        Literal[1, None],  # noqa: PYI061
        Annotated[int | None, Json()],
        MaybeCount,
        Optional[UserId],  # noqa: UP045
    ],
    ids=golden_id,
)
def test_none_leaves_the_key_out(annotation: Any) -> None:
    model = carrier(annotation)

    assert read(model, {}) == model(value=None)
    assert read(model, {b"value": b"1"}) == model(value=1)
    with pytest.raises(KeyError):
        written(annotation, None)
    assert written(annotation, 1) == b"1"


@pytest.mark.parametrize(
    ("annotation", "apart"),
    [
        (int, (int, (), False)),
        (MaybeText, (str, (), True)),
        (Annotated[Annotated[int, 1] | None, 2], (int, (1, 2), True)),
        (Optional[Annotated[UserId, 1]], (int, (1,), True)),  # noqa: UP045
        (Many[int], (list[int], (), False)),
        (int | str | None, (int | str, (), True)),
        (Literal[1, None], (Literal[1], (), True)),  # noqa: PYI061
    ],
    ids=golden_id,
)
def test_an_annotation_taken_apart(annotation: Any, apart: Any) -> None:
    assert split_annotated(annotation) == apart


class Bare(BaseModel):
    model_config = ConfigDict(use_enum_values=True)

    colour: Colour
    level: Level = Level.LOW


def test_a_model_may_hold_the_bare_values_of_enums() -> None:
    row = Bare(colour=Colour.RED, level=Level.HIGH)
    assert row.colour == "red"  # type: ignore[comparison-overlap]

    data = written(Bare, row)

    assert data == encode_box({b"colour": b"red", b"level": b"2"})
    assert read_back(Bare, data) == row


class Checking(Codec[int]):
    """A codec that refuses by raising what others raise."""

    def encode(self, value: int) -> bytes:
        return value.to_bytes(1, "big")

    def decode(self, data: bytes) -> int:
        return TypeAdapter(int).validate_python(data.decode())


@dataclass
class Checked:
    number: Annotated[int, Checking()]


def test_whatever_a_codec_of_ones_own_raises_names_the_field() -> None:
    with pytest.raises(DecodeError, match=r"^value\.number\b"):  # pydantic's ValidationError
        read_back(Checked, encode_box({b"number": b"x"}))
    with pytest.raises(DecodeError, match=r"^value\.number: not UTF-8"):
        read_back(Checked, encode_box({b"number": b"\xff"}))
    with pytest.raises(EncodeError, match=r"Carrier\.value: Checked\.number: Checking"):
        written(Checked, Checked(256))  # an OverflowError, which is no length of ours


def test_constraints_beside_a_type_run_on_what_was_read() -> None:
    model = carrier(Annotated[str, StringConstraints(max_length=2, to_upper=True)])

    assert read(model, {b"value": b"ab"}) == model(value="AB")
    with pytest.raises(DecodeError, match="at most 2 characters"):
        read(model, {b"value": b"abc"})
    with pytest.raises(ValidationError):
        model(value="abc")


def test_a_naive_datetime_is_refused_before_it_is_sent() -> None:
    with pytest.raises(EncodeError, match=r"Carrier\.value: a datetime without a time zone"):
        written(datetime, datetime(2012, 1, 1))  # noqa: DTZ001
    assert written(datetime, datetime(2012, 1, 1, tzinfo=UTC)).endswith(b"-00:00")
