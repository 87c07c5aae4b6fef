"""Rows read and written all at once: they are what they are one by one, and so is every error."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Self

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from typed_amp import Codec, DecodeError, EncodeError, Json, Key, encode_box
from typed_amp.planning import plan_for
from typed_amp.rows import RowsCodec

if TYPE_CHECKING:
    from collections.abc import Callable

    from typed_amp.box import Box


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Everything(BaseModel):
    number: int
    text: str
    data: Annotated[bytes, Key(b".*%b(")]
    flag: bool
    ratio: float
    amount: Decimal
    at: datetime
    colour: Colour
    limits: Annotated[dict[str, int], Json()]
    times: int = 1


class Sparse(BaseModel):
    count: int = 0
    first: int | None = None
    second: Annotated[str | None, Field(max_length=5)]
    third: bool | None = None
    name: str = ""
    ratio: float = 0.5


class Empty(BaseModel):
    first: int | None = None
    second: str | None = None
    third: bool = True


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    number: Annotated[int, Field(ge=0, alias="N")]
    text: str = ""

    @field_validator("text")
    @classmethod
    def _is_no_secret(cls, text: str) -> str:
        if text == "secret":
            raise ValueError("a secret")
        return text.strip()

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.number == 13:
            raise ValueError("no thirteenth")
        return self


@dataclass
class Plain:
    ratio: float
    flag: bool = False


@dataclass(slots=True)
class Slotted:
    text: str
    note: str | None = None


texts = st.text(max_size=5) | st.sampled_from(
    ["secret", "\0", "\0\6number\0\1", "x" * 255, "y" * 256]
)
numbers = st.integers() | st.sampled_from([13, 10**249, 10**250, -(10**300), 10**1000])
floats = st.floats(allow_nan=False)
whens = st.datetimes(timezones=st.just(UTC))
everything = st.builds(
    Everything,
    number=numbers,
    text=texts,
    data=st.binary(max_size=3),
    flag=st.booleans(),
    ratio=floats,
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    at=whens,
    colour=st.sampled_from(Colour),
    limits=st.dictionaries(texts, st.integers(0, 9), max_size=1),
    times=numbers,
)
models: dict[type, st.SearchStrategy[Any]] = {
    Everything: everything,
    Sparse: st.builds(
        Sparse,
        first=st.none() | numbers,
        second=st.none() | st.text(max_size=5),
        third=st.none() | st.booleans(),
    )
    | st.builds(Sparse, second=st.none()),
    Strict: st.builds(Strict.model_construct, number=numbers, text=texts),
    Plain: st.builds(
        Plain, ratio=floats | numbers, flag=st.booleans() | st.sampled_from([1, None])
    ),
    Slotted: st.builds(Slotted, text=texts | st.just("\ud800"), note=st.none() | texts),
}


def one_by_one(codec: RowsCodec) -> RowsCodec:
    """Give a codec that has no faster way."""
    other = copy.copy(codec)
    other.plan = copy.copy(codec.plan)
    other.plan.__dict__.update(encode_rows=None, read_rows=None)
    return other


def codec_of(model: type, collection: Callable[..., Any] | None = list) -> RowsCodec:
    return RowsCodec(plan_for(model), collection)


def outcome(function: Callable[[Any], Any], value: Any) -> Any:
    try:
        result = function(value)
    except Exception as error:
        return (
            type(error),
            str(error),
            getattr(error, "location", None),
            getattr(error, "errors", 0),
        )
    if isinstance(result, list):
        return repr(result), [getattr(row, "model_fields_set", None) for row in result]
    return result


@given(data=st.data())
@pytest.mark.parametrize("model", models)
def test_rows_are_written_as_one_by_one(model: type, data: st.DataObject) -> None:
    codec = codec_of(model)
    rows = data.draw(st.lists(models[model], max_size=12))
    assert codec.plan.encode_rows is not None
    assert outcome(codec.encode, rows) == outcome(one_by_one(codec).encode, rows)


values = st.one_of(
    st.sampled_from(
        [b"", b"1", b"13", b"-0", b"007", b"+1", b"1_0", b" 1", b"True", b"true", b"nan"]
    ),
    st.sampled_from(
        [b"1.5", b"1e5", b".5", b"-inf", b"red", b"{}", b"secret", b"\xff", b"\0", b"\n"]
    ),
    st.sampled_from([bytes(255), b"x" * 256, b"9" * 250, b"9" * 251, b"9" * 5_000]),
    st.just(b"2012-01-23T12:34:56.054321-01:23"),
    st.binary(max_size=4),
)


@st.composite
def written(draw: st.DrawFn, model: type) -> bytes:
    """Draw rows: mostly those that this library writes, some with pairs that are not."""
    codec = codec_of(model)
    keys = [field.key for field in codec.plan.fields]
    parts: list[bytes] = []
    good = draw(st.lists(models[model], min_size=1, max_size=3))
    for _ in range(draw(st.integers(0, 12))):
        try:
            data = codec.encode([draw(st.sampled_from(good))])
        except EncodeError:
            continue
        if draw(st.integers(0, 9)) == 0:
            box: Box = draw(st.dictionaries(st.sampled_from([*keys, b"other"]), values))
            data = encode_box(box) if box else b"\0\0"
        parts.append(data)
    mutated = bytearray(b"".join(parts))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        place = draw(st.integers(0, len(mutated)))
        mutated[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(mutated)


@given(data=st.data())
@pytest.mark.parametrize("model", models)
def test_any_bytes_are_read_as_one_by_one(model: type, data: st.DataObject) -> None:
    codec = codec_of(model)
    assert codec.plan.read_rows is not None
    value = data.draw(written(model))
    assert outcome(codec.decode, value) == outcome(one_by_one(codec).decode, value)


@pytest.mark.parametrize("row", [b"\0\5ratio\0\x031.5\0\4flag\0\4True\0\0"])
@pytest.mark.parametrize("place", [0, 5, 11])
@pytest.mark.parametrize(
    "other",
    [
        b"\0\5ratio\0\x031.5\0\4flag\0\4Tru\0\0",  # too short for its length
        b"\0\5ratio\0\x041.5\0\4flag\0\4True\0\0",
        b"\0\5ratio\1\x031.5\0\4flag\0\4True\0\0",
        b"\0\4flag\0\4True\0\5ratio\0\x031.5\0\0",  # in another order
        b"\0\5ratio\0\x031.5\0\0",  # a default is left out
        b"\0\0",
        b"\0\5ratio\0\x031.5\0\5ratio\0\x031.5\0\0",
        b"\0\5ratio\0\x031.5\0\4flag\0\4True",
        b"\0",
        b"x",
    ],
)
def test_one_row_that_is_different_is_read_as_ever(row: bytes, place: int, other: bytes) -> None:
    codec = codec_of(Plain)
    data = b"".join([*[row] * place, other, *[row] * (11 - place)])
    assert outcome(codec.decode, data) == outcome(one_by_one(codec).decode, data)


@pytest.mark.parametrize("model", models)
def test_what_is_plain_takes_the_faster_way(model: type) -> None:
    example_of = {
        Everything: Everything(
            number=-7,
            text="Zürich",
            data=b"ab",
            flag=True,
            ratio=-1.5e-300,
            amount=Decimal("1.50"),
            at=datetime(2012, 1, 23, tzinfo=UTC),
            colour=Colour.RED,
            limits={"a": 1},
        ),
        Sparse: Sparse(second=None, third=True),
        Strict: Strict.model_construct(number=1, text="a"),
        Plain: Plain(1.0),
        Slotted: Slotted("a"),
    }
    codec = codec_of(model)
    rows = [example_of[model]] * 100
    read_rows = codec.plan.read_rows
    assert read_rows is not None
    found = read_rows(codec.encode(rows))
    assert found is not None
    assert [codec.plan.validate(row) for row in found] == rows


def test_each_validator_runs_once_for_each_row() -> None:
    class Counted(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def _count(cls, number: int) -> int:
            seen.append(number)
            return number

        def model_post_init(self, _: Any) -> None:
            seen.append(-self.number)

    seen: list[int] = []
    data = codec_of(Counted).encode([Counted.model_construct(number=n) for n in range(100)])
    seen.clear()
    assert [row.number for row in codec_of(Counted).decode(data)] == [*range(100)]
    assert seen == [number for n in range(100) for number in (n, -n)]


def test_a_row_that_is_refused_is_named_and_those_behind_it() -> None:
    rows = [Strict.model_construct(number=number, text="") for number in [*range(100), 13]]
    with pytest.raises(DecodeError) as caught:
        codec_of(Strict).decode(codec_of(Strict).encode(rows))
    assert [error["loc"] for error in caught.value.errors] == [(13,), (100,)]


def test_rows_with_a_codec_of_the_users_own_are_read_one_by_one() -> None:
    class Hex(Codec[int]):
        def encode(self, value: int) -> bytes:
            return b"%x" % value

        def decode(self, data: bytes) -> int:
            return int(data, 16)

    class Row(BaseModel):
        number: Annotated[int, Hex()]

    codec = codec_of(Row)
    assert codec.plan.read_rows is None
    rows = [Row(number=number) for number in range(100)]
    assert codec.decode(codec.encode(rows)) == rows


@pytest.mark.parametrize("collection", [list, tuple, set, frozenset])
def test_rows_come_back_in_every_collection(collection: Callable[..., Any]) -> None:
    codec = codec_of(Strict, collection)
    rows = collection(Strict.model_construct(number=number, text="a") for number in range(100, 200))
    assert codec.decode(codec.encode(rows)) == rows


@given(texts=st.lists(texts, max_size=20))
@example(texts=["\0\4text\0\1"] * 20)
def test_text_that_looks_like_a_row_is_text(texts: list[str]) -> None:
    codec = codec_of(Slotted)
    rows = [Slotted(text, text) for text in texts]
    assert codec.decode(codec.encode(rows)) == rows


def test_rows_that_may_be_all_but_empty_are_read_one_by_one() -> None:
    codec = codec_of(Empty)
    assert codec.plan.read_rows is None
    rows = [Empty(), Empty(first=1)] * 50
    assert codec.decode(codec.encode(rows)) == rows


def test_an_integer_of_more_digits_than_python_converts_comes_back() -> None:
    codec = codec_of(Sparse)
    rows = [Sparse(first=10**5_000, second=None)] * 20
    assert codec.decode(codec.encode(rows)) == rows


class Refusing(Codec[int]):
    """Reads nothing, and counts how often it was asked to."""

    asked = 0

    def encode(self, value: int) -> bytes:
        return b"%d" % value

    def decode(self, data: bytes) -> int:
        Refusing.asked += 1
        raise DecodeError("refused")


class Nested(BaseModel):
    number: Annotated[int, Refusing()] = 0
    children: list[list[Nested]] = []


def test_what_is_nested_deeply_and_wrong_at_the_bottom_is_read_once() -> None:
    box = encode_box({b"number": b"1"})
    for _ in range(20):
        box = encode_box({b"children": len(box).to_bytes(2, "big") + box})
    Refusing.asked = 0
    with pytest.raises(DecodeError, match="refused"):
        plan_for(Nested).decode({b"children": len(box).to_bytes(2, "big") + box})
    assert Refusing.asked == 1
