"""The answers as pydantic models, for the peers that validate with pydantic."""

from __future__ import annotations

from pydantic import BaseModel

from benchmarks import work


class RepeatResult(BaseModel):
    text: str


class ValueResult(BaseModel):
    data: bytes


class NumbersResult(BaseModel):
    numbers: list[int]


class Row(BaseModel):
    number: int
    name: str
    city: str
    quantity: int
    price: float
    is_active: bool


class RowsResult(BaseModel):
    rows: list[Row]


LAST = Row(**work.LAST._asdict())


def rows(first: int, count: int) -> RowsResult:
    """Find rows, as a server would in its database."""
    found = map(work.row, range(first, first + count))
    return RowsResult(rows=[Row(**row._asdict()) for row in found])


def check_rows(result: RowsResult) -> None:
    """Check an answer, by its length and its last row: as much for all peers, and little."""
    assert len(result.rows) == work.COUNT
    assert result.rows[-1] == LAST
