"""Serve divisions until Ctrl-C. Three divisions by zero end a connection."""

import logging
from dataclasses import dataclass

import typed_amp
from examples import address
from examples.division.commands import (
    Divide,
    DivideWhole,
    NotWholeError,
    Quotient,
    TooManyMistakesError,
    WholeQuotient,
)
from typed_amp import Connection


@dataclass
class Session:
    mistakes: int = 0


router = typed_amp.Router(state=Session)


@router.responder(Divide)
async def divide(command: Divide, connection: Connection[Session]) -> Quotient:
    session = connection.state
    if command.denominator == 0:
        session.mistakes += 1
        if session.mistakes == 3:
            raise TooManyMistakesError(mistakes=session.mistakes)
    # Dividing by zero raises ZeroDivisionError, which the command declares: nothing more to do.
    return Quotient(result=command.numerator / command.denominator)


@router.responder(DivideWhole)
async def divide_whole(command: DivideWhole) -> WholeQuotient:
    # This command declares no ZeroDivisionError. One that happens here is a mistake of the
    # server's: it goes to the server's log, and the caller learns no more than that.
    quotient, remainder = divmod(command.numerator, command.denominator)
    if remainder:
        raise NotWholeError(quotient=quotient, remainder=remainder)
    return WholeQuotient(result=quotient)


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # says where it listens
    typed_amp.run(router, options.host, options.port)
