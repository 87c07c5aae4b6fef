"""Answers and measurements as tables for people.

Rule of this module: it makes text. A peer chose what is in an answer, so nothing of it steers a
terminal.
"""

from __future__ import annotations

import dataclasses
import io
import shutil
import sys
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeGuard
from uuid import UUID

from pydantic import BaseModel
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from typed_amp.rendering import value_as_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from typed_amp.load import Result

__all__ = ["PERCENTILES", "answer_as_table", "result_as_plain", "result_as_table"]

PERCENTILES: Final = (50, 90, 99)
"""Which of them are shown."""

_BARS: Final = 12
_BAR_WIDTH: Final = 40


def answer_as_table(answer: Any) -> str:
    """Show an answer: a line for each field, and for each row of a field that has rows."""
    return _rendered(_model(answer))


def result_as_table(result: Result) -> str:
    """Show what many calls have come to: how many, how long, and what failed."""
    latency = result.latency
    summary = _table()
    summary.add_row("calls", f"{result.done:,} in {result.seconds:.2f} s")
    summary.add_row("rate", f"{result.rate:,.0f} calls/s")
    parts: list[RenderableType] = [summary]
    if latency.count:
        for percent in PERCENTILES:
            summary.add_row(f"p{percent}", _duration(latency.percentile(percent)))
        summary.add_row("max", _duration(latency.maximum))
        parts += ["", _histogram(result)]
    if result.errors:
        errors = _table("error", "calls")
        for code, count in result.errors.most_common():
            errors.add_row(_text(code), f"{count:,}")
        parts += ["", errors]
    return _rendered(Group(*parts))


def result_as_plain(result: Result) -> dict[str, Any]:
    """Give the same as JSON has it; times are seconds."""
    latency = result.latency
    plain: dict[str, Any] = {
        "calls": result.done,
        "seconds": result.seconds,
        "rate": result.rate,
        "errors": dict(result.errors),
    }
    if latency.count:
        plain["latency"] = {
            **{f"p{percent}": latency.percentile(percent) for percent in PERCENTILES},
            "max": latency.maximum,
            "mean": latency.total / latency.count,
        }
    return plain


def _histogram(result: Result) -> Table:
    table = _table()
    bars = result.latency.bars(_BARS)
    most = max(count for _, _, count in bars)
    for begin, end, count in bars:
        length = -(-count * _BAR_WIDTH // most)  # what is there is seen
        between = f"{_duration(begin)} to {_duration(end)}"
        table.add_row(between, f"{count:,}", "#" * length)
    table.columns[1].justify = "right"
    return table


def _duration(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _model(model: Any) -> RenderableType:
    table = _table()
    for name, value in _fields(model):
        table.add_row(name, _value(value))
    return table


def _value(value: Any) -> RenderableType:
    if _is_model(value):
        return _model(value)
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    if not (is_list and all(map(_is_model, value))):
        return _text(value)
    names = list(dict.fromkeys(name for row in value for name, _ in _fields(row)))
    table = _table(*names)
    for row in value:
        cells = dict(_fields(row))
        table.add_row(*(_value(cells[name]) if name in cells else "" for name in names))
    return table


def _is_model(value: Any) -> TypeGuard[Any]:
    return isinstance(value, BaseModel) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )


def _fields(model: Any) -> list[tuple[str, Any]]:
    """Give the fields of a model or a dataclass that it doesn't hide."""
    if isinstance(model, BaseModel):
        shown = [name for name, field in type(model).model_fields.items() if field.repr]
    else:
        shown = [field.name for field in dataclasses.fields(model) if field.repr]
    return [(name, getattr(model, name)) for name in shown]


def _text(value: Any) -> Text:
    if isinstance(value, (Decimal, date, time, timedelta, UUID, Enum)):
        value = str(value.value if isinstance(value, Enum) else value)
    text = value_as_text(value)
    if isinstance(value, str) and text[1:-1] == value:
        text = value  # nothing in it needs quotes, but perhaps an empty one
    return Text(text or "''", overflow="fold")


def _table(*names: str) -> Table:
    table = Table(*names, box=None, show_header=bool(names), pad_edge=False, padding=(0, 2, 0, 0))
    if not names:
        table.add_column(overflow="fold", no_wrap=True)
    return table


def _rendered(what: RenderableType) -> str:
    """Lay it out as wide as the terminal is; where there is none, as wide as it needs."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else 100_000
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, markup=False, highlight=False)
    console.print(what, soft_wrap=False)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
