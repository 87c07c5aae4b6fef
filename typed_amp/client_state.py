"""The states of a client that comes back, and watching them.

Rule of this module: whoever watches learns the latest state, however slow; a state that was over
before anybody looked may be missed.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime

__all__ = ["ClientState", "ClientStatus", "HasStatus", "States"]


class ClientStatus(enum.Enum):
    """What a client is doing."""

    CONNECTING = "connecting"
    """An attempt is under way, `on_connect` included."""

    CONNECTED = "connected"
    """There is a connection, and calls go out."""

    WAITING = "waiting"
    """There is none, and the next attempt comes later."""

    CLOSED = "closed"
    """Somebody has closed the client, or it has given up. Nothing follows."""


@dataclass(frozen=True, slots=True)
class ClientState:
    """How a client is doing, since when, and why.

    Attributes:
        status: what it is doing.
        since: when that began, in UTC.
        address: where it is connected, or connecting, or will try next; None once it is closed.
        error: what the last failure was: why an attempt failed or a connection was lost. None if
            nothing has failed yet.
        failures: how many there were in a row; see `Backoff.reset_after`.
        delay: seconds from `since` to the next attempt, while it waits; 0 otherwise.
    """

    status: ClientStatus
    since: datetime
    address: tuple[str, int] | str | None
    error: BaseException | None = None
    failures: int = 0
    delay: float = 0.0


class HasStatus(Protocol):
    """A state that says whether it is the last."""

    @property
    def status(self) -> ClientStatus:
        """What is going on; nothing follows `ClientStatus.CLOSED`."""
        ...


T = TypeVar("T", bound=HasStatus)


class States(Generic[T]):
    """A state that can be watched.

    Args:
        state: the first one.
    """

    def __init__(self, state: T) -> None:
        self.latest: T = state
        self._changed = asyncio.Event()

    def change(self, state: T) -> None:
        """There is another state from now on."""
        self.latest = state
        # Those who wait have this event in hand; who comes later waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self) -> AsyncGenerator[T]:
        """Give the state there is, and the latest one after each change, to the last."""
        while True:
            state = self.latest
            yield state
            if state.status is ClientStatus.CLOSED:
                return
            while self.latest is state:
                await self._changed.wait()
