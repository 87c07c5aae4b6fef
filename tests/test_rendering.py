from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from tests import strategies
from tests.typed_values import Tree
from typed_amp import encode_box
from typed_amp.capture import CapturedBox, Fault, read_capture
from typed_amp.rendering import fault_as_json, meaning_as_json, meaning_as_text
from typed_amp.transcript import Entry, Kind, Meaning, Transcript


class Hue(Enum):
    RED = "red"


class Row(BaseModel):
    data: bytes
    pin: str = Field(default="0", repr=False)
    when: datetime | None = None


@dataclasses.dataclass
class Point:
    x: int
    pin: str = dataclasses.field(default="0", repr=False)


class Evil:
    def __repr__(self) -> str:
        return "\x1b[31m\n"


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError


def told(kind: Kind = "ask", *entries: Entry, **attributes: Any) -> Meaning:
    return Meaning(1234, 56, kind, entries=list(entries), **attributes)


def typed(value: Any) -> Entry:
    return Entry("field", value, True, 7)


# -- Text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meaning", "title"),
    [
        (told("ask", tag=b"1", command=b"Buy"), "ask 1, Buy"),
        (told("command", command=b"Log"), "Log, which wants no answer"),
        (told("answer", tag=b"\n", command=b"Buy"), r"answer to \n, Buy"),
        (told("answer", tag=b"1"), "answer to 1, whose ask is not in the capture"),
        (told("error", tag=b"1", command=b"Buy"), "error to 1, Buy: no code: "),
        (
            told(
                "error",
                tag=b"1",
                command=b"Buy",
                code=b"OUT",
                description=b"cup\x07",
                error_type="OutOfStock, fatal",
            ),
            r"error to 1, Buy: OUT (OutOfStock, fatal): cup\x07",
        ),
        (told("unknown"), "neither ask nor answer"),
    ],
)
def test_first_line_says_what_it_is(meaning: Meaning, title: str) -> None:
    assert meaning_as_text(meaning) == f"byte 1,234: {title}"


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (Entry("key", b"a b ", False, 4), "key = 'a b '"),
        (Entry("key", "é\x1b[0m\u202e".encode(), False, 9), r"key = 'é\x1b[0m\u202e'"),
        (Entry("key", b"\xff", False, 1), r"key = b'\xff'"),
        (Entry("key", b"", False, 0, note="not declared"), "key = '' (not declared)"),
        (typed("a"), "field = 'a'"),
        (typed(b"a"), "field = b'a'"),
        (typed(Decimal("1.5")), "field = Decimal('1.5')"),
        (typed(Evil()), r"field = \x1b[31m\n"),
        (typed(Rude()), "field = <RuntimeError in its repr>"),
        (typed(SecretStr("hush")), "field = SecretStr('**********')"),
    ],
)
def test_value_is_shown_on_one_line(entry: Entry, line: str) -> None:
    text = meaning_as_text(told("ask", entry))
    assert text.splitlines()[1:] == [f"    {line}"]


def test_long_value_is_cut_and_its_length_told() -> None:
    meaning = told("ask", Entry("key", b"x" * 65_535, False, 65_535, note="not declared"))
    line = f"    key = '{'x' * 199}... (65,535 bytes, not declared)"
    assert meaning_as_text(meaning).splitlines()[1] == line
    full = meaning_as_text(meaning, full=True)
    assert full.splitlines()[1] == f"    key = '{'x' * 65_535}' (not declared)"


def test_problem_comes_before_the_values() -> None:
    lines = meaning_as_text(told("ask", typed(1), problem="does not fit")).splitlines()
    assert lines[1:] == ["    ! does not fit", "    field = 1"]


@given(strategies.boxes)
def test_no_box_steers_a_terminal(box: dict[bytes, bytes]) -> None:
    (captured,) = read_capture([encode_box(box)])
    assert isinstance(captured, CapturedBox)
    meaning = Transcript({}).meaning(captured)
    lines = meaning_as_text(meaning, full=True).split("\n")
    assert len(lines) == 1 + (meaning.problem is not None) + len(meaning.entries)
    assert all(line.isprintable() for line in lines)
    assert json.loads(meaning_as_json(meaning, "file"))["kind"] == meaning.kind
    assert meaning_as_json(meaning, "file").isascii()


# -- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (2**100, 2**100),
        (0.5, 0.5),
        (float("inf"), "inf"),
        ("é\ud800", "é\\ud800"),
        ("é".encode(), "é"),
        (b"\xff", {"base64": "/w=="}),
        (Hue.RED, "red"),
        (Decimal("1.50"), "1.50"),
        (Path("/a"), "/a"),
        (datetime(2020, 1, 1, tzinfo=UTC), "2020-01-01T00:00:00Z"),
        (SecretStr("hush"), "**********"),
        ((1, [2]), [1, [2]]),
        ({1: b"a"}, {"1": "a"}),
        (Row(data=b"\xff"), {"data": {"base64": "/w=="}, "when": None}),
        (Point(x=1), {"x": 1}),
        (object, str(object)),
    ],
)
def test_typed_values_become_json(value: Any, plain: Any) -> None:
    assert json.loads(meaning_as_json(told("ask", typed(value)), "f"))["fields"] == {"field": plain}


def test_box_as_json_has_all_there_is_to_know() -> None:
    meaning = told(
        "error",
        typed(1),
        Entry("key", b"\xff", False, 1, 40, "not declared"),
        tag=b"1",
        command=b"Buy",
        code=b"OUT",
        description=b"gone",
        error_type="OutOfStock",
        problem="does not fit",
    )
    assert json.loads(meaning_as_json(meaning, "a.bin")) == {
        "file": "a.bin",
        "offset": 1234,
        "length": 56,
        "kind": "error",
        "tag": "1",
        "command": "Buy",
        "code": "OUT",
        "description": "gone",
        "error": "OutOfStock",
        "problem": "does not fit",
        "fields": {"field": 1},
        "pairs": [{"key": "key", "offset": 40, "value": {"base64": "/w=="}}],
    }


def test_fault_as_json_has_all_there_is_to_know() -> None:
    assert json.loads(fault_as_json(Fault("ends", 9, 2, b"k", 3), "-")) == {
        "file": "-",
        "offset": 9,
        "kind": "fault",
        "problem": "ends",
        "box": 2,
        "key": "k",
        "missing": 3,
    }
    assert not {"key", "missing"} & set(json.loads(fault_as_json(Fault("bad", 9, 2), "-")))


@given(st.floats() | st.text() | st.binary() | st.integers())
def test_any_value_becomes_json_of_the_standard(value: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = meaning_as_json(told("ask", typed(value)), "f")
    json.loads(line, parse_constant=refuse)


def test_value_that_is_nested_deeper_than_can_be_shown() -> None:
    tree = Tree(name="leaf")
    for _ in range(1_000):
        tree = Tree(name="branch", children=[tree])
    meaning = told("ask", typed(tree), Entry("other", 1, True, 1))
    fields = json.loads(meaning_as_json(meaning, "capture"))["fields"]
    assert fields == {"field": "<nested too deep to be shown>", "other": 1}
    assert "field = " in meaning_as_text(meaning)
