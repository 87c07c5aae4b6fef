"""What much of it costs: memory of connections and calls, start-up time, and the cost of a call.

Memory is what is resident, as the system says it: the difference between many and few, without what
a process has anyway. A connection has made one call before it is idle. The cost of a call is
processor time of client and server together, beside that of a bare asyncio.Protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Program, allow_descriptors, resident, table
from benchmarks.peers.turn import HOST, Turn
from benchmarks.race import measure, processors
from benchmarks.samples import answer_bytes, ask_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = ("memory", "start", "in-flight", "connections")
FEW, MANY = 200, 2_200
COMMANDS = 500

IMPORTING = """
import time
begin = time.perf_counter()
{0}
print(time.perf_counter() - begin)
"""

DEFINING = """
import time
from pydantic import BaseModel
from typed_amp import Command
begin = time.perf_counter()
for _ in range({0}):
    class Answer(BaseModel):
        text: str
    class Ask({1}):
        text: str
        times: int = 1
        ratio: float | None = None
print(time.perf_counter() - begin)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long calls are made")
    parser.add_argument("--scale", type=float, default=1, help="how much of the memory and calls")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    options = parser.parse_args()
    allow_descriptors()
    parts: dict[str, Callable[[argparse.Namespace], dict[str, dict[str, float]]]] = {
        "memory": memory,
        "start": start,
        "in-flight": in_flight,
        "connections": connections,
    }
    heads = {
        "memory": "bytes of an idle connection; of a call in flight, both ends",
        "start": f"milliseconds; commands: {COMMANDS} of three fields, with an answer each",
        "in-flight": "microseconds of processor time of a call, by calls in flight",
        "connections": "microseconds of processor time of a call, by connections with one each",
    }
    print(f"Python {platform.python_version()}, the median of {options.rounds} rounds")
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.only:
        results[name] = part = parts[name](options)
        head = list(dict.fromkeys(column for row in part.values() for column in row))
        rows = [
            [title, *(f"{row[column]:,.1f}" if column in row else "" for column in head), ""]
            for title, row in part.items()
        ]
        print(f"\n{heads[name]}\n")
        print(table(["", *head, ""], rows, markdown=options.markdown), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def compared(ours: list[float], theirs: list[float]) -> dict[str, float]:
    own, other = statistics.median(ours), statistics.median(theirs)
    return {"typed_amp": own, "bare": other, "ratio": own / other}


def memory(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    few: int = round(FEW * options.scale)
    many: int = round(MANY * options.scale)

    def of_connection(what: str) -> float:
        with Program("benchmarks.peers.held", what) as server:
            port, sockets = server.read(), list[socket.socket]()
            few_bytes = many_bytes = 0
            for number in (few, many):
                while len(sockets) < number:
                    sockets.append(called(port))
                server.ask("0")
                few_bytes, many_bytes = many_bytes, resident(server.pid)
            for each in sockets:
                each.close()
        return (many_bytes - few_bytes) / (many - few)

    def of_call(what: str) -> float:
        with Program("benchmarks.peers.held", what) as holder:
            holder.read()
            few_bytes = many_bytes = 0
            for number in (few, many):
                holder.ask(str(number))
                few_bytes, many_bytes = many_bytes, resident(holder.pid)
        return (many_bytes - few_bytes) / (many - few)

    rounds = range(options.rounds)
    return {
        "idle connection": compared(
            [of_connection("typed_amp") for _ in rounds], [of_connection("bare") for _ in rounds]
        ),
        # Beside a task that waits for a future, which is the least that a responder is.
        "call in flight": compared(
            [of_call("calls") for _ in rounds], [of_call("tasks") for _ in rounds]
        ),
    }


def called(port: int) -> socket.socket:
    """Make a connection, and a call on it."""
    connection = socket.create_connection((HOST, port))
    connection.sendall(ask_bytes("repeat"))
    answer, due = b"", len(answer_bytes("repeat"))
    while len(answer) < due:
        answer += connection.recv(due - len(answer))
    return connection


def start(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    def milliseconds(program: str) -> dict[str, float]:
        # Compiled once, as installed packages are, whatever the environment says of that.
        with tempfile.TemporaryDirectory() as directory:
            output_of(program, directory)
            rounds = [float(output_of(program, directory)) for _ in range(options.rounds)]
        return {"ms": statistics.median(rounds) * 1_000}

    number = round(COMMANDS * options.scale)
    return {
        "import asyncio, ssl, pydantic": milliseconds(
            IMPORTING.format("import asyncio, ssl\nfrom pydantic import BaseModel")
        ),
        "import typed_amp": milliseconds(IMPORTING.format("import typed_amp")),
        "commands and their answers": milliseconds(DEFINING.format(number, "Command[Answer]")),
        "pydantic models, as many": milliseconds(DEFINING.format(number, "BaseModel")),
    }


def output_of(program: str, bytecode: str) -> str:
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def in_flight(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    numbers = [1, 10, 100, 1_000, 10_000] if options.scale >= 1 else [1, 10]
    return {f"{number:,}": costs(options, number, 1) for number in numbers}


def connections(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    numbers = [1, 10, 100, 1_000] if options.scale >= 1 else [1, 10]
    return {f"{number:,}": costs(options, number, number) for number in numbers}


def costs(options: argparse.Namespace, calls: int, number: int) -> dict[str, float]:
    found: dict[str, list[float]] = {"typed_amp": [], "bare": []}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(options.rounds):
            for peer, those in found.items():
                turn = Turn(
                    peer=peer,
                    loop=options.loop,
                    transport="tcp",
                    work="repeat",
                    in_flight=calls,
                    seconds=options.seconds,
                    directory=directory,
                    connections=number,
                    cpus=processors(),
                )
                those.append(measure(turn).cost)
    return compared(found["typed_amp"], found["bare"])


if __name__ == "__main__":
    main()
