"""Lists of integers: as a whole they are what they are one by one, and so is every error."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import RootModel

from tests.typed_values import list_of
from typed_amp import DecodeError, TooLongError
from typed_amp.elements import decode_elements, decode_integer, encode_elements, encode_integer
from typed_amp.integers import decode_integers, encode_integers

if TYPE_CHECKING:
    from collections.abc import Callable


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Loud(int):
    def __repr__(self) -> str:
        return "loud"

    __str__ = __repr__

    def __index__(self) -> int:
        return 2


class Wrapped(RootModel[int]):
    pass


integers = (
    st.integers() | st.integers(-(2**70), 2**70) | st.integers(1, 320).map(lambda power: 10**power)
)
digits = st.text("0123456789", min_size=1, max_size=70).map(str.encode)
oddities = st.sampled_from(
    [b"", b"-", b"-0", b"-00", b"007", b"+1", b" 1", b"1_0", b"1-2", b"--1", b"1,2", b"1.0", b"1e3"]
    + [b"0x1", b"NaN", b"null", b"\0\1", b"\0\1\x31", "\u0661".encode(), b"9" * 255, b"9" * 700]
    # The second byte of their lengths is a digit, a minus, a comma, or one that means something.
    + [b"7" * length for length in (31, 32, 44, 45, 46, *range(48, 58), 67, 91, 93, 97, 101, 256)]
)
elements = digits | integers.map(encode_integer) | oddities | st.binary(max_size=40)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw a list in which a few bytes are not what they were."""
    data = bytearray(list_of(*draw(st.lists(elements, max_size=8))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2) | st.sampled_from([b"\0", b"\1", b"\0\1", b"1", b"-", b","])
        )
    return bytes(data)


def outcome(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        value = function(*arguments, **options)
    except Exception as error:
        return type(error), str(error), getattr(error, "location", None)
    return value, [type(element) for element in value]


@given(data=st.lists(elements, max_size=8).map(lambda each: list_of(*each)) | mutated())
@example(data=b"")
@example(data=b"\0")
@example(data=b"1\0\0011")
@example(data=b"\0\0031\0\0012")
@example(data=b"\0\0011\0\00123")
@example(data=b"\x001" + b"7" * 49)
@example(data=b"\1\1" + b"7" * 257)
def test_any_bytes_are_read_as_one_by_one(data: bytes) -> None:
    expected = outcome(decode_elements, decode_integer, data)
    assert outcome(decode_integers, data) == expected


@pytest.mark.parametrize("element", [b"%d" % 10**length for length in range(70)])
def test_integers_of_every_length_are_read(element: bytes) -> None:
    data = list_of(b"0", element, b"-" + element, element)
    assert decode_integers(data) == [0, int(element), -int(element), int(element)]


@given(
    values=st.lists(integers | st.sampled_from([True, Level.LOW, Loud(7), Loud(10**40)]))
    | st.lists(integers | st.sampled_from([None, 1.0, "1", b"1", Colour.RED, Wrapped(4), [], [1]])),
    more=st.sampled_from([0, 20, 1_000]),
    is_sorted=st.booleans(),
)
def test_any_values_are_written_as_one_by_one(
    values: list[Any], more: int, is_sorted: bool
) -> None:
    values += range(more)  # of few, each is written by itself anyway
    expected = outcome(encode_elements, encode_integer, values, is_sorted=is_sorted)
    assert outcome(encode_integers, values, is_sorted=is_sorted) == expected


@pytest.mark.parametrize("number", [1, 2, 15, 16, 17, 999, 1_000, 1_001, 2_000, 2_001, 20_000])
def test_lists_of_any_number_come_back(number: int) -> None:
    values = [value * 37 - 1_000 for value in range(number)]
    data = encode_integers(values)

    assert data == encode_elements(encode_integer, values)
    assert decode_integers(data) == values


@pytest.mark.parametrize("collection", [list, tuple, set, frozenset, iter])
def test_any_collection_is_written(collection: Callable[[list[int]], Any]) -> None:
    values = [*range(100)]
    assert sorted(decode_integers(encode_integers(collection(values)))) == values
    assert max(decode_integers(encode_integers(collection([*values, 10**50])))) == 10**50


def test_equal_integers_are_written_alike() -> None:
    assert encode_integers([7] * 30 + [77_777] * 30) == list_of(*[b"7"] * 30, *[b"77777"] * 30)


def test_an_integer_that_is_too_long_is_named() -> None:
    with pytest.raises(TooLongError, match=r"^element 1 is 65,536 bytes long"):
        encode_integers([1, 10**65_535])


def test_a_bad_integer_is_located() -> None:
    with pytest.raises(DecodeError, match=r"^2: not an integer$"):
        decode_integers(list_of(b"1", b"2", b"1-2"))
