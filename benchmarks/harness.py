"""What the benchmarks that attack a server share: its process, the attacker's, and tables.

Rule of this module: it measures from outside, by what the system knows of a process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

MIB = 1024 * 1024


def allow_descriptors() -> None:
    """Let this process, and those it starts, open as many files as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def resident(pid: int) -> int:
    """Give how many bytes of memory a process has, exactly."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the system doesn't say how much memory process {pid} has")


def peak(pid: int) -> int:
    """Give how many bytes of memory a process had at the most since `forget_peak`.

    The system keeps this itself, so that no peak is missed between two looks.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the system doesn't say how much memory process {pid} had")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def place(pid: int, *, cpu: int, niceness: int = 0) -> None:
    """Bind a process to a processor, and say how much it yields to others."""
    os.sched_setaffinity(pid, {cpu})
    os.setpriority(os.PRIO_PROCESS, pid, niceness)


class Program:
    """A program of the benchmarks that answers questions in lines of JSON.

    Args:
        module: its module.
        arguments: what to pass to it.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid: int = self._process.pid
        self._module = module

    def read(self) -> Any:
        """Wait for the next line that it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} has ended, with {self._process.wait()}")
        return json.loads(line)

    def ask(self, question: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        return self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Ports:
    """Where the server is."""

    clear: int
    encrypted: int


class Target(Program):
    """The server that is attacked."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("benchmarks.peers.target", *arguments)
        self.ports = Ports(*self.read())


class Aggressor(Program):
    """One attack on a server.

    Args:
        name: which.
        ports: where the server is.
        amount: how many connections or boxes.
        seconds: when to end at the latest.
        hold: how long to stay once all is sent.
        is_endless: whether to go on until the time is over.
    """

    def __init__(
        self,
        name: str,
        ports: Ports,
        *,
        amount: int,
        seconds: float,
        hold: float,
        is_endless: bool = False,
    ) -> None:
        super().__init__(
            "benchmarks.attacks",
            name,
            str(ports.clear),
            str(ports.encrypted),
            f"--amount={amount}",
            f"--seconds={seconds}",
            f"--hold={hold}",
            *(["--endless"] if is_endless else []),
        )
        self.read()  # it has begun

    def report(self) -> dict[str, Any]:
        """Wait for the end of the attack, and give what the attacker saw."""
        report: dict[str, Any] = self.read()
        return report


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Lay out a table; all columns but the first and the last are figures."""
    if markdown:
        rule = ["---", *["---:"] * (len(head) - 2), "---"]
        return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    last = len(head) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index in (0, last) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    )


def deeds(report: dict[str, Any], status: dict[str, Any], *, of_connections: bool) -> str:
    """Say what the server did about an attack.

    Args:
        report: what the attacker saw.
        status: what the server says, before and after.
        of_connections: whether the attack was made of connections.
    """
    said: list[str] = []
    if not report["opened"] and report["refused"]:
        return f"refused {report['refused']:,} connections"
    if report["refused"]:
        said.append(f"refused {report['refused']:,} connections")
    if of_connections or report["closed"]:
        first, last = (f"{report[key] or 0:.1f}" for key in ("first_closed", "last_closed"))
        when = f" after {first} s" if first == last else f" after {first} to {last} s"
        when = when if report["closed"] else ""
        said.append(f"closed {report['closed']:,} of {report['opened']:,}{when}")
    if report["is_stalled"]:
        said.append(f"stopped reading after {report['sent']:,} at the most")
    said += [
        f"{number:,} asks of its own" if code == "ask" else f"{number:,} {code}"
        for code, number in report["received"].items()
        if number
    ]
    if status["most_waiting"]:
        said.append(f"{status['most_waiting']:,} responders at once")
    lines = sum(status["log"].values())
    if lines:
        said.append(f"{lines:,} log line{'s' * (lines != 1)}")
    return "; ".join(said)
