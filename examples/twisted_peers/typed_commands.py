"""The same commands in typed_amp: names, keys and types are those of `twisted_commands`."""

from pydantic import BaseModel

from typed_amp import Command


class SumResult(BaseModel):
    total: int


class Sum(Command[SumResult]):
    a: int
    b: int


class DivideResult(BaseModel):
    result: float


class Divide(Command[DivideResult], errors={ZeroDivisionError: "ZERO_DIVISION"}):
    numerator: int
    denominator: int
