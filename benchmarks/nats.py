"""Calls over NATS, beside nats-py's own `request` with the same bytes, in the same run.

A NATS server, a process that answers, and this one, which asks both ways in turns, round by round.
The plain side moves the very boxes that typed_amp writes for the same call, and does nothing with
them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nats.aio.client import Client
from pydantic import BaseModel

from benchmarks.harness import table
from benchmarks.work import REPEATED, TEXT, TIMES
from examples.cluster.node import NatsServer
from typed_amp import Command, Router, connect_nats, encode_box, serve_nats
from typed_amp.nats_link import flush

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg

ASK = {
    b"_ask": b"1",
    b"_deadline": b"30000",
    b"_command": b"Repeat",
    b"text": TEXT.encode(),
    b"times": b"%d" % TIMES,
}
ANSWER = {b"_answer": b"1", b"text": REPEATED.encode()}


class Repeated(BaseModel):
    text: str


class Repeat(Command[Repeated]):
    text: str
    times: int


router = Router()


@router.responder(Repeat)
async def repeat(command: Repeat) -> Repeated:
    return Repeated(text=command.text * command.times)


async def answer(url: str) -> None:
    """Answer both ways until the parent closes the pipe."""
    plain = Client()
    await plain.connect(url)
    data = encode_box(ANSWER)

    async def respond(message: Msg) -> None:
        await message.respond(data)

    await plain.subscribe("plain.Repeat", "q", cb=respond)
    await flush(plain)
    async with serve_nats(router, url, service="typed"):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await plain.close()


class Turn(NamedTuple):
    """What came of one side's turn: calls a second, and microseconds of processor time for each."""

    rate: float
    cost: float


async def ask(
    url: str, process_id: int, options: argparse.Namespace
) -> dict[str, dict[str, list[Turn]]]:
    """Give the turns of each side, by how many are in flight, round by round."""
    plain = Client()
    await plain.connect(url)
    data = encode_box(ASK)
    subject = "plain.Repeat"
    figures: dict[str, dict[str, list[Turn]]] = {}
    async with connect_nats(url, service="typed") as client:

        async def plain_call() -> None:
            message = await plain.request(subject, data, timeout=30)
            assert message.data

        async def typed_call() -> None:
            answer = await client.call(Repeat(text=TEXT, times=TIMES))
            assert answer.text == REPEATED

        sides = {"nats-py": plain_call, "typed_amp": typed_call}
        for side in sides.values():
            await turn(side, process_id, 10, options.seconds / 4)
        for in_flight in options.in_flight:
            rates = figures.setdefault(str(in_flight), {name: [] for name in sides})
            for _ in range(options.rounds):
                for name, side in sides.items():
                    rates[name].append(await turn(side, process_id, in_flight, options.seconds))
    await plain.close()
    return figures


async def turn(
    call: Callable[[], Awaitable[None]], process_id: int, in_flight: int, seconds: float
) -> Turn:
    """Make calls, so many at a time, for so long."""
    made = 0
    begun = time.process_time() + processor_time(process_id)
    start = time.perf_counter()
    end = start + seconds

    async def work() -> None:
        nonlocal made
        while time.perf_counter() < end:
            await call()
            made += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
    elapsed = time.perf_counter() - start
    cost = time.process_time() + processor_time(process_id) - begun
    return Turn(made / elapsed, cost / made * 1e6)


def processor_time(process_id: int) -> float:
    """Give the seconds that another process has worked."""
    status = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(status[11]) + int(status[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.nats", description=__doc__)
    parser.add_argument("--in-flight", nargs="+", type=int, default=[1, 100], metavar="N")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--answer", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        asyncio.run(answer(options.answer))
        return
    with tempfile.TemporaryDirectory() as directory:
        server = NatsServer(Path(directory))
        try:
            server.start()
            figures = measured(server.url, options)
        finally:
            server.kill()
    rows = []
    for in_flight, turns in figures.items():
        both = list(zip(turns["nats-py"], turns["typed_amp"], strict=True))
        base, own = (
            Turn(*map(statistics.median, zip(*turns[name], strict=True))) for name in turns
        )
        rate = statistics.median(own.rate / base.rate for base, own in both)
        cost = statistics.median(base.cost / own.cost for base, own in both)
        rows.append(
            [
                in_flight,
                f"{base.rate:,.0f}",
                f"{own.rate:,.0f}",
                f"{rate:.2f}",
                f"{base.cost:.0f}",
                f"{own.cost:.0f}",
                f"{cost:.2f}",
            ]
        )
    print("calls a second, and microseconds of processor time for each, both sides together\n")
    columns = ["in flight", "nats-py", "typed_amp", "rates", "nats-py", "typed_amp", "by cost"]
    print(table(columns, rows, markdown=options.markdown))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measured(url: str, options: argparse.Namespace) -> dict[str, dict[str, list[Turn]]]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.nats", "--answer", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as answering:
        assert answering.stdin is not None
        assert answering.stdout is not None
        assert answering.stdout.readline() == b"ready\n"
        try:
            return asyncio.run(ask(url, answering.pid, options))
        finally:
            answering.stdin.close()
            answering.wait(30)


if __name__ == "__main__":
    main()
