from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import tracemalloc
import zlib
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Secret, SecretBytes

from tests import strategies  # the profile of hypothesis
from tests.peers import LogCapture, joined, raw_client_of
from typed_amp import (
    Box,
    BoxReader,
    Codec,
    Command,
    CommandError,
    DecodeError,
    DefinitionError,
    EncodeError,
    Json,
    Key,
    Large,
    Limits,
    Router,
    TooLongError,
    UnknownRemoteError,
    encode_box,
)
from typed_amp.planning import plan_for

FULL = 65_535


def written(model: Any, head: bytes = b"") -> Box:
    """Give what a model becomes, as a box. Head stands in where a model has no pair of its own."""
    (box,) = BoxReader(Limits(max_box_bytes=2**30)).feed(plan_for(type(model)).encode(model, head))
    return box


def read(model: Any, box: Box) -> Any:
    return plan_for(model).decode(box)


def lengths(box: Box) -> dict[bytes, int]:
    return {key: len(value) for key, value in box.items()}


class Bytes(BaseModel):
    data: Annotated[bytes, Large()]


class ZeroBased(BaseModel):
    data: Annotated[bytes, Large(zero_based=True)]


class Compressed(BaseModel):
    data: Annotated[bytes, Large(compressed=True)]


class ZeroBasedCompressed(BaseModel):
    data: Annotated[bytes, Large(zero_based=True, compressed=True)]


# -- What goes over the wire, byte for byte ----------------------------------------------------


@pytest.mark.parametrize(
    ("size", "pairs"),
    [
        (0, {b"data": 0}),
        (1, {b"data": 1}),
        (FULL, {b"data": FULL}),
        (FULL + 1, {b"data": FULL, b"data.2": 1}),
        (2 * FULL, {b"data": FULL, b"data.2": FULL}),
        (200_000, {b"data": FULL, b"data.2": FULL, b"data.3": FULL, b"data.4": 3_395}),
    ],
)
def test_slices_are_the_published_ones(size: int, pairs: dict[bytes, int]) -> None:
    data = random.Random(size).randbytes(size)
    box = written(Bytes(data=data))
    assert lengths(box) == pairs
    assert b"".join(box.values()) == data
    assert read(Bytes, box) == Bytes(data=data)


def test_slices_of_mediumbox_to_the_byte() -> None:
    data = plan_for(Bytes).encode(Bytes(data=b"a" * FULL + b"b"), b"")
    assert data == b"\0\4data\xff\xff" + b"a" * FULL + b"\0\6data.2\0\1b" + b"\0\0"


@pytest.mark.parametrize(
    ("size", "pairs"),
    [
        (0, {b"data.0": 0}),
        (FULL, {b"data.0": FULL}),
        (FULL + 1, {b"data.0": FULL, b"data.1": 1}),
    ],
)
def test_slices_of_flocker_and_joinmarket_are_numbered_from_zero(
    size: int, pairs: dict[bytes, int]
) -> None:
    data = random.Random(size).randbytes(size)
    box = written(ZeroBased(data=data))
    assert lengths(box) == pairs
    assert b"".join(box.values()) == data
    assert read(ZeroBased, box) == ZeroBased(data=data)


def test_slices_of_flocker_to_the_byte() -> None:
    data = plan_for(ZeroBased).encode(ZeroBased(data=b"a" * FULL + b"b"), b"")
    assert data == b"\0\6data.0\xff\xff" + b"a" * FULL + b"\0\6data.1\0\1b" + b"\0\0"


def test_empty_value_of_flocker_and_joinmarket_is_no_key() -> None:
    assert read(ZeroBased, {}) == ZeroBased(data=b"")
    assert read(ZeroBased, {b"data": b"never looked at"}) == ZeroBased(data=b"")
    assert read(ZeroBasedCompressed, {}) == ZeroBasedCompressed(data=b"")


class Joinmarket(BaseModel):
    text: Annotated[str, Large(zero_based=True)]


def test_text_of_joinmarket_is_cut_within_characters() -> None:
    text = "a" + "€" * 30_000
    box = written(Joinmarket(text=text))
    assert box == {b"text.0": text.encode()[:FULL], b"text.1": text.encode()[FULL:]}
    with pytest.raises(UnicodeDecodeError):
        box[b"text.0"].decode()
    assert read(Joinmarket, box) == Joinmarket(text=text)


def test_slices_of_evennia_are_compressed_each_by_itself() -> None:
    data = bytes(range(250)) * 400
    box = written(Compressed(data=data))
    assert box == {
        b"data": zlib.compress(data[:65_000], 9),
        b"data.2": zlib.compress(data[65_000:], 9),
    }
    assert box[b"data"][:2] == b"\x78\xda"  # level 9
    assert read(Compressed, box) == Compressed(data=data)


def test_empty_value_of_evennia_is_compressed_too() -> None:
    assert written(Compressed(data=b"")) == {b"data": b"\x78\xda\x03\0\0\0\0\1"}


def test_longer_slices_of_evennia_are_read() -> None:
    data = b"evennia " * 25_000
    box = {
        b"data": zlib.compress(data[:FULL], 9),
        b"data.2": zlib.compress(data[FULL : 2 * FULL], 9),
        b"data.3": zlib.compress(data[2 * FULL : 3 * FULL], 9),
        b"data.4": zlib.compress(data[3 * FULL :], 9),
    }
    assert read(Compressed, box) == Compressed(data=data)


@pytest.mark.parametrize("slice_bytes", [None, 65_500])
def test_slice_that_can_not_be_compressed_fits(slice_bytes: int | None) -> None:
    large = Large(compressed=True, slice_bytes=slice_bytes)
    data = os.urandom(200_000)
    pairs = large.encode(b"data", data)
    (box,) = BoxReader().feed(pairs + b"\0\0")
    assert max(map(len, box.values())) > (slice_bytes or 65_000)
    assert large.decode(b"data", box) == data


def test_slices_may_be_shorter() -> None:
    pairs = Large(slice_bytes=10_000).encode(b"k", bytes(25_000))
    (box,) = BoxReader().feed(pairs + b"\0\0")
    assert lengths(box) == {b"k": 10_000, b"k.2": 10_000, b"k.3": 5_000}


def test_shortest_slices_of_a_longest_box_keep_within_the_most_keys() -> None:
    limits = Limits()
    data = bytes(limits.max_box_bytes - 20_000)
    pairs = Large(slice_bytes=8_192).encode(b"k", data)
    (box,) = BoxReader(limits).feed(pairs + b"\0\0")
    assert len(box) <= limits.max_keys / 2


# -- Reading -----------------------------------------------------------------------------------


def test_reading_stops_at_the_first_gap() -> None:
    box = {b"data": b"a", b"data.2": b"b", b"data.4": b"d", b"data.02": b"x", b"data.1": b"y"}
    assert read(Bytes, box) == Bytes(data=b"ab")
    assert read(ZeroBased, {b"data.0": b"a", b"data.2": b"c"}) == ZeroBased(data=b"a")


def test_first_slice_that_is_missing_is_a_missing_field() -> None:
    with pytest.raises(DecodeError, match=r"^data: Field required"):
        read(Bytes, {b"data.2": b"b"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "slice 2 ends before the end of what zlib compressed"),
        (zlib.compress(b"abc")[:-1], "slice 2 ends before the end of what zlib compressed"),
        (zlib.compress(b"abc") + b"x", "slice 2 goes on after the end of what zlib compressed"),
        (b"abc", "slice 2 is not compressed by zlib, or damaged"),
        (zlib.compress(b"abc")[:-1] + b"x", "slice 2 is not compressed by zlib, or damaged"),
        (b"\x78\xbb\0\0\0\1" + bytes(10), "slice 2 is not compressed by zlib, or damaged"),
    ],
    ids=["empty", "cut off", "trailing", "plain", "wrong checksum", "wants a dictionary"],
)
def test_slice_that_zlib_can_not_inflate_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read(Compressed, {b"data": zlib.compress(b"abc"), b"data.2": data})
    assert str(caught.value) == f"data: {reason}"


EVERY_FORM = [
    pytest.param(options, id=", ".join(options) or "as published")
    for options in (
        {},
        {"zero_based": True},
        {"compressed": True},
        {"zero_based": True, "compressed": True},
    )
]


@pytest.mark.parametrize("options", EVERY_FORM)
@given(
    size=st.sampled_from([0, 1, 8_192, 8_193, 65_000, 65_001, FULL, FULL + 1, 2 * FULL, 140_000])
    | st.integers(0, 300_000),
    slice_bytes=st.none() | st.sampled_from([32_768, 65_000, 65_500]),
    key=st.binary(min_size=1, max_size=250),
)
def test_value_comes_back(
    options: dict[str, bool], size: int, slice_bytes: int | None, key: bytes
) -> None:
    large = Large(**options, slice_bytes=slice_bytes, max_bytes=300_000)
    data = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    pairs = large.encode(key, data)
    (box,) = BoxReader().feed(pairs + b"\0\0")
    assert (key in box) != options.get("zero_based", False)
    assert large.decode(key, box) == data
    assert set(large.keys_in(key, box)) == set(box)


slices = st.one_of(
    st.binary(max_size=20),
    st.binary(max_size=20).map(zlib.compress),
    st.integers(0, 2_000).map(lambda size: zlib.compress(bytes(size))),
)
slice_keys = st.sampled_from([b"data", *(b"data.%d" % number for number in range(5))])


@pytest.mark.parametrize("options", EVERY_FORM)
@given(box=st.dictionaries(slice_keys | strategies.keys, slices, max_size=6))
def test_any_box_is_a_value_or_a_decode_error(options: dict[str, bool], box: Box) -> None:
    large = Large(**options, max_bytes=1_500)
    try:
        data = large.decode(b"data", box)
    except DecodeError:
        assert b"data" in box or b"data.0" in box
    else:
        first = b"data.0" if options.get("zero_based") else b"data"
        assert (data is None) == (first not in box)
        assert len(data or b"") <= 1_500


# -- How long a value may be ------------------------------------------------------------------


class Small(Command):
    data: Annotated[bytes, Large(max_bytes=100_000)]


class SmallCompressed(Command):
    data: Annotated[bytes, Large(compressed=True, max_bytes=100_000)]


@pytest.mark.parametrize("command", [Small, SmallCompressed])
def test_value_of_exactly_the_longest_is_carried_and_no_longer_one(command: Any) -> None:
    longest = command(data=bytes(100_000))
    assert read(command, written(longest)) == longest

    with pytest.raises(TooLongError) as too_long:
        written(command(data=bytes(100_001)))
    error = too_long.value
    assert (error.what, error.length, error.limit) == (f"{command.__name__}.data", 100_001, 100_000)
    assert str(error) == (
        f"{command.__name__}.data is 100,001 bytes long; its Large() allows at most 100,000."
        " Raise max_bytes on both sides"
    )

    box = written(longest)
    last = next(reversed(box))
    compressed = command is SmallCompressed
    box[last] = zlib.compress(bytes(35_001)) if compressed else box[last] + b"x"
    with pytest.raises(DecodeError, match=r"^data: more than 100,000 bytes \(Large\.max_bytes\)"):
        read(command, box)


def test_bomb_is_not_inflated() -> None:
    large = Large(compressed=True, max_bytes=100_000)
    bomb = zlib.compress(bytes(60_000_000), 9)
    assert len(bomb) < FULL
    box = {b"data": zlib.compress(bytes(99_990)), **{b"data.%d" % n: bomb for n in range(2, 1_000)}}
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="more than 100,000 bytes"):
            large.decode(b"data", box)
        with pytest.raises(DecodeError, match="more than 100,000 bytes"):
            large.decode(b"data", {b"data": bomb})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # what comes out, and what zlib needs to work


def test_int_of_many_digits_is_read_in_time() -> None:
    class Number(BaseModel):
        number: Annotated[int, Large()]

    digits = b"7" * 300_000
    value = read(Number, {b"number": digits[:FULL], b"number.2": digits[FULL : 2 * FULL]})
    assert value.number == int(Decimal("7" * 2 * FULL))
    assert written(Number(number=-(10**100_000))) == {
        b"number": b"-1" + b"0" * (FULL - 2),
        b"number.2": b"0" * (100_002 - FULL),
    }


# -- Which fields may be large ------------------------------------------------------------------


class Reversed(Codec[bytes]):
    def encode(self, value: bytes) -> bytes:
        return value[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


class Row(BaseModel):
    name: str
    note: Annotated[str, Large()] = ""


class Everything(Command):
    texts: Annotated[list[str], Large()]
    rows: Annotated[list[Row], Large()]
    row: Annotated[Row, Large()]
    words: Annotated[dict[str, int], Json(), Large()]
    reversed: Annotated[bytes, Reversed(), Large()]
    secret: Annotated[SecretBytes, Large(compressed=True)]
    number: Annotated[int, Large()]
    kept: Annotated[str, Key("kept under"), Large(zero_based=True)]
    optional: Annotated[bytes, Large()] | None = None
    outside: Annotated[str | None, Large(zero_based=True)]
    default: Annotated[str, Large()] = "as ever"
    zero_based_default: Annotated[str, Large(zero_based=True)] = "as ever"


LONG = Everything(
    texts=["a" * FULL, "b" * FULL],
    rows=[Row(name="n", note="c" * 70_000), Row(name="m")],
    row=Row(name="o", note="d" * 140_000),
    words={"e" * 50_000: 1, "f" * 50_000: 2},
    reversed=b"g" * 70_000 + b"h",
    secret=SecretBytes(bytes(70_000)),
    number=10**70_000,
    kept="i" * 70_000,
    optional=b"j" * 70_000,
    outside="k" * 70_000,
    default="l" * 70_000,
    zero_based_default="m" * 70_000,
)
SHORT = Everything(
    texts=[],
    rows=[],
    row=Row(name=""),
    words={},
    reversed=b"",
    secret=SecretBytes(b""),
    number=0,
    kept="",
    outside=None,
)


@pytest.mark.parametrize("command", [LONG, SHORT], ids=["long", "short"])
def test_every_kind_of_field_comes_back(command: Everything) -> None:
    assert read(Everything, written(command)) == command


def test_keys_of_every_kind_of_field() -> None:
    assert {b"kept under.0", b"kept under.1", b"optional.2", b"rows.2"} <= set(written(LONG))
    keys = set(written(SHORT))
    assert {b"kept under.0", b"default", b"zero_based_default.0"} <= keys
    assert not keys & {b"optional", b"outside", b"outside.0", b"kept under"}


def test_missing_slices_are_none_or_the_default() -> None:
    box = written(SHORT)
    del box[b"default"], box[b"zero_based_default.0"], box[b"kept under.0"]
    command = read(Everything, box)
    assert (command.optional, command.outside) == (None, None)
    assert (command.default, command.zero_based_default) == ("as ever", "as ever")
    assert command.kept == ""


def test_bytes_are_reversed_as_a_whole() -> None:
    box = written(LONG)
    assert box[b"reversed"] == b"h" + b"g" * (FULL - 1)


def test_error_in_a_field_names_it() -> None:
    box = {**written(SHORT), b"default": b"\xff"}
    with pytest.raises(DecodeError, match=r"^default: not UTF-8$"):
        read(Everything, box)
    box = {**written(SHORT), b"secret": b"plain"}
    with pytest.raises(DecodeError, match=r"^secret: slice 1 is not compressed by zlib"):
        read(Everything, box)
    with pytest.raises(EncodeError, match=r"^Everything\.default: a text with surrogates"):
        written(SHORT.model_copy(update={"default": "\ud800"}))


class Overflowing(Codec[int]):
    def encode(self, value: int) -> bytes:
        return value.to_bytes(1, "big")

    def decode(self, data: bytes) -> int:
        return int.from_bytes(data, "big")


def test_codec_that_overflows_is_not_taken_for_a_value_too_long() -> None:
    class Number(BaseModel):
        number: Annotated[int, Overflowing(), Large()]

    with pytest.raises(EncodeError, match=r"Number\.number: Overflowing can't write"):
        written(Number(number=256))


@dataclasses.dataclass
class Plain:
    text: Annotated[str, Large()]
    more: Annotated[str | None, Large()] = None


def test_dataclass_has_large_fields_too() -> None:
    for plain in (Plain("a" * 70_000), Plain("", "b" * 70_000)):
        assert read(Plain, written(plain)) == plain


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: Annotated[bytes, Large()]
    more: Annotated[bytes, Large(zero_based=True)]


def test_model_that_forbids_other_keys_takes_those_of_slices() -> None:
    strict = Strict(data=bytes(200_000), more=bytes(200_000))
    assert read(Strict, written(strict)) == strict


@pytest.mark.parametrize("key", [b"data.1", b"data.3", b"data.02", b"data.", b"more", b"more.1"])
def test_model_that_forbids_other_keys_refuses_what_is_no_slice(key: bytes) -> None:
    with pytest.raises(DecodeError, match=f"^{key.decode()}: no such field"):
        read(Strict, {b"data": b"", key: b""})


# -- What can never work --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"slice_bytes": 8_191}, r"slice_bytes=\.\.\.\) is 8,192 to 65,535, not 8191"),
        ({"slice_bytes": 65_536}, r"is 8,192 to 65,535, not 65536"),
        ({"slice_bytes": 32_767, "compressed": True}, r"is 32,768 to 65,500 with compressed"),
        ({"slice_bytes": 65_501, "compressed": True}, "to 65,500 with compressed=True, not 65501"),
        ({"slice_bytes": 10_000.0}, r"slice_bytes=\.\.\.\).*not 10000\.0"),
        ({"max_bytes": 0}, r"max_bytes=\.\.\.\) is 1 or more, not 0"),
        ({"max_bytes": None}, "max_bytes.*not None"),
        ({"max_bytes": True}, "max_bytes.*not True"),
        ({"zero_based": 1}, r"zero_based=\.\.\.\) is True or False, not 1"),
        ({"compressed": "zlib"}, "compressed.*not 'zlib'"),
    ],
)
def test_impossible_option(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        Large(**options)


def test_mark_says_what_it_does() -> None:
    assert repr(Large()) == "Large(slice_bytes=65535, max_bytes=16777216)"
    large = Large(zero_based=True, compressed=True, max_bytes=5)
    assert repr(large) == (
        "Large(zero_based=True, compressed=True, slice_bytes=65000, max_bytes=5)"
    )


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Annotated[bytes, Large], "Large stands there as a class; write an instance"),
        (Annotated[bytes, Large, Json()], "Large stands there as a class; write an instance"),
        (Annotated[bytes, Large(), Large()], r"Large and Large stand beside one type .*; keep one"),
        (list[Annotated[bytes, Large()]], r"within the brackets of a list; .* put it around them"),
        (list[Annotated[Row, Large()]], "within the brackets of a list"),
        (Secret[Annotated[bytes, Large()]], "within the brackets of a secret"),
    ],
    ids=["class", "class beside Json()", "twice", "element", "row", "secret"],
)
def test_mark_at_the_wrong_place(annotation: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=rf"Wrong\.field: .*{reason}"):
        type("Wrong", (Command,), {"__annotations__": {"field": annotation}})


@pytest.mark.parametrize(
    ("large", "key"),
    [
        (Large(), "data.2"),
        (Large(), "data.17"),
        (Large(zero_based=True), "data.0"),
        (Large(zero_based=True), "data.1"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_key_that_a_slice_may_have(large: Large, key: str, is_first: bool) -> None:
    fields = {"data": Annotated[bytes, large], "other": Annotated[str, Key(key)]}
    names = sorted(fields, reverse=is_first)
    with pytest.raises(DefinitionError) as caught:
        type("Wrong", (Command,), {"__annotations__": {name: fields[name] for name in names}})
    assert str(caught.value).startswith(
        f"Wrong.other: a slice of Wrong.data, which is marked with Large(), may have its key, {key}"
    )


def test_keys_that_only_look_like_those_of_slices() -> None:
    class Right(BaseModel):
        data: Annotated[bytes, Large()]
        zero: Annotated[str, Key("data.0")] = ""
        one: Annotated[str, Key("data.1")] = ""
        two: Annotated[str, Key("data.02")] = ""
        dot: Annotated[str, Key("data.")] = ""
        plus: Annotated[str, Key("data.+2")] = ""
        deeper: Annotated[str, Key("data.2.2")] = ""
        far: Annotated[bytes, Key("data.x"), Large()] = b""

    right = Right(data=bytes(200_000), far=bytes(200_000))
    assert read(Right, written(right)) == right


@pytest.mark.parametrize(
    ("large", "longest"),
    [
        (Large(max_bytes=FULL), 255),  # never cut
        (Large(max_bytes=9 * FULL), 253),
        (Large(max_bytes=9 * FULL + 1), 252),
        (Large(zero_based=True, max_bytes=10 * FULL), 253),
        (Large(zero_based=True, max_bytes=10 * FULL + 1), 252),
    ],
)
def test_key_leaves_room_for_the_numbers(large: Large, longest: int) -> None:
    (box,) = BoxReader().feed(large.encode(b"k" * longest, bytes(large.max_bytes)) + b"\0\0")
    assert max(map(len, box)) == 255

    def command(length: int) -> Any:
        field = Annotated[bytes, Key("k" * length), large]
        return type("Long", (Command,), {"__annotations__": {"field": field}})

    assert command(longest)
    with pytest.raises(
        DefinitionError, match=rf"Long\.field: .*AMP allows 1 to {longest}, so that the keys of its"
    ):
        command(longest + 1)


# -- Over a connection -----------------------------------------------------------------------------


class Answer(BaseModel):
    text: Annotated[str, Large()]
    short: str = ""


class RefusedError(CommandError):
    report: Annotated[str, Large(zero_based=True)]


class Process(Command[Answer], errors={RefusedError: "REFUSED"}):
    text: Annotated[str, Large(max_bytes=1_000_000)]
    rows: Annotated[list[Row], Large()] = []
    refuse: bool = False
    short: str = ""


router = Router()


@router.responder(Process)
async def process(command: Process) -> Answer:
    if command.refuse:
        raise RefusedError(report=command.text[::-1])
    return Answer(text=command.text + "".join(row.note for row in command.rows))


async def test_large_values_in_commands_rows_answers_and_errors() -> None:
    text = "ä" * 99_999 + "b"
    rows = [Row(name="a", note="r" * 100_000), Row(name="b", note="s")] * 2
    async with joined(router) as (client, _):
        answer = await client.call(Process(text=text, rows=rows))
        assert answer.text == text + ("r" * 100_000 + "s") * 2
        with pytest.raises(RefusedError) as caught:
            await client.call(Process(text=text, refuse=True))
        assert caught.value.report == text[::-1]


async def test_value_too_long_is_said_at_the_caller_and_nothing_is_sent() -> None:
    async with joined(router) as (client, _):
        with pytest.raises(TooLongError) as unmarked:
            await client.call(Process(text="", short="s" * 70_000))
        assert str(unmarked.value) == (
            "Process.short is 70,000 bytes long; AMP carries at most 65,535 in one value."
            " Mark the field with Large() on both sides to send it in slices"
        )
        with pytest.raises(TooLongError, match=r"Process\.text is 1,000,001 bytes .* max_bytes"):
            await client.call(Process(text="t" * 1_000_001))
        assert (await client.call(Process(text="t"))).text == "t"


async def test_answer_too_long_is_said_in_the_log(log: LogCapture) -> None:
    boasting = Router()

    @boasting.responder(Process)
    async def boast(command: Process) -> Answer:
        return Answer(text="", short="s" * 70_000)

    async with joined(boasting) as (client, _):
        with pytest.raises(UnknownRemoteError):
            await client.call(Process(text=""))
    assert (
        "Answer.short is 70,000 bytes long; AMP carries at most 65,535 in one value."
        " Mark the field with Large() on both sides to send it in slices" in log.only_line()
    )


async def test_value_too_long_for_the_reader_costs_the_call() -> None:
    class Longer(Command[Answer], name="Process"):
        text: Annotated[str, Large()]

    async with joined(router) as (client, _):
        with pytest.raises(ValueError, match=r"text: more than 1,000,000 bytes \(Large"):
            await client.call(Longer(text="t" * 1_000_001))
        assert (await client.call(Process(text="t"))).text == "t"


def ask_in_slices(data: bytes) -> Box:
    box = {b"_command": b"Process", b"_ask": b"1", b"text": data[:FULL]}
    for number, start in enumerate(range(FULL, len(data), FULL), 2):
        box[b"text.%d" % number] = data[start : start + FULL]
    return box


class Unpack(Command):
    data: Annotated[bytes, Large(compressed=True, max_bytes=100_000)]


async def test_bomb_costs_its_call_and_nothing_else() -> None:
    unpacking = Router()
    taken: list[bytes] = []

    @unpacking.responder(Unpack)
    async def unpack(command: Unpack) -> None:
        taken.append(command.data)

    ask = {b"_command": b"Unpack", b"_ask": b"1"}
    async with raw_client_of(unpacking) as (peer, _):
        answer = await peer.ask({**ask, b"data": zlib.compress(bytes(60_000_000), 9)})
        assert answer[b"_error_code"] == b"INVALID_ARGUMENTS"
        assert answer[b"_error_description"] == b"data: more than 100,000 bytes (Large.max_bytes)"
        answer = await peer.ask({**ask, b"data": zlib.compress(b"good")})
        assert answer == {b"_answer": b"1"}
    assert taken == [b"good"]


async def test_box_of_slices_keeps_within_the_limit_of_a_box(log: LogCapture) -> None:
    limits = Limits(max_box_bytes=300_000)
    box = ask_in_slices(b"t" * 299_000)
    assert len(encode_box(box)) <= 300_000
    async with raw_client_of(router, limits=limits) as (peer, _):
        await peer.send(box)
        assert (await peer.receive())[b"_answer"] == b"1"
    box = ask_in_slices(b"t" * 300_000)
    async with raw_client_of(router, limits=limits) as (peer, _):
        await peer.write(encode_box(box)[:299_990])  # its end, which never comes, is announced
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):  # of what it left unread
                assert await peer.is_at_end()
    assert "more than 300,000 bytes (Limits.max_box_bytes)" in log.only_line()
