"""What the peers do for one another: five works, the same for all.

Rule of this module: it holds what goes in and what must come out. How it travels is each peer's own
business, and each peer checks what came.
"""

from __future__ import annotations

from typing import NamedTuple

WORKS = {
    "repeat": 'repeat("abc", 3)',
    "value": "60,000 bytes there and back",
    "list": "1,000 integers there and back",
    "rows": "100 rows of a six-field model",
    "error": "an error answer",
}
"""The works, and what to call them."""

TEXT = "abc"
TIMES = 3
MAX_TIMES = 1_000
REPEATED = TEXT * TIMES

VALUE = bytes(range(250)) * 240

NUMBERS = [number * 37 for number in range(1_000)]
"""The answer has them in reverse, so that the server must have read them."""
REVERSED = NUMBERS[::-1]

FIRST = 10_000
COUNT = 100
MAX_COUNT = 1_000

MISSING = "teapot"
"""What the server is asked for and has not."""


class RowFields(NamedTuple):
    """One row as the server finds it; each peer makes a row of its own kind of it."""

    number: int
    name: str
    city: str
    quantity: int
    price: float
    is_active: bool


def row(number: int) -> RowFields:
    """Give the row of a number."""
    return RowFields(number, f"item {number}", "Zürich", number % 100, number / 4, number % 2 == 0)


LAST = row(FIRST + COUNT - 1)


def complaint(name: str) -> str:
    """Give the text of the error."""
    return f"there is no {name}"
