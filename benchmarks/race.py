"""Running turns: a server and a client of one peer at a time, each in a process of its own.

Rule of this module: peers take turns within each round, and rounds follow each other, so that a
machine's moods meet all of them alike. What fails is part of the result.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

from benchmarks.peers.roster import PEERS
from benchmarks.peers.turn import UNABLE, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


PATIENCE = 20.0
"""Seconds that a turn may take beside its own time, thrice; more than a clock's `LONGEST`."""


@dataclass(frozen=True)
class Event:
    """What peers compete at: one table of the results."""

    work: str
    transport: str
    in_flight: int


@dataclass(frozen=True)
class Entry:
    """Who takes part in an event."""

    peer: str
    loop: str

    @property
    def title(self) -> str:
        own_loop = PEERS[self.peer].own_loop
        return self.peer if own_loop else f"{self.peer}, {self.loop}"


@dataclass(frozen=True)
class Figures:
    """What one client measured.

    Attributes:
        rate: calls per second.
        median: the median latency of a call, in microseconds.
        p99: the latency that one call in a hundred exceeds.
        client: microseconds of processor time that a call cost the client.
        server: and the server; 0 where the system doesn't say it.
    """

    rate: float
    median: float
    p99: float
    client: float
    server: float

    @property
    def cost(self) -> float:
        return self.client + self.server


@dataclass
class Outcome:
    """What came out for one entry of one event.

    Attributes:
        event: what it was about.
        entry: who took part.
        rounds: the figures of each round, or None.
        troubles: what went wrong in those without figures.
        inability: why the peer can't do this at all, if it can't.
    """

    event: Event
    entry: Entry
    rounds: list[Figures | None] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    inability: str = ""

    @property
    def good(self) -> list[Figures]:
        return [figures for figures in self.rounds if figures is not None]


def missing_packages(peer: str) -> list[str]:
    """Give the packages that a peer needs and that aren't installed."""
    missing: list[str] = []
    for package in PEERS[peer].packages:
        try:
            version(package)
        except PackageNotFoundError:
            missing.append(package)
    return missing


def processors() -> tuple[int, ...]:
    """Give one processor for servers and one for clients; none where processes can't be bound."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    allowed = sorted(os.sched_getaffinity(0))
    return tuple(allowed[-2:]) if len(allowed) > 1 else ()


def make_certificates(directory: Path) -> None:
    """Write the certificates for the turns with TLS."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1", common_name="localhost")
    authority.cert_pem.write_to_path(directory / "authority.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(directory / "certificate.pem", append=True)


def race(
    outcomes: Sequence[Outcome],
    *,
    rounds: int,
    seconds: float,
    directory: Path,
    cpus: tuple[int, ...],
    tell: Callable[[str], None],
) -> None:
    """Let all have their turns, and note in the outcomes what came out.

    Args:
        outcomes: who has turns; those of an event stand together.
        rounds: how often each has its turn; every other round goes backwards.
        seconds: how long a turn takes.
        directory: where certificates are, and sockets are made.
        cpus: the processors for servers and clients.
        tell: is told before each turn.
    """
    for number in range(rounds):
        order: Iterable[Outcome] = reversed(outcomes) if number % 2 else outcomes
        for index, outcome in enumerate(order):
            event, entry = outcome.event, outcome.entry
            tell(
                f"round {number + 1} of {rounds}, turn {index + 1} of {len(outcomes)}:"
                f" {event.work}, {event.transport}, {event.in_flight} in flight, {entry.title}"
            )
            turn = Turn(
                peer=entry.peer,
                loop=entry.loop,
                transport=event.transport,
                work=event.work,
                in_flight=event.in_flight,
                seconds=seconds,
                directory=str(directory),
                cpus=cpus,
            )
            if outcome.inability:
                outcome.rounds.append(None)
                continue
            try:
                outcome.rounds.append(measure(turn))
            except UnableError as error:
                outcome.rounds.append(None)
                outcome.inability = str(error)
            except TurnError as error:
                outcome.rounds.append(None)
                outcome.troubles.append(str(error))


class TurnError(Exception):
    """A turn came to nothing."""


class UnableError(TurnError):
    """The peer can't do this."""


def measure(turn: Turn) -> Figures:
    """Start a server and a client of one kind, and let the client measure.

    Raises:
        TurnError: one of them failed, or it took too long.
        UnableError: the peer can't do this.
    """
    Path(turn.directory, "socket").unlink(missing_ok=True)
    with started("server", turn) as server, started("client", turn) as client:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            if not port:
                raise TurnError(f"the server failed: {last_line(server.communicate()[1])}")
            output, complaint = client.communicate(
                json.dumps([int(port), server.pid]), timeout=3 * turn.seconds + PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise TurnError("it stood still") from None
        finally:
            client.kill()
            end(server)
    if client.returncode == UNABLE:
        raise UnableError(last_line(complaint))
    if client.returncode:
        raise TurnError(f"the client failed: {last_line(complaint)}")
    return Figures(**json.loads(output))


def started(side: str, turn: Turn) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.peers", side, turn.as_argument()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(server: subprocess.Popen[str]) -> None:
    """Ask a server to end, and see to it that it does."""
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.communicate(timeout=2)
        return
    server.kill()
    server.communicate()


def last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
