from __future__ import annotations

import io
import sys
from datetime import date
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from typed_amp import Command, Descriptor, Json, Key
from typed_amp.call_arguments import ArgumentTrouble, command_from


class Line(BaseModel):
    sku: str
    count: int = 1


class Size(IntEnum):
    SMALL = 1


class Order(Command):
    text: str = ""
    times: Annotated[int, Field(ge=0, le=1000)] = 1
    price: Decimal = Decimal(0)
    day: date | None = None
    is_gift: bool = False
    data: bytes = b""
    numbers: list[int] = []
    lines: list[Line] = []
    extra: Annotated[dict[str, Any] | None, Json()] = None
    size: Size = Size.SMALL
    kind: Annotated[Literal[1, 2], Json()] = 1
    card: SecretStr | None = None
    from_: Annotated[str, Key("from")] = ""
    level: Annotated[int, Field(alias="Level")] = 0
    doubled: Annotated[int, AfterValidator(lambda value: value * 2)] = 0


class Strict(Command):
    model_config = ConfigDict(strict=True)

    times: int
    text: str


class Send(Command):
    file: Annotated[int, Descriptor()]


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [
        ("text=abc", "text", "abc"),
        ("text=", "text", ""),
        ("text=a=b", "text", "a=b"),
        ("text=123", "text", "123"),
        ("text=[1]", "text", "[1]"),
        ('text="quoted"', "text", '"quoted"'),
        ("text=@@home", "text", "@home"),
        ("times=3", "times", 3),
        ("price=24.90", "price", Decimal("24.90")),
        ("day=2026-02-03", "day", date(2026, 2, 3)),
        ("day=null", "day", None),
        ("is_gift=yes", "is_gift", True),
        ("data=abc", "data", b"abc"),
        ("numbers=[1,2]", "numbers", [1, 2]),
        ("numbers=[]", "numbers", []),
        ('lines=[{"sku":"a","count":2}]', "lines", [Line(sku="a", count=2)]),
        ('extra={"a":[1,null]}', "extra", {"a": [1, None]}),
        ("size=1", "size", Size.SMALL),
        ("kind=2", "kind", 2),
        ("card=4711", "card", SecretStr("4711")),
        ("from=ann", "from_", "ann"),
        ("from_=ann", "from_", "ann"),
        ("level=3", "level", 3),
        ("Level=3", "level", 3),
        ("doubled=3", "doubled", 6),
    ],
)  # fmt: skip
def test_the_model_says_what_a_word_means(word: str, field: str, value: object) -> None:
    made = command_from(Order, [word])
    assert getattr(made, field) == value
    assert type(getattr(made, field)) is type(value)


def test_a_strict_model_has_its_numbers_too() -> None:
    assert command_from(Strict, ["times=3", "text=3"]) == Strict(times=3, text="3")


@given(st.text())
def test_any_text_is_itself(text: str) -> None:
    word = text if not text.startswith("@") else f"@{text}"
    made = command_from(Order, [f"text={word}"])
    assert isinstance(made, Order)
    assert made.text == text


@given(st.lists(st.integers()))
def test_any_list_is_json(numbers: list[int]) -> None:
    made = command_from(Order, [f"numbers={numbers}"])
    assert isinstance(made, Order)
    assert made.numbers == numbers


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["text"], "text: say name=value"),
        (["txet=a"], "txet: Order has no such field; its fields: text, times, price"),
        (["text=a", "text=b"], "text: given twice"),
        (["from=a", "from_=b"], "from_: given twice"),
        (["times=two"], "times: Input should be a valid integer"),
        (["times=2000"], "times: Input should be less than or equal to 1000"),
        (["numbers=[1,"], "numbers: not JSON: Expecting value"),
        (["numbers=[1,null]"], "numbers.1: Input should be a valid integer"),
        (["numbers=1"], "numbers: Input should be a valid list"),
        (['lines=[{"count":1}]'], "lines.0.sku: Field required"),
        (["data=@nowhere"], "data: can't read nowhere: No such file or directory"),
        (["\x1b[2J=1"], r"\x1b[2J: Order has no such field"),
    ],
)
def test_what_is_wrong_is_told_with_its_name(words: list[str], told: str) -> None:
    with pytest.raises(ArgumentTrouble) as caught:
        command_from(Order, words)
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_told_and_no_secret() -> None:
    with pytest.raises(ArgumentTrouble) as caught:
        command_from(Strict, ["times=4711s"])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("times: Input should be a valid integer")
    assert lines[1:] == ["text: missing; say text=value"]
    assert "4711s" not in str(caught.value)


def test_files_are_read_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\x00\n")
    (tmp_path / "numbers").write_text("[1, 2]\n")
    made = command_from(Order, [f"data=@{tmp_path}/bytes", f"numbers=@{tmp_path}/numbers"])
    assert isinstance(made, Order)
    assert made.data == b"\xff\x00\n"
    assert made.numbers == [1, 2]
    with pytest.raises(ArgumentTrouble, match="text: Input should be a valid string"):
        command_from(Order, [f"text=@{tmp_path}/bytes"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"from a pipe")))
    assert command_from(Order, ["text=@-"]) == Order(text="from a pipe")


def test_open_files_can_not_be_sent_from_a_shell() -> None:
    with pytest.raises(ArgumentTrouble, match="takes open files"):
        command_from(Send, ["file=0"])
