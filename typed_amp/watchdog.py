"""Noticing what doesn't happen: bytes that don't come.

Rule of this module: it looks now and then, and has nothing to do for each byte or box. What it
bounds may last a quarter longer than was said.
"""

from __future__ import annotations

import fcntl
import sys
import termios
from logging import INFO, WARNING
from typing import TYPE_CHECKING, Any, Final

from typed_amp.built_in import Ping
from typed_amp.errors import ProtocolViolationError
from typed_amp.log import log
from typed_amp.rounds import rounds_of

if TYPE_CHECKING:
    import asyncio

    from typed_amp.link import Link
    from typed_amp.rounds import Group
    from typed_amp.waiting import Waiter

__all__ = ["Watchdog"]

_SILENCES: Final = 3
"""How many times `keepalive` a peer may be silent."""

_TICKS: Final = 4
"""How often it looks within the shortest of the times that it watches."""


class Watchdog:
    """Ends a connection whose peer is gone, doesn't finish a box, or has nothing to say.

    Args:
        link: the inside of the connection. Its settings say how long what may take.
    """

    __slots__ = (
        "_active_at",
        "_activity",
        "_box_offset",
        "_box_since",
        "_heard_at",
        "_heard_bytes",
        "_link",
        "_ping",
        "_pinged_at",
        "_taken_bytes",
        "group",
    )

    def __init__(self, link: Link[Any]) -> None:
        self._link = link
        self.group: Group | None = None
        """With which others it looks."""
        self._heard_bytes = 0
        self._taken_bytes = 0
        """How many a peer took that is slow to read."""
        self._heard_at = 0.0
        self._box_offset = -1
        self._box_since = 0.0
        self._activity = 0
        self._active_at = 0.0
        self._ping: Waiter | None = None
        self._pinged_at = 0.0

    def begin(self) -> None:
        """There is a peer."""
        settings, loop = self._link.settings, self._link.loop
        limits = settings.limits
        times = (limits.box_timeout, limits.idle_timeout, settings.keepalive)
        period = min(time for time in times if time is not None) / _TICKS
        self._heard_at = self._active_at = self._pinged_at = loop.time()
        rounds_of(loop, period).join(self)

    def end(self) -> None:
        """There is none any more."""
        if self.group is not None:
            self.group.rounds.leave(self)

    def look(self, now: float, *, is_late: bool) -> None:
        """See whether anything is to be done; see `Member.look`."""
        link = self._link
        if is_late:
            # This program was stopped, or busy, and may have read nothing of what came.
            self._heard_at = self._box_since = now
        if link.is_shut or link.is_violated or link.writer.is_locked:
            self._heard_at = now  # what comes has another sense, or none
            return
        self._look_for_life(now)
        self._look_at_box(now)
        self._look_for_use(now)

    def _look_for_life(self, now: float) -> None:
        link = self._link
        keepalive = link.settings.keepalive
        if keepalive is None:
            return
        is_full = link.writer.is_full
        if not (link.is_reading or is_full):
            # What it says isn't read, so that it can't be silent. But what is written to one that
            # has gone fails, and that can be seen.
            self._heard_at = now
            if now - self._pinged_at >= keepalive and not link.reader.is_stopped:
                self._ask(now)
            return
        # To a peer that is slow to read each byte that it takes is a sign of life.
        taken = link.writer.sent_bytes - _held_by_system(link.transport) if is_full else 0
        if link.reader.offset != self._heard_bytes or taken != self._taken_bytes:
            self._heard_bytes = link.reader.offset
            self._taken_bytes = taken
            self._heard_at = now
            return
        silence = now - self._heard_at
        if silence < keepalive:
            return
        if silence >= _SILENCES * keepalive:
            link.lost_cause = TimeoutError(f"the peer was silent for {silence:.3g} seconds")
            log(WARNING, "silent", link.connection, "given up, since %s", link.lost_cause)
            link.transport.abort()
        elif not is_full and (self._ping is None or self._ping.done()):
            self._ask(now)

    def _ask(self, now: float) -> None:
        self._pinged_at = now
        self._ping = self._link.calls.ask_aside(Ping())

    def _look_at_box(self, now: float) -> None:
        link = self._link
        reader = link.reader
        if not reader.pending_bytes or reader.has_more or not link.is_reading:
            self._box_offset = -1
        elif reader.box_offset != self._box_offset:
            self._box_offset = reader.box_offset
            self._box_since = now
        elif now - self._box_since >= link.settings.limits.box_timeout:
            link.violated(
                ProtocolViolationError(
                    f"a box that is not complete after {now - self._box_since:.3g} seconds"
                    " (Limits.box_timeout)",
                    reader.box_offset,
                )
            )

    def _look_for_use(self, now: float) -> None:
        link = self._link
        timeout = link.settings.limits.idle_timeout
        if timeout is None or link.is_draining:
            return
        # A box that comes slowly, or answers that are taken slowly, are use as well.
        taken = link.writer.sent_bytes if link.writer.is_full else 0
        activity = link.responses.taken + link.calls.made + taken
        if (
            activity != self._activity
            or link.responses.running
            or link.dialogue.pending
            or link.reader.pending_bytes
        ):
            self._activity = activity
            self._active_at = now
        elif now - self._active_at >= timeout:
            log(INFO, "idle", link.connection, "closing, idle for %.3g seconds", timeout)
            link.close(None)


def _held_by_system(transport: asyncio.Transport) -> int:
    """Say how many bytes the system has taken to be sent, and knows of no peer that has them.

    0 where it doesn't say, which is everywhere but on sockets of Linux and its like.
    """
    taker = transport.get_extra_info("socket")
    if taker is None:
        return 0
    try:
        answer = fcntl.ioctl(taker.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # ValueError: it is closed
        return 0
    return int.from_bytes(answer, sys.byteorder)
