"""Calls per second and latency beside other ways to call, client and server in two processes.

All take turns in one run, so that a machine's moods meet all of them alike: typed_amp; Twisted's
AMP; gRPC by grpcio's asyncio API and by grpclib; FastAPI, called by aiohttp; and rpyc. Each checks
what comes in, on both sides. Beside them, a bare asyncio.Protocol with the same bytes: `bare` makes
calls with them, a future each, and is what is left of the time when a library costs nothing;
`bare-bytes` only moves them, which is the ceiling of the transport. Quote the ratios.

Without options: repeat("abc", 3) over TCP with 1 and 100 calls in flight on both loops, and the
other works on asyncio's. Any of the options that choose takes the place of that choice, and what is
not chosen is then `repeat`, `tcp`, 100 and both loops. `--all` is everything: hours, or twelve
minutes with `--rounds 1 --seconds 0.2`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.peers.roster import LOOPS, PEERS, TRANSPORTS
from benchmarks.plot import svg
from benchmarks.race import (
    Entry,
    Event,
    Outcome,
    make_certificates,
    missing_packages,
    processors,
    race,
)
from benchmarks.results import as_json, machine, missing, tables
from benchmarks.work import WORKS

IN_FLIGHT = (1, 10, 100, 1_000)
START = 1.2
"""About how many seconds it takes to start both programs of a turn."""


def main() -> None:
    options = parser().parse_args()
    peers = [peer for peer in options.peers if not missing_packages(peer)]
    outcomes = planned(options, peers)
    cpus = () if options.no_pinning else processors()
    about = machine(peers, cpus=cpus)
    about |= {"rounds": options.rounds, "seconds": options.seconds}
    minutes = options.rounds * len(outcomes) * (options.seconds + START) / 60
    tell(f"{len(outcomes)} turns in each of {options.rounds} rounds, about {minutes:.0f} minutes")
    with tempfile.TemporaryDirectory() as directory:
        make_certificates(Path(directory))
        race(
            outcomes,
            rounds=options.rounds,
            seconds=options.seconds,
            directory=Path(directory),
            cpus=cpus,
            tell=tell if options.verbose else lambda _: None,
        )
    versions = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    bound = "client and server bound to a processor each" if cpus else "not bound to processors"
    print(f"Python {about['python']}, {versions}\n{about['processor']}, {bound}")
    print(f"the median of {options.rounds} rounds of {options.seconds:g} s; ", end="")
    print("/ is how many times as cheap" if options.by_cost else "/ is how many times as fast")
    print("cpu us: processor time of a call, client and server together\n")
    print(tables(outcomes, by_cost=options.by_cost, markdown=options.markdown))
    for peer in options.peers:
        if absent := missing_packages(peer):
            print(f"\nnot measured: {peer}, since {', '.join(absent)} is not installed")
    if told := missing(outcomes):
        print(f"\n{told}")
    if options.json:
        options.json.write_text(json.dumps(as_json(outcomes, about), indent=1) + "\n")
    if options.plot:
        options.plot.write_text(svg(outcomes, notes_of(about, bound)))
    if any(outcome.troubles for outcome in outcomes):
        sys.exit("some turns failed: see the last column")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER")
    made.add_argument("--work", nargs="+", choices=WORKS, metavar="WORK")
    made.add_argument("--in-flight", nargs="+", type=int, metavar="N")
    made.add_argument("--transport", nargs="+", choices=TRANSPORTS, metavar="TRANSPORT")
    made.add_argument("--loop", nargs="+", choices=LOOPS, metavar="LOOP")
    made.add_argument("--all", action="store_true", help="all works, transports and loops")
    made.add_argument("--rounds", type=int, default=3, help="how often each has its turn")
    made.add_argument("--seconds", type=float, default=1.0, help="how long a turn takes")
    made.add_argument(
        "--by-cost",
        action="store_true",
        help="ratios of processor time, for a machine that does other things meanwhile",
    )
    made.add_argument("--no-pinning", action="store_true", help="bind no process to a processor")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    made.add_argument("--plot", type=Path, metavar="FILE", help="write a plot, as SVG")
    made.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    made.add_argument("--verbose", action="store_true", help="say which turn it is")
    return made


def planned(options: argparse.Namespace, peers: list[str]) -> list[Outcome]:
    """Say who has turns at what."""
    loops = options.loop or LOOPS
    if options.all:
        chosen = product(
            options.work or WORKS, options.transport or TRANSPORTS, options.in_flight or IN_FLIGHT
        )
        events = [(Event(*each), loops) for each in chosen]
    elif options.work or options.in_flight or options.transport or options.loop:
        chosen = product(
            options.work or ["repeat"], options.transport or ["tcp"], options.in_flight or [100]
        )
        events = [(Event(*each), loops) for each in chosen]
    else:
        events = [
            (Event("repeat", "tcp", 1), LOOPS),
            (Event("repeat", "tcp", 100), LOOPS),
            (Event("value", "tcp", 16), ["asyncio"]),
            (Event("list", "tcp", 100), ["asyncio"]),
            (Event("rows", "tcp", 100), ["asyncio"]),
            (Event("error", "tcp", 100), ["asyncio"]),
        ]
    return [
        Outcome(event, Entry(peer, loop))
        for event, loops in events
        for peer in peers
        for loop in (loops if not PEERS[peer].own_loop else [PEERS[peer].own_loop])
    ]


def notes_of(about: dict[str, Any], bound: str) -> list[str]:
    """Say below the plot what it shows, and what it was measured on."""
    kind = "compiled" if about["compiled"] else "interpreted"
    return [
        "Calls per second, the median of the rounds, and how many times as many as Twisted's AMP.",
        "The thin lines go from the slowest round to the fastest.",
        f"typed_amp is {kind}; Python {about['python']}, {about['processor']}, {bound}.",
    ]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
