"""What the two sides agree on: what can go wrong belongs to a command as its answer does."""

from pydantic import BaseModel

from typed_amp import Command, CommandError


class Quotient(BaseModel):
    result: float


class WholeQuotient(BaseModel):
    result: int


class NotWholeError(CommandError):
    """A division leaves something over. The caller gets the fields."""

    quotient: int
    remainder: int


class TooManyMistakesError(CommandError):
    """The server has had enough: it closes the connection after this error."""

    mistakes: int


class Divide(
    Command[Quotient],
    errors={ZeroDivisionError: "ZERO_DIVISION"},
    fatal_errors={TooManyMistakesError: "TOO_MANY_MISTAKES"},
):
    numerator: int
    denominator: int


class DivideWhole(Command[WholeQuotient], errors={NotWholeError: "NOT_WHOLE"}):
    numerator: int
    denominator: int
