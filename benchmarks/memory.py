"""The memory of a server under attack: before, at the peak, and when the attackers have gone.

Each attack has a server of its own, a typed_amp server as `serve` makes it, and is made by another
process. It is made twice: first with little of everything, so that what a server loads and makes
once is there, then in full. Memory is what is resident: as the system says it, the peak too. The
server says itself when it is idle again; it then gives back what Python and the C library keep
for later.

What is there after the first attack and was not before may be what Python's allocator can't give
back, since something lives in each of its arenas. With `--times 3` each attack is made again on the
same server: what leaks grows each time.

Attacks that wait for the server to lose patience run at the same time, each on its own server;
floods run one after the other.
"""

from __future__ import annotations

import argparse
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks.attacks import ATTACKS, Attack
from benchmarks.harness import (
    MIB,
    Aggressor,
    Target,
    allow_descriptors,
    deeds,
    forget_peak,
    peak,
    resident,
    table,
)

SMALL = 100
"""How much of an attack is made first."""


@dataclass
class Measured:
    """An attack, the server's bytes, and what it did."""

    attack: Attack
    amount: int
    before: int
    peak: int
    after: list[int]
    opened: int
    deeds: str
    log: dict[str, int]

    def row(self) -> list[str]:
        each = (self.peak - self.before) / 1024 / self.opened if self.opened else 0
        return [
            self.attack.titled(self.amount),
            *(f"{size / MIB:,.1f}" for size in (self.before, self.peak)),
            ", ".join(f"{size / MIB:,.1f}" for size in self.after),
            f"{each:,.1f}" if self.attack.of_connections else "",
            self.deeds,
        ]


HEAD = ["attack", "before", "peak", "after", "KiB / connection", "what the server did"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__)
    parser.add_argument("--only", choices=ATTACKS, action="append", help="this attack alone")
    parser.add_argument("--scale", type=float, default=1, help="how much of each attack")
    parser.add_argument("--hold", type=float, default=40, help="how many seconds attackers stay")
    parser.add_argument("--seconds", type=float, default=30, help="how long a flood may take")
    parser.add_argument("--times", type=int, default=1, help="how often to make each attack")
    parser.add_argument("--uvloop", action="store_true", help="run the server on uvloop")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    allow_descriptors()
    attacks = [ATTACKS[name] for name in options.only or ATTACKS]

    def run(attack: Attack) -> Measured:
        return measure(
            attack,
            max(1, round(attack.amount * options.scale)),
            times=options.times,
            hold=options.hold,
            seconds=options.seconds + (options.hold if attack.holds else 0),
            uvloop=options.uvloop,
        )

    patient = [attack for attack in attacks if attack.holds]
    with ThreadPoolExecutor(max(1, len(patient))) as pool:
        measured = [*pool.map(run, patient)]
    measured += [run(attack) for attack in attacks if not attack.holds]
    print(f"MiB resident, Python {platform.python_version()}", end="")
    print(f", {'uvloop' if options.uvloop else 'the default loop'}\n")
    print(table(HEAD, [each.row() for each in measured], markdown=options.markdown))
    if logged := [each for each in measured if each.log]:
        print("\nlogged:")
        for each in logged:
            for line, number in each.log.items():
                print(f"  {each.attack.name}: {number:,} times {line}")


def measure(
    attack: Attack, amount: int, *, times: int, hold: float, seconds: float, uvloop: bool
) -> Measured:
    """Make an attack on a server of its own."""
    with Target(*attack.server_options, *(["--uvloop"] if uvloop else [])) as target:
        little = min(amount, SMALL)
        with Aggressor(attack.name, target.ports, amount=little, seconds=5, hold=0.5) as aggressor:
            aggressor.report()
        statuses: list[dict[str, Any]] = [target.ask("settle")]
        reports: list[dict[str, Any]] = []
        before = resident(target.pid)
        forget_peak(target.pid)
        after: list[int] = []
        for _ in range(times):
            with Aggressor(
                attack.name, target.ports, amount=amount, seconds=seconds, hold=hold
            ) as aggressor:
                reports.append(aggressor.report())
            statuses.append(target.ask("settle"))
            after.append(resident(target.pid))
        report, (earlier, status) = reports[-1], statuses[-2:]
        log = {
            line: number - earlier["log"].get(line, 0)
            for line, number in status["log"].items()
            if number > earlier["log"].get(line, 0)
        }
        did = deeds(report, {**status, "log": log}, of_connections=attack.of_connections)
        if not status["is_idle"]:
            did += "; never idle again: " + ", ".join(
                f"{status[key]:,} {key}" for key in ("connections", "tasks", "descriptors")
            )
        return Measured(
            attack,
            amount,
            before=before,
            peak=peak(target.pid),
            after=after,
            opened=report["opened"],
            deeds=did,
            log=log,
        )


if __name__ == "__main__":
    main()
