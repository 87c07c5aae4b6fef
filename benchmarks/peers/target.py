"""The server that is attacked: typed_amp as it comes, in the clear and with TLS.

It prints its ports. Then each line of its input is a question, and one line of JSON the answer:
`status` says how it is; `settle` first waits until nobody is there, and gives back what memory
Python and the C library keep. It ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import ssl
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import trustme

from benchmarks.peers.commands import (
    CallBack,
    CallBackResult,
    Drop,
    Echo,
    EchoResult,
    Fetch,
    FetchResult,
    Nap,
    OverdrawnError,
    Total,
    TotalResult,
    Wait,
    Withdraw,
    WithdrawResult,
)
from benchmarks.peers.loop import run_on_loop
from benchmarks.peers.typed import Repeat, repeat
from typed_amp import Connection, Router, Server, serve

PATIENCE = 75
"""Seconds that the server may take to be idle, once all peers have gone."""

router = Router()
router.responder(Repeat)(repeat)


class Waiting:
    """How many responders wait, and how many did at the most."""

    now = 0
    most = 0


@router.responder(Fetch)
async def fetch(command: Fetch) -> FetchResult:
    return FetchResult(data=bytes(command.length))


@router.responder(Total)
async def total(command: Total) -> TotalResult:
    return TotalResult(total=sum(command.numbers))


@router.responder(Echo)
async def echo(command: Echo) -> EchoResult:
    return EchoResult(data=command.data)


@router.responder(Wait)
async def wait(_: Wait) -> None:
    Waiting.now += 1
    Waiting.most = max(Waiting.most, Waiting.now)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        Waiting.now -= 1


@router.responder(Nap)
async def nap(command: Nap) -> None:
    await asyncio.sleep(command.seconds)


@router.responder(Withdraw)
async def withdraw(command: Withdraw) -> WithdrawResult:
    if command.amount <= 0:
        raise ValueError("an amount is positive")
    if command.amount > command.balance:
        raise OverdrawnError(balance=command.balance, missing=command.amount - command.balance)
    return WithdrawResult(balance=command.balance - command.amount)


@router.responder(CallBack)
async def call_back(command: CallBack, connection: Connection) -> CallBackResult:
    calls = [
        connection.call(Repeat(text=command.text, times=number)) for number in range(command.calls)
    ]
    return CallBackResult(texts=[result.text for result in await asyncio.gather(*calls)])


@router.responder(Drop)
async def drop(_: Drop, connection: Connection) -> None:
    connection.close(drain_timeout=0)


class Log(logging.Handler):
    """Writes each line, as a log does, and keeps only how many of a kind there were."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)
        self.lines[str(record.msg).split("\n")[0][:100]] += 1


class Target:
    """The server and what it says of itself."""

    def __init__(self, servers: list[Server], log: Log) -> None:
        self.servers = servers
        self.log = log
        self.tasks = len(asyncio.all_tasks())
        self.descriptors = count_descriptors()

    def is_idle(self) -> bool:
        # A peer in the handshake is no connection yet, but has a descriptor.
        return (
            not any(server.connections for server in self.servers)
            and len(asyncio.all_tasks()) <= self.tasks
            and count_descriptors() <= self.descriptors
        )

    async def settle(self) -> None:
        for _ in range(PATIENCE * 50):
            if self.is_idle():
                break
            await asyncio.sleep(0.02)
        give_back_memory()

    def status(self) -> dict[str, Any]:
        return {
            "connections": sum(len(server.connections) for server in self.servers),
            "tasks": len(asyncio.all_tasks()),
            "descriptors": count_descriptors(),
            "is_idle": self.is_idle(),
            "most_waiting": Waiting.most,
            "log": self.log.lines,
        }


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # without that of the directory


def give_back_memory() -> None:
    """Free what is only kept for later: garbage, and the C library's free pages."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # musl has no such function
        ctypes.CDLL(None).malloc_trim(0)


def tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


async def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.peers.target", description=__doc__)
    parser.add_argument("--max-connections", type=int, default=1_000)
    parser.add_argument("--uvloop", action="store_true")
    most = parser.parse_args().max_connections
    log = Log()
    for name in ("typed_amp", "asyncio"):
        logging.getLogger(name).addHandler(log)
    logging.getLogger("typed_amp").setLevel(logging.INFO)
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
    )
    async with (
        serve(router, "127.0.0.1", 0, max_connections=most) as clear,
        serve(router, "127.0.0.1", 0, max_connections=most, ssl=tls_context()) as encrypted,
    ):
        target = Target([clear, encrypted], log)
        gc.collect()
        gc.freeze()  # as `typed_amp.run` does
        print(json.dumps([clear.addresses[0][1], encrypted.addresses[0][1]]), flush=True)
        while question := await questions.readline():
            if question == b"settle\n":
                await target.settle()
            print(json.dumps(target.status()), flush=True)


if __name__ == "__main__":
    run_on_loop(main())
