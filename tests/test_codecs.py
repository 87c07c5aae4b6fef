"""Codecs: one value and its bytes, and what is refused."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from tests.typed_values import (
    Access,
    Colour,
    HexCodec,
    Level,
    any_bytes,
    datetimes,
    integers,
    list_of,
    same,
)
from typed_amp import Codec, DecodeError, EncodeError, Json, TooLongError
from typed_amp.codecs import (
    BooleanCodec,
    BytesCodec,
    DateTimeCodec,
    DecimalCodec,
    EnumCodec,
    FloatCodec,
    IntegerCodec,
    JsonCodec,
    JsonStringCodec,
    ListCodec,
    PathCodec,
    SecretCodec,
    TextCodec,
)

INTEGER = IntegerCodec()
TEXT = TextCodec()
BYTES = BytesCodec()
BOOLEAN = BooleanCodec()
FLOAT = FloatCodec()
DECIMAL = DecimalCodec()
DATETIME = DateTimeCodec()
PATH = PathCodec(Path)
COLOUR = EnumCodec(Colour, TEXT)
LEVEL = EnumCodec(Level, INTEGER)
ACCESS = EnumCodec(Access, INTEGER)
INTEGERS = ListCodec(list, INTEGER)
TEXT_SET = ListCodec(set, TEXT)
NESTED = ListCodec(tuple, INTEGERS)
JSON = JsonCodec(dict[str, int])


def in_zone(**offset: int) -> datetime:
    return datetime(2012, 1, 23, 12, 34, 56, 54_321, timezone(timedelta(**offset)))


GOLDEN: list[tuple[Codec[Any], Any, bytes]] = [
    (INTEGER, 0, b"0"),
    (INTEGER, -7, b"-7"),
    (INTEGER, 10**5_000, b"1" + b"0" * 5_000),
    (INTEGER, -(10**60_000), b"-1" + b"0" * 60_000),
    (BYTES, b"", b""),
    (BYTES, b"\0\xff", b"\0\xff"),
    (TEXT, "", b""),
    (TEXT, "zażółć \U0001f600", "zażółć \U0001f600".encode()),
    (BOOLEAN, True, b"True"),
    (BOOLEAN, False, b"False"),
    (FLOAT, 0.1, b"0.1"),
    (FLOAT, -0.0, b"-0.0"),
    (FLOAT, 1e16, b"1e+16"),
    (FLOAT, 5e-324, b"5e-324"),
    (FLOAT, float("inf"), b"inf"),
    (FLOAT, float("-inf"), b"-inf"),
    (FLOAT, float("nan"), b"nan"),
    (DECIMAL, Decimal("1.50"), b"1.50"),
    (DECIMAL, Decimal("-0"), b"-0"),
    (DECIMAL, Decimal("1E+10"), b"1E+10"),
    (DECIMAL, Decimal("NaN"), b"NaN"),
    (DECIMAL, Decimal("-sNaN12"), b"-sNaN12"),
    (DECIMAL, Decimal("-Infinity"), b"-Infinity"),
    (DATETIME, in_zone(hours=-1, minutes=-23), b"2012-01-23T12:34:56.054321-01:23"),
    (DATETIME, in_zone(hours=5, minutes=45), b"2012-01-23T12:34:56.054321+05:45"),
    (DATETIME, in_zone(hours=0), b"2012-01-23T12:34:56.054321-00:00"),
    (DATETIME, datetime(1, 1, 1, tzinfo=UTC), b"0001-01-01T00:00:00.000000-00:00"),
    (PATH, Path("/tmp/ż"), "/tmp/ż".encode()),
    (PathCodec(PurePosixPath), PurePosixPath("a/b"), b"a/b"),
    (SecretCodec(SecretStr, TextCodec()), SecretStr("ż"), "ż".encode()),
    (SecretCodec(SecretBytes, BytesCodec()), SecretBytes(b"\xff"), b"\xff"),
    (COLOUR, Colour.RED, b"red"),
    (LEVEL, Level.HIGH, b"2"),
    (ACCESS, Access.READ | Access.WRITE, b"3"),
    (INTEGERS, [], b""),
    (INTEGERS, [1, -20], b"\0\x011\0\x03-20"),
    (TEXT_SET, {"b", "a", ""}, list_of(b"", b"a", b"b")),
    (NESTED, ([1], [], [2, 3]), list_of(list_of(b"1"), b"", list_of(b"2", b"3"))),
    (ListCodec(list, BYTES), [bytes(65_535)], b"\xff\xff" + bytes(65_535)),
    (JSON, {"a": 1, "ż": 2}, '{"a":1,"ż":2}'.encode()),
    (HexCodec(), b"\xca\xfe", b"cafe"),
]


def golden_id(case: Any) -> str:
    if isinstance(case, bytes):
        return case[:40].decode("ascii", "backslashreplace")
    return type(case).__name__  # the digits of a huge integer are no name


@pytest.mark.parametrize(("codec", "value", "data"), GOLDEN, ids=golden_id)
def test_a_value_has_exactly_these_bytes(codec: Codec[Any], value: Any, data: bytes) -> None:
    assert codec.encode(value) == data


@pytest.mark.parametrize(("codec", "value", "data"), GOLDEN, ids=golden_id)
def test_these_bytes_are_that_value(codec: Codec[Any], value: Any, data: bytes) -> None:
    decoded = codec.decode(data)

    assert type(decoded) is type(value)
    assert same(decoded, value)


@pytest.mark.parametrize(
    ("codec", "data", "value"),
    [
        (INTEGER, b"007", 7),
        (INTEGER, b"-0", 0),
        (FLOAT, b"3", 3.0),
        (FLOAT, b"1E5", 1e5),
        (FLOAT, b"1e999", float("inf")),
        (DECIMAL, b"+1.5", Decimal("1.5")),
        (DECIMAL, b".5e3", Decimal("5E+2")),
        (DATETIME, b"2012-01-23T12:34:56.054321+00:00", in_zone(hours=0)),
        (TEXT_SET, list_of(b"a", b"a"), {"a"}),
        (JSON, b' { "a" : 1 } ', {"a": 1}),
    ],
)
def test_other_spellings_that_twisted_reads_are_read(
    codec: Codec[Any], data: bytes, value: Any
) -> None:
    assert codec.decode(data) == value


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        *((INTEGER, data) for data in (b"", b"-", b"+1", b"--1", b" 1", b"1\n", b" 1_0 ", b"1_0")),
        *((INTEGER, data) for data in (b"1.", b"1.0", b"0x1", b"one", "\u0663".encode(), b"1\0")),
        *((BOOLEAN, data) for data in (b"true", b"", b"1", b"True ", b"TRUE", b"Falsee")),
        *((FLOAT, data) for data in (b"", b"1_0.0", b" 1.0", b"1.0\n", b"+1.0", b".5", b"1e")),
        *(
            (FLOAT, data)
            for data in (b"Infinity", b"INF", b"0x1p0", b"1.0f", "\u0661.\u0660".encode())
        ),
        *((DECIMAL, data) for data in (b"", b"1_0", b" 1", b"1\n", b"1.5.", b"infinity", b"nan")),
        (DECIMAL, b"."),
        (DECIMAL, b"1E+9999999999999999999"),
        (TEXT, b"\xff"),
        (TEXT, b"\xed\xa0\x80"),  # a surrogate
        (TEXT, b"\xc0\x80"),  # a zero, longer than it has to be
        (PATH, b"\xff"),
        (SecretCodec(SecretStr, TextCodec()), b"\xff"),
        (COLOUR, b"green"),
        (COLOUR, b"RED"),
        (LEVEL, b"3"),
        (LEVEL, b"1.0"),
        (ACCESS, b"4"),
        (INTEGERS, b"\0"),
        (INTEGERS, b"\0\x021"),
        (INTEGERS, b"\0\x011\0"),
        (INTEGERS, list_of(b"1", b"x")),
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b'{"a":"x"}'),
        (JSON, b'{"a":1}trailing'),
        (JSON, b"[" * 60_000),
    ],
    ids=golden_id,
)
def test_bytes_that_are_no_such_value_are_refused(codec: Codec[Any], data: bytes) -> None:
    with pytest.raises(DecodeError):
        codec.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"2012-01-23T12:34:56.054321",  # no offset
        b"2012-01-23T12:34:56.054321Z",
        b"2012-01-23T12:34:56-01:23",  # no microseconds
        b"2012-01-23 12:34:56.054321-01:23",
        b"2012-01-23T12:34:56.054321?01:23",
        b"2012-01-23T12:34:56.054321-01:23\n",
        b"2012-01-23T12:34:56.054321-01:23:45",
        b"2012-02-30T12:34:56.054321-01:23",
        b"2012-13-23T12:34:56.054321-01:23",
        b"0000-01-23T12:34:56.054321-01:23",
        b"2012-01-23T24:00:00.000000-01:23",
        b"2012-01-23T12:34:60.054321-01:23",
        b"2012-01-23T12:34:56.054321-24:00",
        b"2012-01-23T12:34:56.054321+99:99",
        "\u0662\u0660\u0661\u0662-01-23T12:34:56.054321-01:23".encode(),
    ],
    ids=golden_id,
)
def test_a_datetime_is_read_in_amps_form_alone(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        DATETIME.decode(data)
    # Python's own message would quote the number that is out of range.
    assert not any(character.isdigit() for character in str(caught.value).replace("32", ""))


@pytest.mark.parametrize(
    ("codec", "value", "why"),
    [
        (TEXT, "\ud800", "surrogates"),
        (PATH, Path("\udcff"), "surrogates"),
        (BOOLEAN, 1, "a value of type int where bool is declared"),
        (DATETIME, datetime(2012, 1, 23), "without a time zone"),  # noqa: DTZ001
        (JsonStringCodec(dict[str, int], read_here=True), {"a": 1}, "of type dict, not str"),
    ],
)
def test_a_value_with_no_bytes_is_refused(codec: Codec[Any], value: Any, why: str) -> None:
    with pytest.raises(EncodeError, match=why):
        codec.encode(value)


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        *((DECIMAL, value) for value in ("1.234", 1.234, 1234, None)),
        *((FLOAT, value) for value in ("1.0", b"1.0")),
        *((PATH, value) for value in (None, 5)),
        (INTEGER, 1.0),
    ],
)
def test_a_value_of_another_type_is_not_written_as_its_text(codec: Codec[Any], value: Any) -> None:
    with pytest.raises((EncodeError, TypeError, AttributeError)):
        codec.encode(value)


def test_seconds_of_an_offset_are_cut_off_as_twisted_does() -> None:
    assert DATETIME.encode(in_zone(hours=1, seconds=59))[-6:] == b"+01:00"
    assert DATETIME.encode(in_zone(hours=-1, seconds=-1))[-6:] == b"-01:01"


@pytest.fixture(params=[640, 4_300, 0])
def int_digits_limit(request: pytest.FixtureRequest) -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(request.param)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("int_digits_limit")
@pytest.mark.parametrize("digits", [639, 641, 1_024, 1_025, 4_299, 4_301, 60_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_has_any_number_of_digits(digits: int, sign: int) -> None:
    value = sign * (10**digits - 1)
    data = (b"-" if sign < 0 else b"") + b"9" * digits

    assert INTEGER.encode(value) == data
    assert INTEGER.decode(data) == value


@given(st.integers(641, 5_000).flatmap(lambda size: st.text("0123456789", min_size=size)))
def test_digits_are_read_as_decimal_reads_them(digits: str) -> None:
    assert INTEGER.decode(digits.encode()) == int(Decimal(digits))


def test_an_element_that_is_too_long_is_named() -> None:
    with pytest.raises(TooLongError) as caught:
        ListCodec(list, BYTES).encode([b"", bytes(65_536)])

    error = caught.value
    assert (error.what, error.length, error.limit) == ("element 1", 65_536, 65_535)
    assert str(error) == (
        "element 1 is 65,536 bytes long; AMP carries at most 65,535 in one element of a list."
        " Large() cuts the list as a whole and no element of it: put Json() beside it, or make each"
        " element a row whose field is marked with Large()"
    )


def test_a_bad_element_is_named_by_its_index() -> None:
    with pytest.raises(DecodeError) as caught:
        NESTED.decode(list_of(b"", list_of(b"1", b"2", b"x")))

    assert caught.value.location == (1, 2)
    assert str(caught.value) == "1.2: not an integer"


def test_a_list_that_is_cut_off_says_after_how_many_elements() -> None:
    with pytest.raises(DecodeError) as caught:
        INTEGERS.decode(list_of(b"1", b"2") + b"\0\x09")
    assert caught.value.location == (2,)


def test_equal_sets_are_equal_on_the_wire() -> None:
    # Colliding hashes: the order of iteration is that of insertion.
    one, other = {0, 2**61 - 1}, {2**61 - 1, 0}
    assert list(one) != list(other)

    assert ListCodec(set, INTEGER).encode(one) == ListCodec(set, INTEGER).encode(other)


def test_an_enum_with_a_bare_value_is_written_too() -> None:
    assert COLOUR.encode("red") == b"red"


class Aliased(BaseModel):
    number: int = Field(alias="Number")


def test_json_of_a_model_with_aliases_comes_back() -> None:
    codec = JsonCodec(Aliased)
    assert codec.decode(codec.encode(Aliased(Number=1))) == Aliased(Number=1)


def test_json_of_another_type_is_not_written() -> None:
    with pytest.raises(Exception, match="Expected `int`"):
        JSON.encode({"a": "text"})


def test_refused_json_says_where_and_why_and_not_what() -> None:
    with pytest.raises(DecodeError) as caught:
        JSON.decode(b'{"a":"secret","b":"secret"}')

    assert "a: Input should be a valid integer" in str(caught.value)
    assert "b: Input should be a valid integer" in str(caught.value)
    assert "secret" not in str(caught.value)


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


def test_the_tag_of_refused_json_is_not_told() -> None:
    codec = JsonCodec(Annotated[Cat | Dog, Field(discriminator="kind")])
    assert codec.decode(b'{"kind":"dog"}') == Dog(kind="dog")
    with pytest.raises(DecodeError) as caught:
        codec.decode(b'{"kind":"secret"}')
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan_that_comes_back_as_something_else(value: float) -> None:
    codec = JsonCodec(dict[str, float])
    try:
        data = codec.encode({"a": value})
    except EncodeError:
        return
    assert same(codec.decode(data), {"a": value})


def test_refused_json_breaks_no_log_line() -> None:
    with pytest.raises(DecodeError) as caught:
        JSON.decode(b'{"a\\nb\\u001b":"x"}')
    assert str(caught.value).isprintable()


def test_json_shows_itself_as_it_is_written() -> None:
    assert repr(Json()) == "Json()"


ROUND_TRIPS: list[tuple[Codec[Any], st.SearchStrategy[Any]]] = [
    (INTEGER, integers),
    (BYTES, st.binary()),
    (TEXT, st.text()),
    (BOOLEAN, st.booleans()),
    (FLOAT, st.floats()),
    (DECIMAL, st.decimals(allow_nan=True)),
    (DATETIME, datetimes),
    (PATH, st.text().map(Path)),
    (SecretCodec(SecretBytes, BytesCodec()), st.binary().map(SecretBytes)),
    (ACCESS, st.sampled_from([Access(0), *Access])),
    (ListCodec(list, FLOAT), st.lists(st.floats(allow_nan=False))),
    (TEXT_SET, st.sets(st.text(max_size=4))),
    (NESTED, st.lists(st.lists(st.integers(), max_size=3), max_size=3).map(tuple)),
    (JSON, st.dictionaries(st.text(), st.integers())),
]


@pytest.mark.parametrize(("codec", "values"), ROUND_TRIPS, ids=golden_id)
@given(data=st.data())
def test_every_value_comes_back(
    codec: Codec[Any], values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    value = data.draw(values)
    decoded = codec.decode(codec.encode(value))

    assert same(decoded, value)
    assert codec.encode(decoded) == codec.encode(value)


@pytest.mark.parametrize("codec", [codec for codec, _ in ROUND_TRIPS], ids=golden_id)
@given(data=any_bytes)
def test_any_bytes_are_a_value_or_a_decode_error(codec: Codec[Any], data: bytes) -> None:
    try:
        value = codec.decode(data)
    except DecodeError:
        return
    assert same(codec.decode(codec.encode(value)), value)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ([b"\xff", b"x", b"cut"], "0: not UTF-8"),
        ([b"a", b"\xff", b"cut"], "1: not UTF-8"),
        ([b"a", b"b", b"cut"], "2: a list that ends inside an element"),
    ],
)
@pytest.mark.parametrize("left", [1, 2, 4])
def test_of_several_faults_the_first_is_told(
    elements: list[bytes], message: str, left: int
) -> None:
    data = list_of(*elements)[: left - 5]
    with pytest.raises(DecodeError, match=f"^{message}$"):
        ListCodec(list, TEXT).decode(data)


def test_a_text_that_utf_8_cannot_write_is_told_in_a_list_too() -> None:
    with pytest.raises(EncodeError, match="surrogates"):
        ListCodec(list, TEXT).encode(["a", "\ud800"])
