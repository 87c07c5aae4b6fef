"""Which of several connections the next call goes out on.

Rule of this module: pure. It is told what there is, and what time it is, and says which one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["BALANCES", "Balance", "Candidate", "Chooser"]

Balance: TypeAlias = Literal["least_loaded", "round_robin"]
"""How calls are spread."""

BALANCES: Final[tuple[Balance, ...]] = ("least_loaded", "round_robin")


class Candidate(Protocol):
    """What may be chosen.

    Attributes:
        calls: how many calls wait on it.
        turn: when it was chosen last: the higher, the later; 0 if never.
        avoided_until: the time until which others are preferred to it.
    """

    calls: int
    turn: int
    avoided_until: float


C = TypeVar("C", bound=Candidate)


class Chooser(Generic[C]):
    """Chooses, and remembers in what it has chosen when that was.

    With `"least_loaded"` it is the one on which the fewest calls wait, and of those the one that
    was not chosen for longest; with `"round_robin"` it is that one whatever waits.

    Args:
        balance: how calls are spread.

    Raises:
        ValueError: there is no such way.
    """

    def __init__(self, balance: Balance) -> None:
        if balance not in BALANCES:
            known = " or ".join(map(repr, BALANCES))
            raise ValueError(f"balance must be {known}, not {balance!r}")
        self._counts_calls = balance == "least_loaded"
        self._turn = 0

    def choose(self, candidates: Iterable[C], refused: Collection[C], now: float) -> C | None:
        """Choose one; None if there is none.

        Args:
            candidates: all there are.
            refused: those that have refused this very call. One of them is chosen only if there is
                no other.
            now: what time it is. One that is to be avoided is chosen only if all others are too.
        """
        best: C | None = None
        best_rank: tuple[bool, bool, int, int] | None = None
        for candidate in candidates:
            rank = (
                candidate in refused,
                candidate.avoided_until > now,
                candidate.calls if self._counts_calls else 0,
                candidate.turn,
            )
            if best_rank is None or rank < best_rank:
                best, best_rank = candidate, rank
        if best is not None:
            self._turn += 1
            best.turn = self._turn
        return best
