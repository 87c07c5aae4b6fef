"""A server that is ended while it has much to do, and says what it has done.

It prints its port. Its responders note in a file, given as the argument, what they begin.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from tests.example_commands import Text, Wait
from typed_amp import Router, run

router = Router()
log = Path(sys.argv[1]).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115 - it ends with the program


@router.responder(Wait)
async def wait(command: Wait) -> Text:
    log.write(f"{command.key}\n")
    for _ in range(command.key % 50):
        await asyncio.sleep(0.002)
    return Text(text=f"{command.key}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(router, "127.0.0.1", 0)
