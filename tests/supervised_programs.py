"""`typed-amp serve`, run by tests: what it prints is waited for, line by line."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from tests.programs import Program, program

SHOP = """
import asyncio
import os
import signal
from pathlib import Path

from pydantic import BaseModel

from typed_amp import Command, CommandError, Router

VERSION = "one"


class Seen(BaseModel):
    process_id: int
    version: str


class Look(Command[Seen]):
    seconds: float = 0


class Die(Command[Seen], idempotent=True):
    pass


class Hold(Command[Seen]):
    path: str


class OutOfStock(CommandError):
    sku: str


class Buy(Command[Seen], errors={OutOfStock: "OUT_OF_STOCK"}):
    sku: str


class Log(Command, requires_answer=False):
    line: str


router = Router()


def seen() -> Seen:
    return Seen(process_id=os.getpid(), version=VERSION)


@router.responder(Look)
async def look(command: Look) -> Seen:
    await asyncio.sleep(command.seconds)
    return seen()


@router.responder(Die)
async def die(command: Die) -> Seen:
    os.kill(os.getpid(), signal.SIGKILL)
    return seen()


@router.responder(Hold)
async def hold(command: Hold) -> Seen:
    Path(command.path).with_suffix(".begun").touch()
    while not Path(command.path).exists():
        await asyncio.sleep(0.01)
    return seen()


@router.responder(Buy)
async def buy(command: Buy) -> Seen:
    raise OutOfStock(sku=command.sku)


@router.responder(Log)
async def log(command: Log) -> None:
    print(command.line, flush=True)
"""

WORKER = re.compile(r"worker (\d+) \((\d+)\)")


class Served:
    """A `typed-amp serve` that runs."""

    def __init__(self, running: Program) -> None:
        self.program = running
        self.lines: list[str] = []
        self.port = 0

    @property
    def process_id(self) -> int:
        return self.program._process.pid

    async def line(self, pattern: str) -> str:
        """Wait for a line in which a pattern is found."""
        while True:
            line = await self.program.line()
            self.lines.append(line)
            if re.search(pattern, line):
                return line

    async def workers(self, word: str = "serving|reloaded") -> dict[int, int]:
        """Wait until it says who serves: their process IDs by their numbers."""
        line = await self.line(rf": (?:{word}): worker")
        return {int(number): int(process_id) for number, process_id in WORKER.findall(line)}

    def signal(self, number: signal.Signals) -> None:
        self.program._process.send_signal(number)

    async def reload(self) -> dict[int, int]:
        self.signal(signal.SIGHUP)
        return await self.workers("reloaded")

    async def drained(self, count: int) -> None:
        """Wait until so many workers have drained."""
        for _ in range(count):
            await self.line("has drained")

    async def stop(self) -> None:
        """End it as it should, and see that it does so well."""
        rest = await self.program.stop()
        assert self.program.exit_code == 0, rest
        assert rest.splitlines()[-1].endswith("stopped"), rest


@contextlib.asynccontextmanager
async def serve(*options: str, directory: Path, source: str = SHOP) -> AsyncIterator[Served]:
    """Serve shop:router from a directory, and wait until it listens."""
    write(directory, source)
    arguments = ["-m", "typed_amp", "serve", "shop:router", *options]
    if "--unix" not in options:
        arguments += ["--port", "0", "--host", "127.0.0.1"]
    # Python takes what it compiled of a source of the same size and the same second for that of the
    # next, and would load the old one.
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    async with program(*arguments, directory=directory, environment=environment) as running:
        served = Served(running)
        line = await served.line("listening at ")
        if port := re.search(r"127\.0\.0\.1:(\d+)", line):
            served.port = int(port[1])
        yield served


def write(directory: Path, source: str) -> None:
    """Put the program there, in one step."""
    (directory / "shop.new").write_text(source)
    (directory / "shop.new").rename(directory / "shop.py")
