"""What is shown: a live table in a terminal, and lines elsewhere."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

EVENTS_SHOWN = 6


@dataclass
class Member:
    """A node, a responder or a client."""

    name: str
    where: str
    is_alive: bool = True


@dataclass
class View:
    """All there is to see."""

    nodes: list[Member] = field(default_factory=list)
    responders: list[Member] = field(default_factory=list)
    clients: list[Member] = field(default_factory=list)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    console: Console = field(default_factory=Console)
    live: Live | None = None
    start: float = field(default_factory=time.monotonic)
    seen: list[tuple[float, Counter[str]]] = field(default_factory=list)

    def happened(self, what: str) -> None:
        line = f"{time.monotonic() - self.start:5.1f} s  {what}"
        self.events.append(line)
        if self.live is None:
            self.console.print(line, highlight=False)
            for each in self.responders:
                answered = sum(report["answered_by"].get(each.name, 0) for report in self.all())
                if answered:
                    told = f"         {each.name} has answered {answered:,} calls"
                    self.console.print(told, highlight=False)
        self.refresh()

    def all(self) -> list[dict[str, Any]]:
        return list(self.reports.values())

    def total(self, key: str) -> int:
        return sum(report[key] for report in self.all())

    def answered(self) -> Counter[str]:
        answered: Counter[str] = Counter()
        for report in self.all():
            answered.update(report["answered_by"])
        return answered

    def rates(self) -> dict[str, float]:
        """Say how many calls a second each responder has answered of late."""
        now = time.monotonic()
        self.seen = [each for each in self.seen if now - each[0] < 1.5]
        self.seen.append((now, self.answered()))
        since, before = self.seen[0]
        seconds = max(now - since, 0.2)
        return {name: (count - before[name]) / seconds for name, count in self.answered().items()}

    def refresh(self) -> None:
        if self.live is not None:
            self.live.update(self.page(), refresh=True)

    def page(self) -> Group:
        return Group(self.members(), self.answers(), self.calls(), Text("\n".join(self.shown())))

    def shown(self) -> list[str]:
        return self.events[-EVENTS_SHOWN:]

    def members(self) -> Text:
        text = Text("nodes  ")
        for node in self.nodes:
            text.append(f" {node.name} ", "bold white on " + ("green" if node.is_alive else "red"))
            text.append(" ")
        return text

    def answers(self, *, is_over: bool = False) -> Table:
        table = Table(title="who answers")
        for column in ("responder", "began at"):
            table.add_column(column)
        for client in self.clients:
            table.add_column(f"to {client.name}", justify="right")
        table.add_column("in all" if is_over else "a second", justify="right")
        table.add_column("")
        answered = self.answered()
        rates = self.rates()
        for each in self.responders:
            rate = rates.get(each.name, 0.0)
            counts = [
                f"{self.reports.get(client.name, {}).get('answered_by', {}).get(each.name, 0):,}"
                for client in self.clients
            ]
            last = "█" * min(30, round(rate / 25)) if each.is_alive and not is_over else ""
            if not each.is_alive:
                last = "killed"
            number = f"{answered[each.name] if is_over else rate:,.0f}"
            style = None if each.is_alive else "red"
            table.add_row(each.name, each.where, *counts, number, last, style=style)
        return table

    def calls(self) -> Table:
        table = Table(title="what became of the calls")
        for column in ("", "made", "lost", "may be sent again"):
            table.add_column(column, justify="left" if not column else "right")
        lost = self.total("prices_lost")
        table.add_row(
            "Price", f"{self.total('prices'):,}", f"{lost:,}", "yes", style="red" if lost else None
        )
        failed = self.total("orders_failed")
        table.add_row("Order", f"{self.total('orders'):,}", f"{failed:,}", "no")
        return table

    def summary(self) -> None:
        self.console.print(self.answers(is_over=True))
        self.console.print(self.calls())
        reasons: Counter[str] = Counter()
        for report in self.all():
            reasons.update(report["reasons"])
        if reasons:
            told = ", ".join(f"{count} {name}" for name, count in reasons.items())
            self.console.print(f"Of those that were lost: {told}.", highlight=False)
        self.console.print(
            f"lost calls that may be sent again: {self.total('prices_lost')};"
            f" others: {self.total('orders_failed')}, each within its time",
            highlight=False,
        )
