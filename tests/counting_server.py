"""A server that writes down what it carries out, as a program: it may be killed at any time.

Its argument is how many seconds the longest calls take. It imports all it needs, says so, and
listens when it reads a port and the file to write to.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TextIO

from pydantic import BaseModel

from typed_amp import Command, Router, run

__all__ = ["Again", "Counted", "Once"]


class Counted(BaseModel):
    key: int


class Once(Command[Counted]):
    """May not be carried out twice."""

    key: int


class Again(Command[Counted], idempotent=True):
    """May be."""

    key: int


def counting_router(seconds: float, file: TextIO) -> Router:
    router = Router()

    async def carry_out(command: Once | Again) -> Counted:
        file.write(f"{command.key}\n")
        file.flush()  # so that it is written even if the process is killed now
        await asyncio.sleep(seconds * (1 + command.key % 5) / 5)
        return Counted(key=command.key)

    router.responder(Once)(carry_out)
    router.responder(Again)(carry_out)
    return router


if __name__ == "__main__":
    print("imported")
    port, path = sys.stdin.readline().split()
    with open(path, "a") as file:  # noqa: PTH123 - it is a name, not more
        run(counting_router(float(sys.argv[1]), file), "127.0.0.1", int(port))
