"""What happened on a connection, in numbers.

Rule of this module: what counts costs nothing where all goes well. A snapshot is made when somebody
asks for it, from what the parts of a connection know anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

__all__ = ["Counters", "count_code"]

_MOST_CODES = 100
"""How many codes are told apart: the peer chooses them."""

_OTHERS = "(others)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """How often what happened, on one connection or on all of a server's, up to now.

    Two of them can be added. Commands that connections ask each other by themselves, such as
    `typed-amp.ping`, are not among the calls and the requests.

    Attributes:
        calls: calls that this side made.
        calls_in_flight: those of them that wait for an answer now.
        call_errors: how many were answered with an error, by its code. At most 100 codes are told
            apart; the others count as `(others)`.
        requests: commands that the peers asked for.
        requests_in_flight: responders that run now.
        refusals: how many requests this side answered with an error, by its code: declared errors,
            and refusals such as `BUSY`, `CLOSING` or `INVALID_ARGUMENTS`.
        late: answers that came when their call had been given up.
        strays: answers to nothing that was asked.
        violations: connections that ended because the peer broke the protocol.
        bytes_received: bytes that were read.
        bytes_sent: bytes that were handed to the system.
        connections: connections there are now.
        connections_turned_away: those that were too many for a server, or that `admit=` refused.
    """

    calls: int = 0
    calls_in_flight: int = 0
    call_errors: Mapping[str, int] = field(default_factory=dict)
    requests: int = 0
    requests_in_flight: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    late: int = 0
    strays: int = 0
    violations: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    connections: int = 0
    connections_turned_away: int = 0

    def __add__(self, other: Counters) -> Counters:
        sums: dict[str, int | dict[str, int]] = {}
        for each in fields(self):
            own, more = getattr(self, each.name), getattr(other, each.name)
            if isinstance(own, Mapping):
                both = dict(own)
                for code, count in more.items():
                    count_code(both, code, count)
                sums[each.name] = both
            else:
                sums[each.name] = own + more
        return Counters(**sums)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def count_code(counts: dict[str, int], code: str, count: int = 1) -> None:
    """Count something by a code that a peer chose.

    Args:
        counts: by code.
        code: the code.
        count: how many more there are.
    """
    if code not in counts and len(counts) >= _MOST_CODES:
        code = _OTHERS
    counts[code] = counts.get(code, 0) + count
