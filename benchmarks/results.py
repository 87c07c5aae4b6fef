"""What came out of a race: tables of ratios, and JSON.

Rule of this module: figures of one turn differ; medians and how far apart the rounds were stand
side by side. A ratio is worked out within a round, where both sides met the same machine.
"""

from __future__ import annotations

import platform
import statistics
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import table
from benchmarks.peers.roster import PEERS
from benchmarks.race import missing_packages
from benchmarks.work import WORKS
from typed_amp import COMPILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.race import Event, Outcome

RIVALS = ("twisted", "grpc.aio", "fastapi", "bare", "bare-bytes")
"""Whose rates others' are divided by."""

HEAD = [
    "peer",
    "calls/s",
    "min to max",
    "p50 us",
    "p99 us",
    "cpu us",
    *(f"/ {rival}" for rival in RIVALS),
    "",
]


def title(event: Event) -> str:
    return f"{WORKS[event.work]}, {event.transport}, {event.in_flight:,} in flight"


def events_of(outcomes: Sequence[Outcome]) -> list[Event]:
    return list(dict.fromkeys(outcome.event for outcome in outcomes))


def tables(outcomes: Sequence[Outcome], *, by_cost: bool, markdown: bool) -> str:
    """Lay out a table for each event, the fastest first.

    Args:
        outcomes: what came out.
        by_cost: whether ratios are of processor time, not of rates.
        markdown: how to lay them out.
    """
    laid_out: list[str] = []
    for event in events_of(outcomes):
        those = [outcome for outcome in outcomes if outcome.event == event]
        those.sort(key=lambda outcome: -rate_of(outcome))
        rows = [row(outcome, those, by_cost=by_cost) for outcome in those]
        heading = f"**{title(event)}**" if markdown else title(event)
        laid_out.append(f"{heading}\n\n{table(HEAD, rows, markdown=markdown)}")
    return "\n\n".join(laid_out)


def row(outcome: Outcome, event: Sequence[Outcome], *, by_cost: bool) -> list[str]:
    good = outcome.good
    note = note_of(outcome)
    if not good:
        return [outcome.entry.title, *["-"] * (len(HEAD) - 2), note or "not measured"]
    rates = [figures.rate for figures in good]
    ratios = [ratio(outcome, rival_of(outcome, rival, event), by_cost=by_cost) for rival in RIVALS]
    return [
        outcome.entry.title,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        *(
            f"{statistics.median(getattr(figures, what) for figures in good):,.0f}"
            for what in ("median", "p99", "cost")
        ),
        *("" if value is None else f"{value:.2f}" for value in ratios),
        note,
    ]


def note_of(outcome: Outcome) -> str:
    """Say why there are no figures, or not of all rounds."""
    if outcome.inability:
        return f"can't: {outcome.inability}"
    note = "; ".join(dict.fromkeys(outcome.troubles))
    if outcome.troubles and outcome.good:
        note = f"{len(outcome.troubles)} of {len(outcome.rounds)} rounds: {note}"
    return note


def missing(outcomes: Sequence[Outcome]) -> str:
    """List what has no figures, by the reason; empty if all have."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if not outcome.good:
            event = outcome.event
            where = f"{event.work} {event.transport} {event.in_flight:,}"
            key = outcome.entry.title, note_of(outcome) or "not measured"
            reasons.setdefault(key, []).append(where)
    number = sum(map(len, reasons.values()))
    if not number:
        return ""
    lines = [f"{number:,} of {len(outcomes):,} are missing:"]
    lines += [
        f"  {title}, {reason}: {', '.join(where)}" for (title, reason), where in reasons.items()
    ]
    return "\n".join(lines)


def rate_of(outcome: Outcome) -> float:
    return statistics.median([figures.rate for figures in outcome.good] or [0.0])


def rival_of(outcome: Outcome, name: str, event: Sequence[Outcome]) -> Outcome | None:
    """Find whom to compare with: on the same loop, if it runs on several."""
    for loop in (outcome.entry.loop, PEERS[name].own_loop or "asyncio"):
        for other in event:
            if other.entry.peer == name and other.entry.loop == loop:
                return other
    return None


def ratio(outcome: Outcome, rival: Outcome | None, *, by_cost: bool) -> float | None:
    """Give the median of the ratios, round by round: how many times as fast, or as cheap."""
    if rival is None or rival is outcome:
        return None
    ratios = [
        other.cost / own.cost if by_cost else own.rate / other.rate
        for own, other in zip(outcome.rounds, rival.rounds, strict=True)
        if own is not None and other is not None
    ]
    return statistics.median(ratios) if ratios else None


def machine(peers: Sequence[str], *, cpus: tuple[int, ...]) -> dict[str, Any]:
    """Say what the figures were measured on."""
    packages = {package for peer in peers for package in PEERS[peer].packages} | {"uvloop"}
    absent = {package for peer in PEERS for package in missing_packages(peer)}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "compiled": COMPILED,
        "bound_to": list(cpus),
        "packages": {package: version(package) for package in sorted(packages - absent)},
    }


def processor() -> str:
    for line in (
        Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    ):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def as_json(outcomes: Sequence[Outcome], about: dict[str, Any]) -> dict[str, Any]:
    """Give everything that was measured, each round by itself."""
    return {
        **about,
        "results": [
            {
                **asdict(outcome.event),
                **asdict(outcome.entry),
                "rounds": [figures and asdict(figures) for figures in outcome.rounds],
                "troubles": outcome.troubles,
                "inability": outcome.inability,
            }
            for outcome in outcomes
        ],
    }
