"""The plot: a bar for each peer's calls per second, and a line from its slowest to fastest round.

Rule of this module: it is SVG written by hand, so that it needs no package, the same figures give
the same file, and it can be read on light and dark pages: it brings its own background, which
goes with its text.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from benchmarks.race import Event
from benchmarks.results import events_of, rate_of, ratio, rival_of, title

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.race import Outcome

WIDTH = 800
MARGIN = 20
BAR = 14
STEP = 20
HEAD = 34
"""How much room a panel's title takes."""

MAIN = Event("repeat", "tcp", 100)
"""What the first panel shows, over the whole width, if it was measured."""

RIVAL = "twisted"
"""Who is 1.0 x."""

STYLE = """<style>
.page { fill: #ffffff; stroke: #d0d7de }
text { fill: #1f2328; font: 12px system-ui, sans-serif }
.title { font-weight: 600; font-size: 13px }
.note { fill: #59636e; font-size: 11px }
.own { fill: #1f6feb }
.other { fill: #a3adb8 }
.limit { fill: none; stroke: #a3adb8; stroke-dasharray: 3 2 }
.spread { stroke: #1f2328; stroke-width: 1.2 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117; stroke: #3d444d }
text { fill: #f0f6fc }
.note { fill: #9198a1 }
.own { fill: #4493f8 }
.other { fill: #656c76 }
.limit { stroke: #656c76 }
.spread { stroke: #f0f6fc }
}
</style>"""


@dataclass(frozen=True)
class Panel:
    """Where an event is drawn, in what room, and how much of it names and figures take."""

    x: float
    width: float
    names: float = 128
    figures: float = 118

    @property
    def zero(self) -> float:
        return self.x + self.names

    @property
    def longest(self) -> float:
        return self.width - self.names - self.figures


WHOLE = Panel(MARGIN, WIDTH - 2 * MARGIN)
HALF = (WIDTH - 3 * MARGIN) / 2
HALVES = (Panel(MARGIN, HALF, 128, 104), Panel(2 * MARGIN + HALF, HALF, 128, 104))


def svg(outcomes: Sequence[Outcome], notes: Sequence[str]) -> str:
    """Draw a panel for each event, each to its own scale.

    Args:
        outcomes: what came out.
        notes: lines to write below.
    """
    events = events_of(outcomes)
    first = MAIN if MAIN in events else events[0]
    others = [event for event in events if event != first]
    drawn: list[str] = []
    top = MARGIN
    for row in [[first], *(others[index : index + 2] for index in range(0, len(others), 2))]:
        heights = [0.0]
        for event, panel in zip(row, [WHOLE] if row == [first] else HALVES, strict=False):
            those = [each for each in outcomes if each.event == event]
            shown = shown_of(those, has_limit=panel is WHOLE)
            drawn.append(text(panel.x, top + 12, title(event), "title"))
            drawn += bars(shown, those, panel, top + HEAD - 12)
            heights.append(HEAD + STEP * len(shown))
        top += round(max(heights)) + 12
    for note in notes:
        drawn.append(text(MARGIN, top + 8, note, "note"))
        top += 16
    height = top + 10
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    page = f'width="{WIDTH - 1}" height="{height - 1}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            "<title>Calls per second</title>",
            STYLE,
            f'<rect class="page" x="0.5" y="0.5" rx="6" {page}/>',
            *drawn,
            "</svg>\n",
        ]
    )


def shown_of(event: Sequence[Outcome], *, has_limit: bool) -> list[Outcome]:
    """Choose who is drawn, the fastest first.

    Without calls there is nothing to compare, and beside lists and rows the bare loop, which reads
    none of them, says nothing.
    """
    hidden = {"bare-bytes"} if has_limit else {"bare", "bare-bytes"}
    found = [each for each in event if each.good and each.entry.peer not in hidden]
    return sorted(found, key=lambda outcome: -rate_of(outcome))


def bars(
    outcomes: Sequence[Outcome], event: Sequence[Outcome], panel: Panel, top: float
) -> Iterator[str]:
    # The bare loop is several times as long as all others, and would leave them no room.
    others = [rate_of(outcome) for outcome in outcomes if outcome.entry.peer != "bare"]
    longest = max(others, default=0) or max(map(rate_of, outcomes), default=1)
    scale = panel.longest / longest
    for index, outcome in enumerate(outcomes):
        y = top + index * STEP
        middle = y + BAR / 2
        rates = [figures.rate for figures in outcome.good]
        median = statistics.median(rates)
        is_cut = median > longest
        width = min(median, longest) * scale
        kind = {"typed_amp": "own", "bare": "limit"}.get(outcome.entry.peer, "other")
        yield text(panel.zero - 8, y + BAR - 3, outcome.entry.title, anchor="end")
        yield (
            f'<rect class="{kind}" x="{panel.zero:.1f}" y="{y:.1f}" width="{width:.1f}"'
            f' height="{BAR}" rx="1.5"/>'
        )
        if not is_cut and len(rates) > 1:
            low, high = (
                panel.zero + min(rate, longest * 1.02) * scale for rate in (min(rates), max(rates))
            )
            yield (
                f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}"'
                f' y2="{middle:.1f}"/>'
            )
            width = max(width, high - panel.zero)
        label = f"{'… ' * is_cut}{median:,.0f}"
        times = ratio(outcome, rival_of(outcome, RIVAL, event), by_cost=False)
        if outcome.entry.peer == RIVAL:
            times = 1.0
        if times is not None:
            label += f", {times:.1f} x" if times < 20 else f", {times:.0f} x"
        yield text(panel.zero + width + 6, y + BAR - 3, label)


def text(x: float, y: float, content: str, kind: str = "", *, anchor: str = "start") -> str:
    attributes = f' class="{kind}"' if kind else ""
    if anchor != "start":
        attributes += f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(content)}</text>'
