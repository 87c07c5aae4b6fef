"""How many connections a server has, and what becomes of those that are too many.

Rule of this module: who is turned away is told so, as long as that costs little.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sized

    from typed_amp.link import Link

__all__ = ["MAX_CONNECTIONS", "MAX_TOTAL_REQUESTS", "Occupancy"]

MAX_CONNECTIONS: Final = 1_000
"""How many connections a server has, unless told otherwise."""

MAX_TOTAL_REQUESTS: Final = 10_000
"""How many responders run for all of a server's connections together, unless told otherwise."""

_WARNING_INTERVAL: Final = 60.0
"""How many seconds pass between two lines in the log about connections that were turned away."""

_REASON: Final = "this server has as many connections as it may; try again later, or elsewhere"

_logger = logging.getLogger("typed_amp")


class Occupancy:
    """Keeps the number of a server's connections within a limit.

    Args:
        server: what to name in the log.
        connections: those there are.
        most: how many there may be.

    Raises:
        ValueError: there may be none.
    """

    def __init__(self, server: object, connections: Sized, most: int) -> None:
        if most < 1:
            raise ValueError(f"max_connections must be at least 1, not {most}")
        self._server = server
        self._connections = connections
        self._most = most
        self._unreported = 0
        self._reported_at = -math.inf

    def has_room(self, link: Link[Any]) -> bool:
        """Say whether one that was just made is to go on; tells those who may stay for a moment.

        Args:
            link: of the connection, which is one of the `connections` by now.
        """
        excess = len(self._connections) - self._most
        if excess <= 0:
            return True
        self._unreported += 1
        now = time.monotonic()
        if now - self._reported_at >= _WARNING_INTERVAL:
            self._reported_at = now
            _logger.warning(
                "%r: %d turned away, since there are as many as max_connections=%d allows",
                self._server,
                self._unreported,
                self._most,
                extra={"amp_event": "turned_away", "amp_limit": "max_connections"},
            )
            self._unreported = 0
        if excess > 1 + self._most // 10:
            return False
        link.turn_away(_REASON)
        return True
