from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, NewType

import pytest
from pydantic import BaseModel, Field, PlainSerializer, Secret, SecretBytes, SecretStr

from typed_amp import Box, Command, CommandError, Descriptor, Json, Key, Large
from typed_amp.box import encode_pairs
from typed_amp.capture import CapturedBox, read_capture
from typed_amp.transcript import HIDDEN, Asks, Meaning, Transcript


class Receipt(BaseModel):
    price: int


class OutOfStock(CommandError):
    sku: str
    left: int = 0


class Broken(Exception):
    pass


class Buy(
    Command[Receipt], errors={OutOfStock: "OUT", KeyError: "KEY"}, fatal_errors={Broken: "BROKEN"}
):
    sku: str
    from_: Annotated[str, Key("from")] = "nobody"
    times: int | None = None


class Ping(Command):
    pass


class Card(BaseModel):
    number: SecretStr


@dataclasses.dataclass
class Note:
    text: str
    pin: str = dataclasses.field(default="", repr=False)


Number = NewType("Number", SecretStr)
Shown = Annotated[Secret[int], PlainSerializer(Secret[int].get_secret_value)]


class Pay(Command):
    code: SecretBytes
    others: list[Number] = []
    hue: Literal["red", "blue"] = "red"
    cards: list[Card] = []
    notes: list[Note] = []
    amounts: Annotated[dict[str, Shown], Json()] = {}
    pin: str = Field(default="", repr=False)
    numbers: list[int] = []


class Copy(Command):
    data: Annotated[bytes, Large()] = b""
    target: Annotated[int, Descriptor()]


SIGNATURES: Any = {
    command.__amp_signature__().name: command.__amp_signature__()
    for command in (Buy, Ping, Pay, Copy)
}


def captured(*boxes: Box) -> list[CapturedBox]:
    data = b"".join(encode_pairs(box) + b"\0\0" for box in boxes)
    items = [item for item in read_capture([data]) if isinstance(item, CapturedBox)]
    assert len(items) == len(boxes)
    return items


def meanings(*boxes: Box, signatures: Any = SIGNATURES) -> list[Meaning]:
    transcript = Transcript(signatures)
    return [transcript.meaning(box) for box in captured(*boxes)]


def meaning(*boxes: Box, signatures: Any = SIGNATURES) -> Meaning:
    """Say what the last of these boxes means."""
    return meanings(*boxes, signatures=signatures)[-1]


def values(meaning: Meaning) -> dict[str, Any]:
    return {entry.name: entry.value for entry in meaning.entries}


ASK = {b"_ask": b"1", b"_command": b"Buy", b"sku": b"cup"}

# -- Kinds ----------------------------------------------------------------------------------------


def test_boxes_are_told_apart() -> None:
    told = meanings(
        ASK,
        {b"_command": b"Ping"},
        {b"_answer": b"1", b"price": b"3"},
        {b"_error": b"2", b"_error_code": b"OUT", b"_error_description": b"none left"},
        {b"_ask": b"1", b"sku": b"cup"},
    )
    assert [box.kind for box in told] == ["ask", "command", "answer", "error", "unknown"]
    assert [box.tag for box in told] == [b"1", None, b"1", b"2", None]
    assert [box.command for box in told] == [b"Buy", b"Ping", b"Buy", None, None]
    assert (told[3].code, told[3].description) == (b"OUT", b"none left")
    assert [box.is_violation for box in told] == [False] * 4 + [True]
    assert told[4].problem == "a box with none of _command, _answer and _error"


def test_untyped_values_are_their_bytes_and_have_their_places() -> None:
    told = meaning({b"_command": b"Other", b"k\n": b"\xff", b"_route": b""})
    assert values(told) == {"k\\n": b"\xff", "_route": b""}
    (first, second) = told.entries
    assert not first.is_typed
    assert (first.offset, first.length, second.length) == (17 + 0, 1, 0)


# -- Which ask an answer belongs to ----------------------------------------------------------------


def test_answer_belongs_to_the_ask_with_its_tag() -> None:
    ping = {b"_ask": b"2", b"_command": b"Ping"}
    assert meaning(ASK, ping, {b"_answer": b"2"}).command == b"Ping"
    assert meaning(ASK, ping, {b"_answer": b"1", b"price": b"1"}).command == b"Buy"
    assert meaning(ASK, ping, {b"_answer": b"3"}).command is None


def test_tag_that_is_used_again_belongs_to_the_later_ask() -> None:
    answer = {b"_answer": b"1", b"price": b"1"}
    ping = {b"_ask": b"1", b"_command": b"Ping"}
    told = meanings(ASK, answer, ping, answer)
    assert [box.command for box in told] == [b"Buy", b"Buy", b"Ping", b"Ping"]
    assert [box.problem for box in told] == [None] * 4


def test_second_answer_is_told_from_one_without_an_ask() -> None:
    error = {b"_error": b"1", b"_error_code": b"OUT", b"_error_description": b"none left"}
    answer = {b"_answer": b"1", b"price": b"3"}
    told = meanings(ASK, answer, error, {b"_answer": b"1"}, {b"_answer": b"2"}, ASK, answer)
    already = "this ask was answered already"
    assert [(box.command, box.problem) for box in told[1:]] == [
        (b"Buy", None),
        (b"Buy", f"{already}; does not fit Buy: sku: Field required"),
        (b"Buy", f"{already}; does not fit Buy: the answer to Buy.price: Field required"),
        (None, None),
        (b"Buy", None),
        (b"Buy", None),
    ]
    assert values(told[1]) == {"price": 3}
    assert not any(box.is_violation for box in told)


def test_answers_of_long_ago_are_forgotten() -> None:
    asks = [{b"_ask": b"%x" % n, b"_command": b"Ping"} for n in range(2_000)]
    answers = [{b"_answer": b"%x" % n} for n in range(2_000)]
    told = meanings(*asks, *answers, answers[0], answers[-1])
    assert [box.command for box in told[-2:]] == [None, b"Ping"]


def test_second_answer_takes_no_ask_of_its_own_side() -> None:
    own, other = Asks(), Asks()
    own.note({b"_ask": b"1", b"_command": b"Ping"})
    other.note(ASK)
    transcript = Transcript(SIGNATURES, [other], own)
    answer = {b"_answer": b"1", b"price": b"1"}
    told = [transcript.meaning(box) for box in captured(answer, answer)]
    assert [box.command for box in told] == [b"Buy", b"Buy"]
    (answer_to_own,) = captured({b"_answer": b"1"})
    assert Transcript(SIGNATURES, [own], other).meaning(answer_to_own).command == b"Ping"


# -- Typed values ---------------------------------------------------------------------------------


def test_values_are_those_of_the_model() -> None:
    told = meaning({**ASK, b"from": b"ann", b"other": b"x"})
    assert values(told) == {"sku": "cup", "from_": "ann", "times": None, "other": b"x"}
    assert [entry.is_typed for entry in told.entries] == [True, True, True, False]
    assert [entry.note for entry in told.entries] == ["", "", "left out", "not declared"]
    assert told.problem is None


def test_answer_is_typed_by_its_ask() -> None:
    assert values(meaning(ASK, {b"_answer": b"1", b"price": b"3"})) == {"price": 3}
    ping = {b"_ask": b"1", b"_command": b"Ping"}
    assert values(meaning(ping, {b"_answer": b"1", b"x": b"3"})) == {"x": b"3"}


def test_box_that_does_not_fit_says_why_and_shows_what_can_be_read() -> None:
    told = meaning({b"_command": b"Buy", b"times": b" 1", b"from": b"ann"})
    assert told.problem == "does not fit Buy: times: not an integer"
    assert values(told) == {"from_": "ann", "times": b" 1"}
    assert [entry.note for entry in told.entries] == ["", "can't be read"]
    assert meaning({b"_command": b"Buy"}).problem == "does not fit Buy: sku: Field required"
    told = meaning(ASK, {b"_answer": b"1", b"price": b"x"})
    assert told.problem == "does not fit Buy: the answer to Buy.price: not an integer"


def test_declared_error_is_its_class_with_its_fields() -> None:
    error = {b"_error": b"1", b"_error_code": b"OUT", b"_error_description": b"gone"}
    told = meaning(ASK, {**error, b"sku": b"cup"})
    assert (told.error_type, told.problem) == ("OutOfStock", None)
    assert values(told) == {"sku": "cup", "left": 0}
    told = meaning(ASK, error)
    assert told.problem == "does not fit Buy: sku: Field required"
    assert meaning(ASK, {**error, b"_error_code": b"KEY"}).error_type == "KeyError"
    assert meaning(ASK, {**error, b"_error_code": b"BROKEN"}).error_type == "Broken, fatal"
    for code in (b"UNKNOWN", b"OTHER"):
        told = meaning(ASK, {**error, b"_error_code": code, b"sku": b"cup"})
        assert (told.error_type, told.problem, values(told)) == (None, None, {"sku": b"cup"})


# -- Secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "box",
    [
        pytest.param({b"code": b"hush"}, id="good"),
        pytest.param({b"code": b"hush", b"pin": b"hush", b"numbers": b"x"}, id="another is bad"),
        pytest.param({b"code": b"hush", b"cards": b"\0\6number\0\4hush\0\0"}, id="in a row"),
        pytest.param({b"code": b"hush", b"cards": b"\0\6number\0\5hush\0\0"}, id="in a bad row"),
        pytest.param({b"code": b"hush", b"notes": b"\0\3pin\0\4hush\0\0"}, id="in a bad note"),
        pytest.param({b"code": b"hush", b"amounts": b'{"a": "hush"}'}, id="in bad JSON"),
        pytest.param({b"code": b"hush", b"others": b"\0\5hush"}, id="under another name"),
        pytest.param({b"code": b"\xff", b"pin": b"\xffhush"}, id="not UTF-8"),
    ],
)
def test_what_a_model_hides_is_never_shown(box: Box) -> None:
    told = meaning({b"_command": b"Pay", **box})
    assert "hush" not in repr(told)


def test_what_is_bad_and_no_secret_is_shown() -> None:
    box = {b"code": b"x", b"numbers": b"\0\5abc", b"pin": b"1", b"hue": b"\xff"}
    told = meaning({b"_command": b"Pay", **box})
    assert told.problem is not None
    assert values(told)["numbers"] == b"\0\5abc"
    assert values(told)["hue"] == b"\xff"
    assert values(told)["pin"] is HIDDEN


COPY = {b"_command": b"Copy", b"target": b"3", b"data": b"ab", b"data.2": b"c"}


def test_long_value_is_one_value() -> None:
    data, target = meaning(COPY).entries
    assert (data.value, data.length, data.is_typed) == (b"abc", 3, True)
    assert data.offset == meaning(COPY).length - len(b"\0\4data\0\2ab\0\6data.2\0\1c\0\0")
    assert target.name == "target"


def test_long_value_of_a_box_that_does_not_fit() -> None:
    told = meaning({**COPY, b"target": b"x", b"data.4": b"beyond the gap"})
    assert values(told) == {"data": b"abc", "target": b"x", "data.4": b"beyond the gap"}
    assert told.problem == "does not fit Copy: target: not an integer"


def test_descriptor_is_its_number() -> None:
    told = meaning(COPY)
    assert told.problem is None
    assert (told.entries[1].value, told.entries[1].note) == (3, "the number of a descriptor")
