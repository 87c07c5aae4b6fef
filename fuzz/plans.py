"""Any box, read as a command with every type of field, as an answer and as an error.

Only `DecodeError` may come out of reading arguments and answers. An error can always be read: it
comes back as an exception.
"""

from __future__ import annotations

import contextlib
import dataclasses
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from tests.typed_values import CheckedRow, Colour, Everything, Row, Tree, read, same, write
from typed_amp import (
    Box,
    BoxReader,
    Command,
    CommandError,
    DecodeError,
    Descriptor,
    EncodeError,
    Json,
    Large,
    ProtocolViolationError,
    RemoteAmpError,
)
from typed_amp.descriptors import refuse_to_claim

__all__ = ["check"]


class Strict(Command, extra="forbid"):
    """Nothing is optional, and nothing else may be there."""

    a: int
    b: Annotated[str, Field(max_length=10)]
    c: list[Row]


class Sliced(Command):
    """Values over several keys."""

    one: Annotated[bytes, Large(max_bytes=200_000)]
    two: Annotated[str, Large(zero_based=True)] = "nothing"
    three: Annotated[list[int] | None, Large(compressed=True, max_bytes=100_000)] = None
    rows: Annotated[list[Row], Large()] = []


class Opened(Command):
    """A descriptor, which can't have come."""

    file: Annotated[int, Descriptor()]


class Refused(CommandError):  # noqa: N818 - as example_commands has it
    sku: str
    left: int = 0
    tree: Tree | None = None


class Answer(BaseModel):
    number: Decimal
    colour: Colour = Colour.RED
    row: CheckedRow | None = None
    words: Annotated[dict[str, int], Json()] = {}


@dataclasses.dataclass
class PlainAnswer:
    number: float
    texts: tuple[str, ...] = ()


class Asked(Command[Answer], errors={Refused: "REFUSED", KeyError: "KEY"}):
    """Has an answer and errors."""


class AskedPlainly(Command[PlainAnswer]):
    """Has a dataclass for an answer."""


_MODELS: Final[list[Any]] = [Everything, Strict, Sliced, Answer, PlainAnswer]


def check(data: bytes) -> None:
    """Read the boxes that the bytes are as everything that a box can be."""
    try:
        boxes = BoxReader().feed(data)
    except ProtocolViolationError as error:
        boxes = list(error.boxes)
    for box in boxes[:4]:
        _check_box(box)


def _check_box(box: Box) -> None:
    for model in _MODELS:
        try:
            value = read(model, box)
        except DecodeError as error:
            assert str(error)
            continue
        try:
            written = write(value, model)
        except EncodeError as error:
            assert "RecursionError" in str(error), error
            continue
        with contextlib.suppress(RecursionError):  # of pydantic's ==, on what is nested deep
            assert same(read(model, written), value)
    signature = Opened.__amp_signature__()
    try:
        signature.arguments.decode(box, refuse_to_claim)
    except DecodeError:
        pass
    else:
        raise AssertionError("no descriptor came")
    for command in (Asked, AskedPlainly):
        remote = command.__amp_signature__().error_from({b"_error": b"1", **box})
        assert isinstance(remote, Exception)
        assert str(remote).isprintable() or not isinstance(remote, RemoteAmpError)
