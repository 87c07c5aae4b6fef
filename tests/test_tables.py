from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel, Field, SecretStr

from typed_amp.load import Result
from typed_amp.tables import answer_as_table, result_as_plain, result_as_table


class Color(Enum):
    RED = "red"


class Line(BaseModel):
    sku: str
    count: int = 1


@dataclass
class Place:
    town: str


class Receipt(BaseModel):
    total: Decimal
    day: date
    color: Color
    lines: list[Line]
    place: Place
    numbers: list[int]
    card: SecretStr
    note: str
    data: bytes
    nothing: str | None = None
    hidden: str = Field(default="", repr=False)


def receipt(**changes: Any) -> Receipt:
    values: dict[str, Any] = {
        "total": Decimal("24.90"),
        "day": date(2026, 2, 3),
        "color": Color.RED,
        "lines": [Line(sku="tea"), Line(sku="teapot", count=12)],
        "place": Place(town="Ulm"),
        "numbers": [1, 2],
        "card": SecretStr("4711"),
        "note": "",
        "data": b"\xff",
        "hidden": "hidden",
    }
    return Receipt(**{**values, **changes})


def test_an_answer_has_a_line_for_each_field_and_row() -> None:
    assert answer_as_table(receipt()).splitlines() == [
        "total    24.90",
        "day      2026-02-03",
        "color    red",
        "lines    sku     count",
        "         tea     1",
        "         teapot  12",
        "place    town  Ulm",
        "numbers  [1, 2]",
        "card     SecretStr('**********')",
        "note     ''",
        r"data     b'\xff'",
        "nothing  None",
    ]


def test_what_a_peer_wrote_steers_no_terminal() -> None:
    shown = answer_as_table(receipt(note="\x1b[2J\r[red]\n", lines=[Line(sku="[b]\x07")]))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\r" not in shown
    assert r"'\x1b[2J\r[red]\n'" in shown
    assert r"'[b]\x07'" in shown


def test_long_values_are_shown_to_their_ends() -> None:
    assert "x" * 50_000 in answer_as_table(receipt(note="x" * 50_000))


def test_measurements_are_those_that_were_made() -> None:
    result = Result()
    for milliseconds in range(1, 101):
        result.latency.add(milliseconds / 1000)
    result.errors["BUSY"] += 20
    result.seconds = 2.0
    lines = result_as_table(result).splitlines()
    assert lines[:2] == ["calls  120 in 2.00 s", "rate   60 calls/s"]
    assert lines[5] == "max    100 ms"
    assert lines[-1] == "BUSY   20"
    plain = result_as_plain(result)
    assert plain["errors"] == {"BUSY": 20}
    assert plain["rate"] == 60
    assert 0.050 <= plain["latency"]["p50"] <= 0.051
    assert plain["latency"]["max"] == 0.1


def test_of_no_answers_there_are_no_times() -> None:
    assert result_as_table(Result()).splitlines() == ["calls  0 in 0.00 s", "rate   0 calls/s"]
    assert "latency" not in result_as_plain(Result())
