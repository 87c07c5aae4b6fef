"""What the server and its clients agree on."""

# ruff: noqa: N818

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field

from typed_amp import Command, CommandError, Json, Large


class RepeatResult(BaseModel):
    text: str


class Repeat(Command[RepeatResult]):
    text: str
    times: Annotated[int, Field(ge=0, le=1000)] = 1


class Waited(BaseModel):
    seconds: float


class Wait(Command[Waited]):
    seconds: float


class Receipt(BaseModel):
    price: Decimal


class OutOfStock(CommandError):
    sku: str
    left: int


class Buy(Command[Receipt], errors={OutOfStock: "OUT_OF_STOCK"}):
    sku: str
    count: int = 1


class Audit(Command):
    pass


class Log(Command, requires_answer=False):
    line: str


class Lines(BaseModel):
    lines: list[str]


class ReadLog(Command[Lines]):
    pass


class Cook(Command):
    dish: str


class Progress(Command):
    percent: int
    dish: str


class Join(Command):
    name: str


class Reached(BaseModel):
    names: list[str]


class Say(Command[Reached]):
    text: str


class Heard(Command):
    name: str
    text: str


class Item(BaseModel):
    sku: str
    count: int
    price: Decimal


class Invoice(BaseModel):
    total: Decimal
    due: date


class Order(Command[Invoice]):
    items: list[Item]
    at: datetime
    labels: Annotated[dict[str, list[int]], Json()]
    coupon: str | None = None


class Counted(BaseModel):
    words: int


class CountWords(Command[Counted]):
    text: Annotated[str, Large()]
