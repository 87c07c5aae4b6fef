"""What a client notices of an attack on its server by somebody else.

Each attack has a server of its own, with one quiet client that makes 200 calls in a second. They
are timed for a while, then during an attack, then again when that is over. The figure is the 99th
percentile during the attack, as a multiple of that before or after, whichever is less: the machine
may have been busy with something else in one, or the server still with the attackers' going. The
longest wait is of the attack, or of the first second after it.

On two processors, the server has one for itself. The attacker and the client share the other. The
attacker has the lowest priority there, so that the client runs as soon as its answer is there, and
what is measured is the server's doing. What is left of the sharing is in the first row: an attacker
that only computes: where that is far from 1, the machine is too busy with something else to measure
anything. On one processor all share that; on three or more nobody shares. With `--rounds 3` each
attack has three turns, and the one in the middle counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from dataclasses import dataclass

from benchmarks.attacks import ATTACKS, COMPUTING, Attack
from benchmarks.harness import Aggressor, Program, Target, allow_descriptors, deeds, place, table

FAREWELL = 1.0
"""Seconds after the attackers have gone in which the longest wait is theirs."""

HEAD = [
    "attack",
    "quiet p50",
    "quiet p99",
    "p50",
    "p99",
    "longest",
    "p99 / quiet",
    "p99 after",
    "what the server did",
]


@dataclass
class Figures:
    """How long calls took, in milliseconds."""

    calls: int
    failed: int
    median: float
    p99: float
    longest: float


@dataclass
class Measured:
    """An attack, and what the neighbour noticed of it."""

    attack: Attack
    amount: int
    before: Figures
    during: Figures
    after: Figures
    deeds: str

    @property
    def quiet(self) -> Figures:
        return min(self.before, self.after, key=lambda figures: figures.p99)

    @property
    def ratio(self) -> float:
        return self.during.p99 / self.quiet.p99 if self.quiet.p99 else 0

    def row(self) -> list[str]:
        failed = f"; {self.during.failed:,} calls of the neighbour's failed"
        quiet = self.quiet
        figures = [
            quiet.median,
            quiet.p99,
            self.during.median,
            self.during.p99,
            self.during.longest,
        ]
        return [
            self.attack.titled(self.amount if self.attack.holds else None),
            *(f"{figure:,.2f}" for figure in figures),
            f"{self.ratio:,.1f}",
            f"{self.after.p99:,.2f}",
            self.deeds + (failed if self.during.failed else ""),
        ]


def main() -> None:
    attacks = {COMPUTING.name: COMPUTING, **ATTACKS}
    parser = argparse.ArgumentParser(prog="benchmarks.neighbours", description=__doc__)
    parser.add_argument("--only", choices=attacks, action="append", help="this attack alone")
    parser.add_argument("--scale", type=float, default=1, help="how much of what is not endless")
    parser.add_argument("--seconds", type=float, default=8, help="how long an attack takes")
    parser.add_argument("--quiet", type=float, default=3, help="how long to time without one")
    parser.add_argument("--rounds", type=int, default=1, help="how many turns each attack has")
    parser.add_argument("--uvloop", action="store_true", help="run server and client on uvloop")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    allow_descriptors()

    def run(name: str) -> Measured:
        rounds: list[Measured] = [
            measure(
                attacks[name],
                scale=options.scale,
                seconds=options.seconds,
                quiet=options.quiet,
                uvloop=options.uvloop,
            )
            for _ in range(options.rounds)
        ]
        return sorted(rounds, key=lambda each: each.ratio)[len(rounds) // 2]

    measured = [run(name) for name in options.only or attacks]
    print(f"milliseconds, Python {platform.python_version()}", end="")
    print(f", {'uvloop' if options.uvloop else 'the default loop'}\n")
    print(table(HEAD, [each.row() for each in measured], markdown=options.markdown))


def measure(
    attack: Attack, *, scale: float, seconds: float, quiet: float, uvloop: bool
) -> Measured:
    """Let a client call a server before, during and after an attack."""
    amount = max(1, round(attack.amount * scale))
    extra = ["--uvloop"] if uvloop else []
    cpus = sorted(os.sched_getaffinity(0))
    with (
        Target(*attack.server_options, *extra) as target,
        Program("benchmarks.peers.neighbour", str(target.ports.clear), *extra) as neighbour,
    ):
        place(target.pid, cpu=cpus[0])
        place(neighbour.pid, cpu=cpus[min(2, len(cpus) - 1)])

        def figures_in(wait: float) -> Figures:
            time.sleep(wait)
            return Figures(**neighbour.ask("figures"))

        figures_in(min(quiet, 1.0))  # both get warm
        before = figures_in(quiet)
        with Aggressor(
            attack.name,
            target.ports,
            amount=amount,
            seconds=seconds,
            hold=seconds,
            is_endless=True,
        ) as aggressor:
            place(aggressor.pid, cpu=cpus[min(1, len(cpus) - 1)], niceness=19)
            figures_in(0)
            report = aggressor.report()
            during = figures_in(0)
        going = figures_in(min(FAREWELL, seconds))
        during.longest = max(during.longest, going.longest)
        during.failed += going.failed
        after = figures_in(quiet)
        status = target.ask("status")
    did = deeds(report, status, of_connections=attack.of_connections)
    return Measured(attack, amount, before, during, after, did)


if __name__ == "__main__":
    main()
