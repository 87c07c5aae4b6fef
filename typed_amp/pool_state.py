"""How a pool and its servers are doing.

Rule of this module: snapshots only. They change no more, and cost nothing while nobody asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from typed_amp.client_state import ClientState, ClientStatus

if TYPE_CHECKING:
    from datetime import datetime

    from typed_amp.counters import Counters

__all__ = ["PoolState", "ServerState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState(ClientState):
    """How one server of a pool is doing: all that `ClientState` says, of this server alone.

    Its status is `ClientStatus.CLOSED` if its address is gone, and calls under way there still
    finish. `address` is where it is, whatever its status.

    Attributes:
        calls_in_flight: how many calls of the pool wait there now.
        is_avoided: whether others are preferred to it for the moment, since it was busy or didn't
            answer in time.
        counters: what happened on all the pool's connections to it.
    """

    calls_in_flight: int
    is_avoided: bool
    counters: Counters


@dataclass(frozen=True, slots=True)
class PoolState:
    """How a pool is doing, and each of its servers.

    Attributes:
        status: `CONNECTED` if there is a connection to any server; `WAITING` if there is none any
            more, and `CONNECTING` if there was none yet; `CLOSED` when it is closed.
        since: when that began, in UTC.
        servers: the servers, those that are gone but not done among them.
        error: why the addresses couldn't be found, the last time that was tried; None if they
            could.
    """

    status: ClientStatus
    since: datetime
    servers: tuple[ServerState, ...]
    error: BaseException | None = None

    @property
    def connected(self) -> int:
        """To how many servers there is a connection."""
        return sum(server.status is ClientStatus.CONNECTED for server in self.servers)
