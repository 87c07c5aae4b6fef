"""Serve Repeat until Ctrl-C."""

import logging

import typed_amp
from examples import address
from examples.repeat.commands import Repeat, RepeatResult

router = typed_amp.Router()


@router.responder(Repeat)
async def repeat(command: Repeat) -> RepeatResult:
    return RepeatResult(text=command.text * command.times)


if __name__ == "__main__":
    options = address.parser(__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # says where it listens
    typed_amp.run(router, options.host, options.port)
