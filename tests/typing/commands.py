"""The commands, answers and errors that the accepted and the rejected uses share."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Generic, TypeVar

import pydantic
from pydantic import BaseModel, Field

from typed_amp import Codec, Command, CommandError, Json, Key, StartTLS, SwitchProtocol

T = TypeVar("T")


class RepeatResult(BaseModel):
    text: str


class CountedRepeatResult(RepeatResult):
    length: int


class Repeat(Command[RepeatResult]):
    text: str
    times: Annotated[int, Field(ge=0, le=1000)] = 1


class RepeatLoudly(Repeat):
    volume: int = 11


@dataclass
class Sum:
    total: int


class Add(Command[Sum]):
    numbers: list[int]


@pydantic.dataclasses.dataclass
class Ratio:
    value: float


class Divide(Command[Ratio], errors={ZeroDivisionError: "ZERO_DIVISION"}):
    numerator: int
    denominator: int


class Ping(Command):
    pass


class Pause(Command[None]):
    seconds: float = 1.0


class Log(Command, requires_answer=False):
    line: str


class Page(BaseModel, Generic[T]):
    rows: list[T]


class Fetch(Command[Page[T]], Generic[T]):
    first: T


class FetchNumbers(Fetch[int]):
    limit: int = 10


class Wait(Command["WaitResult"]):
    seconds: float


class WaitResult(BaseModel):
    waited: float


class OutOfStock(CommandError):
    sku: str
    left: int = 0


class Discontinued(OutOfStock):
    since: date


class Receipt(BaseModel):
    number: int


class Buy(
    Command[Receipt],
    name="buy",
    errors={OutOfStock: "OUT_OF_STOCK", KeyError: "NO_SUCH_SKU"},
    fatal_errors={PermissionError: "FORBIDDEN"},
):
    sku: str


class Awkward(Command):
    """Names that a library is tempted to keep for itself."""

    name: str
    command: str
    errors: int
    timeout: float
    signature: bytes


class SecureAs(StartTLS):
    user: str


class SwitchToChat(SwitchProtocol):
    room: str


class HexCodec(Codec[bytes]):
    def encode(self, value: bytes) -> bytes:
        return value.hex().encode()

    def decode(self, data: bytes) -> bytes:
        return bytes.fromhex(data.decode())


class Store(Command):
    from_: Annotated[str, Key("from")]
    digest: Annotated[bytes, HexCodec()]
    labels: Annotated[dict[str, int], Json()] = {}


class Session:
    def __init__(self) -> None:
        self.user: str | None = None
