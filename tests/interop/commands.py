"""The commands of these tests, as typed_amp has them; `twisted_commands` has Twisted's."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from typed_amp import Command, CommandError, Descriptor, Key, Large, SwitchProtocol

T = TypeVar("T")


class Answer(BaseModel, Generic[T]):
    # Decimals that are no numbers are none to pydantic, unless it is told so.
    model_config = ConfigDict(allow_inf_nan=True)

    value: T


class Nothing(BaseModel):
    """An answer without a single field."""


class Echo(Command[Answer[T]], Generic[T]):
    """Answered with the value it carries."""

    value: T


class Part(BaseModel):
    code: bytes
    weights: list[float] = []


class Row(BaseModel):
    name: str
    count: int
    when: datetime | None = None
    tags: list[str] = []
    parts: list[Part] = []


class EchoInteger(Echo[int]): ...


class EchoString(Echo[bytes]): ...


class EchoUnicode(Echo[str]): ...


class EchoFloat(Echo[float]): ...


class EchoBoolean(Echo[bool]): ...


class EchoDecimal(Echo[Decimal]): ...


class EchoDateTime(Echo[datetime]): ...


class EchoPath(Echo[Path]): ...


class EchoIntegers(Echo[list[int]]): ...


class EchoStrings(Echo[tuple[bytes, ...]]): ...


class EchoDateTimes(Echo[list[datetime]]): ...


class EchoPaths(Echo[list[Path]]): ...


class EchoNested(Echo[list[list[list[str]]]]): ...


class EchoRows(Echo[list[Row]]): ...


class EchoRow(Echo[Row]):
    """Twisted has no single row: to it this is a list of one."""


LargeBytes: TypeAlias = Annotated[bytes, Large()]
LargeText: TypeAlias = Annotated[str, Large(zero_based=True)]
CompressedBytes: TypeAlias = Annotated[bytes, Large(compressed=True)]


class EchoLargeBytes(Echo[LargeBytes]): ...


class EchoLargeText(Echo[LargeText]): ...


class EchoCompressedBytes(Echo[CompressedBytes]): ...


class Optionals(BaseModel):
    number: int | None = None
    text: str | None = None
    flag: bool | None = None
    numbers: list[int] | None = None
    rows: tuple[Row, ...] | None = None


class EchoOptionals(Command[Optionals]):
    number: int | None = None
    text: str | None = None
    flag: bool | None = None
    numbers: list[int] | None = None
    rows: tuple[Row, ...] | None = None


class Letter(BaseModel):
    from_: Annotated[str, Key("from")]
    message_id: Annotated[int, Key("message-id")]


class EchoLetter(Command[Letter]):
    """Keys that Python can't spell."""

    from_: Annotated[str, Key("from")]
    message_id: Annotated[int, Key("message-id")]


class Ping(Command[Nothing], name="typed-amp/ping é"):
    """No arguments, no fields in the answer, and a name that is no identifier."""


class OutOfStockError(CommandError):
    """Twisted knows neither of the fields."""

    sku: str
    left: int = 0


class SoldOutError(CommandError):
    """An error that can do without its field."""

    since: str = "always"


class RefusedError(Exception):
    pass


class BrokenError(Exception):
    """Declared to end the connection."""


class OursAloneError(Exception):
    """Declared here, and not at Twisted's side."""


class Fail(
    Command,
    errors={
        OutOfStockError: "OUT_OF_STOCK",
        SoldOutError: "SOLD_OUT",
        RefusedError: "REFUSED",
        KeyError: "NO_SUCH_KEY",
        OursAloneError: "OURS_ALONE",
    },
    fatal_errors={BrokenError: "BROKEN"},
):
    """Its responder raises the error of this name."""

    error: str


class Wait(Command):
    """Never answered."""


class Strict(Command[Answer[int]]):
    """Our model refuses what Twisted's integer takes."""

    value: Annotated[int, Field(ge=0, le=10)]


class Demanding(Command):
    """Twisted wants an argument that this lacks."""


class Unheard(Command):
    """Nobody has a responder for it."""


class UnheardNote(Command, requires_answer=False):
    """Nobody has a responder for it, and nobody would be told."""


class Note(Command, requires_answer=False):
    line: str


class Notes(Command[Answer[list[str]]]):
    """Which notes have come on this connection."""


class Gather(Command[Answer[int]]):
    """Answered when `total` of them have come, the last first."""

    number: int
    total: int


class Bounce(Command[Answer[int]]):
    """Answered with the number of calls it took, to and fro, until none is left."""

    left: int


class WhoAmI(Command[Answer[str]]):
    """The common name in the caller's certificate."""


class Subscribe(Command):
    """Answered at once; so many notes follow."""

    lines: int


class PrepareTLS(Command):
    """What Twisted is to use when it is asked for TLS: names of files, or nothing."""

    certificate: str = ""
    authority: str = ""


class BeginTLS(PrepareTLS):
    """Answered at once; then Twisted asks for TLS itself."""


class SwitchToShouting(SwitchProtocol, errors={RefusedError: "REFUSED"}):
    """Its responder agrees, or fails as it is told to."""

    outcome: str


class Introduce(Command[Answer[str]]):
    """The common name in the certificate of the one who answers, asked back of the caller."""


class File(BaseModel):
    descriptor: Annotated[int, Descriptor()]


class OpenFile(Command[File]):
    """Answered with the file, open for reading."""

    path: Path


class WriteTo(Command):
    """The responder writes the text, and closes its descriptor."""

    descriptor: Annotated[int, Descriptor()]
    text: str


class Portion(BaseModel):
    descriptor: Annotated[int, Descriptor()]
    text: str


class WriteToAll(Command):
    """The same for each row; to the last it writes `the end`."""

    rows: list[Portion]
    last: Annotated[int, Descriptor()] | None = None
