"""The plot: a bar for each peer's calls per second, and a line from its slowest to fastest round.

Rule of this module: it is SVG written by hand, so that it needs no package, the same figures give
the same file, and it can be read on light and dark pages.
"""

from __future__ import annotations

import statistics
from html import escape
from typing import TYPE_CHECKING

from benchmarks.results import events_of, rate_of, title

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.race import Outcome

WIDTH = 760
LEFT = 150
RIGHT = 120
BAR = 16
STEP = 22
OWN, OTHER, LIMIT = "#2f7ed8", "#9aa5b1", "#c9b458"


def svg(outcomes: Sequence[Outcome], caption: str) -> str:
    """Draw all events one below the other, each to its own scale, the bare loop left out of it."""
    drawn: list[str] = []
    top = 30
    for event in events_of(outcomes):
        those = [each for each in outcomes if each.event == event and each.good]
        those.sort(key=lambda outcome: -rate_of(outcome))
        drawn.append(text(8, top, title(event), weight="bold"))
        top += 12
        drawn += bars(those, top)
        top += STEP * len(those) + 28
    drawn.append(text(8, top, caption, size=11))
    height = top + 12
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *drawn,
            "</svg>\n",
        ]
    )


def bars(outcomes: Sequence[Outcome], top: int) -> Iterator[str]:
    # The bare loop is many times as long as all others, and would leave them no room.
    others = [rate_of(outcome) for outcome in outcomes if outcome.entry.peer != "bare"]
    longest = max(others, default=0) or max(map(rate_of, outcomes), default=1)
    scale = (WIDTH - LEFT - RIGHT) / longest
    for index, outcome in enumerate(outcomes):
        y = top + index * STEP
        rates = [figures.rate for figures in outcome.good]
        median = statistics.median(rates)
        is_cut = median > longest
        width = min(median, longest) * scale
        peer = outcome.entry.peer
        colour = {"typed_amp": OWN, "bare": LIMIT}.get(peer, OTHER)
        yield text(LEFT - 8, y + BAR - 4, outcome.entry.title, anchor="end")
        yield f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{colour}"/>'
        if not is_cut:
            low, high = (LEFT + rate * scale for rate in (min(rates), max(rates)))
            middle = y + BAR / 2
            yield (
                f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"'
                ' stroke="#222222" stroke-width="1.5"/>'
            )
            width = max(width, high - LEFT)
        label = f"{median:,.0f} / s"
        yield text(LEFT + width + 6, y + BAR - 4, f"… {label}" if is_cut else label)


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    weight: str = "normal",
    size: int = 12,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
        f' font-size="{size}" fill="#222222">{escape(content)}</text>'
    )
