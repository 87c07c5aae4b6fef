"""typed_amp's server, until Ctrl-C."""

import logging

import typed_amp
from examples import address
from examples.twisted_peers.typed_commands import Divide, DivideResult, Sum, SumResult

router = typed_amp.Router()


@router.responder(Sum)
async def sum_up(command: Sum) -> SumResult:
    return SumResult(total=command.a + command.b)


@router.responder(Divide)
async def divide(command: Divide) -> DivideResult:
    return DivideResult(result=command.numerator / command.denominator)


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # says where it listens
    typed_amp.run(router, options.host, options.port)
