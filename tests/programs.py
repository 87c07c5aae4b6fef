"""Programs that tests run as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncGenerator
from pathlib import Path

PATIENCE = 60.0
"""Seconds after which a program counts as stuck."""


class Program:
    """A program that runs; what it prints, on either output, is read line by line."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def line(self) -> str:
        """Wait for the next line that it prints."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            data = await self._process.stdout.readline()
        assert data.endswith(b"\n"), f"it ended, with {data!r}"
        return data.decode().rstrip("\n")

    def type(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def end_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def rest(self) -> str:
        """Wait for its end, and give what it printed until then."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            data = await self._process.stdout.read()
            await self._process.wait()
        return data.decode()

    async def stop(self) -> str:
        """Ask it to end, as `kill` does, and give what it printed until then."""
        if self._process.returncode is None:
            self._process.terminate()
        return await self.rest()

    def interrupt(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it without its having a say."""
        self._process.kill()

    @property
    def process_id(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int:
        assert self._process.returncode is not None
        return self._process.returncode


@contextlib.asynccontextmanager
async def program(
    *arguments: str, directory: Path, environment: dict[str, str] | None = None
) -> AsyncGenerator[Program, None]:
    """Start a Python program; at the end nothing of it is left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=directory,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def output_of(
    *arguments: str, directory: Path, environment: dict[str, str] | None = None
) -> str:
    """Run a Python program to its end, which must be a good one, and give what it printed."""
    async with program(*arguments, directory=directory, environment=environment) as running:
        output = await running.rest()
    assert running.exit_code == 0, output
    return output
