"""Looking at many again and again, and one timer of the event loop's for all of them.

Rule of this module: a look is at a few, so that others have their turn between two looks. Nobody
is looked at too early; a little late is early enough. Who has left is forgotten at once, and an
event loop that is done with is not kept.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

__all__ = ["Group", "Member", "Rounds", "rounds_of"]

_MOST: Final = 16
"""How many are looked at before others have their turn."""

_APART: Final = 1 / 64
"""Within which part of a period all of a group were looked at."""


class Member(Protocol):
    """Somebody who is looked at."""

    group: Group | None
    """With whom. It is set by `Rounds`, and None for who isn't looked at."""

    def look(self, now: float, *, is_late: bool) -> None:
        """Look at it.

        Args:
            now: the time of the event loop.
            is_late: whether a whole look was missed, since the program was stopped, or busy.
        """


class Group:
    """Some who are looked at together.

    Args:
        rounds: where it belongs.
        began_at: when the first of its members was looked at, or came.
    """

    __slots__ = ("began_at", "due_at", "members", "rounds")

    def __init__(self, rounds: Rounds, began_at: float) -> None:
        self.rounds: Rounds = rounds
        self.began_at: float = began_at
        self.due_at: float = began_at
        self.members: list[Member] = []


class Rounds:
    """Looks at each of its members once in a period.

    As long as it has members the event loop keeps it, by its timer, and so do they.

    Args:
        loop: the event loop.
        period: seconds from one look at somebody to the next.
    """

    __slots__ = ("__weakref__", "_groups", "_loop", "_period", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, period: float) -> None:
        self._loop = loop
        self._period = period
        self._groups: deque[Group] = deque()
        """In the order in which they are due. None is empty."""
        self._timer: asyncio.TimerHandle | None = None

    def join(self, member: Member) -> None:
        """Look at somebody from now on, a period from now for the first time."""
        self._put((member,), self._loop.time())
        self._arm()

    def leave(self, member: Member) -> None:
        """Look at somebody no more, if he is looked at."""
        group = member.group
        if group is None:
            return
        member.group = None
        group.members.remove(member)
        if group.members:
            return
        self._groups.remove(group)
        if not self._groups and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put(self, members: Sequence[Member], now: float) -> None:
        """Have some looked at together in a period, with those that were looked at just before."""
        group = self._groups[-1] if self._groups else None
        if (
            group is None
            or now - group.began_at > self._period * _APART
            or len(group.members) + len(members) > _MOST
        ):
            group = Group(self, now)
            self._groups.append(group)
        group.due_at = now + self._period
        group.members += members
        for member in members:
            member.group = group

    def _arm(self) -> None:
        if self._timer is None and self._groups:
            self._timer = self._loop.call_at(self._groups[0].due_at, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        looked_at: Sequence[Member] = ()
        due_at = self._groups[0].due_at
        if due_at <= now:  # otherwise those who were due have left
            looked_at = self._groups.popleft().members
            self._put(looked_at, now)
        self._arm()
        for member in looked_at:
            if member.group is not None:  # one may have left while another was looked at
                try:
                    member.look(now, is_late=now - due_at > self._period)
                except Exception as error:
                    told = {"message": "a look at a connection failed", "exception": error}
                    self._loop.call_exception_handler(told)


_rounds: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[float, Rounds]] = (
    WeakKeyDictionary()
)


def rounds_of(loop: asyncio.AbstractEventLoop, period: float) -> Rounds:
    """Give those that all share who are looked at as often, in one event loop."""
    of_loop = _rounds.get(loop)
    if of_loop is None:
        of_loop = _rounds[loop] = WeakValueDictionary()
    rounds = of_loop.get(period)
    if rounds is None:
        rounds = of_loop[period] = Rounds(loop, period)
    return rounds
