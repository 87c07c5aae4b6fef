"""What the calls of a client take their connections from.

Rule of this module: it knows whether there is a connection, and what to say while there is none.
Who makes connections, and to where, is said by those who derive from it.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, TypeAlias

from typing_extensions import TypeVar

from typed_amp.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from typed_amp.backoff import Backoff
    from typed_amp.connection import Connection
    from typed_amp.upkeep import Upkeep

__all__ = ["Address", "Kept", "Supply", "reason_of"]

S = TypeVar("S", default=None)

Address: TypeAlias = "tuple[str, int] | str"
"""`(host, port)`, or the path of a Unix socket."""


class Kept(Generic[S]):
    """A connection that a client keeps, or kept.

    Args:
        upkeep: who keeps it.
        connection: the connection.
        address: where it leads.
        began: when it was made, by the event loop's clock.

    Attributes:
        calls: how many calls of the client wait on it.
        turn: when it was chosen last, among several: the higher, the later; 0 if never.
        setbacks: how often in a row the peer was busy, or didn't answer in time.
        avoided_until: the time of the event loop until which others are preferred to it.
        error: why the client has left it; None as long as it hasn't.
    """

    __slots__ = (
        "address",
        "avoided_until",
        "began",
        "calls",
        "connection",
        "error",
        "setbacks",
        "turn",
        "upkeep",
    )

    def __init__(
        self, upkeep: Upkeep[S], connection: Connection[S], address: Address, began: float
    ) -> None:
        self.upkeep: Upkeep[S] = upkeep
        self.connection: Connection[S] = connection
        self.address: Address = address
        self.began: float = began
        self.calls: int = 0
        self.turn: int = 0
        self.setbacks: int = 0
        self.avoided_until: float = 0.0
        self.error: BaseException | None = None

    def answered(self) -> None:
        """The peer has answered: it is as good as any other."""
        if self.setbacks:
            self.setbacks = 0
            self.avoided_until = 0.0


class Supply(ABC, Generic[S]):
    """Has connections to give, now or later.

    Args:
        backoff: how long to wait after failures.

    Attributes:
        has_begun: whether it makes connections, or did.
        mistake: what no attempt can mend, and ended it all.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._random = random.Random()  # noqa: S311 - it spreads load and guards nothing
        self._ready = asyncio.Event()
        """There is a connection, or there will never be one."""
        self._closed = asyncio.Event()
        self._down_since: tuple[float, datetime] | None = None
        self.has_begun: bool = False
        self.mistake: BaseException | None = None

    @abstractmethod
    def choose(self, refused: Collection[Kept[S]] = ()) -> Kept[S] | None:
        """Give the connection for the next call; None while there is none.

        Args:
            refused: those that were busy. One of them is given only if there is no other.
        """

    @property
    @abstractmethod
    def is_up(self) -> bool:
        """Whether there is a connection."""

    @property
    @abstractmethod
    def failure(self) -> BaseException | None:
        """What went wrong last; None if nothing has yet."""

    @abstractmethod
    def close(self, *, drain_timeout: float | None = None) -> None:
        """End it all; `wait_closed` waits for the end.

        Args:
            drain_timeout: as for `Connection.close`.
        """

    @abstractmethod
    async def wait_closed(self) -> None:
        """Wait until all has ended. Cancelling only stops the waiting."""

    @property
    def is_closed(self) -> bool:
        """Whether there will never be a connection again."""
        return self._closed.is_set()

    async def wait_ready(self) -> None:
        """Wait until there is a connection, or until there will never be one.

        Cancelling only stops the waiting.
        """
        await self._ready.wait()

    async def wait_first(self) -> None:
        """Wait until there is a connection. Whatever prevents that ends it all.

        Raises:
            ConnectionLostError: there will never be one.
            Exception: a mistake in the program, which no attempt can mend.
        """
        try:
            while not self.is_up:
                if self.is_closed:
                    raise self.mistake or self.unavailable("open")
                await self.wait_ready()
        except BaseException:
            self.close(drain_timeout=0)
            await self.wait_closed()
            raise

    async def pause(self, failures: int) -> None:
        """Wait as after that many failures, or until there will never be a connection again."""
        try:
            async with asyncio.timeout(self.delay(failures)):
                await self._closed.wait()
        except TimeoutError:
            pass

    def set_back(self, kept: Kept[S]) -> None:
        """Prefer others to a connection for a while, since its peer was busy or too slow."""
        kept.setbacks += 1
        kept.avoided_until = asyncio.get_running_loop().time() + self.delay(kept.setbacks)

    def delay(self, failures: int) -> float:
        """Say how many seconds to wait after that many failures."""
        return self._backoff.delay(failures, self._random.random())

    def unavailable(self, what: str, *, was_sent: bool = False) -> ConnectionLostError:
        """Make the error of a call that has no connection: since when and why.

        Args:
            what: what can't be done.
            was_sent: whether it was sent before, on another connection.
        """
        if not (self.has_begun or self.is_closed):
            told = "the client isn't open; enter it with `async with`, or await it"
        elif self._down_since is None:
            told = "the client is closed"
        else:
            began, since = self._down_since
            seconds = asyncio.get_running_loop().time() - began
            told = f"no connection since {since:%H:%M:%S} UTC, {seconds:.1f} seconds ago"
            if self.is_closed:
                told = f"the client is closed; {told}"
        reason = self._reason()
        lost = ConnectionLostError(f"{what}: {told}: {reason}" if reason else f"{what}: {told}")
        lost.__cause__ = self.failure
        lost.was_sent = was_sent
        for note in self._notes():
            lost.add_note(note)
        return lost

    def _reason(self) -> str:
        """Say what went wrong last; nothing if nothing has."""
        return reason_of(self.failure) if self.failure is not None else ""

    def _notes(self) -> Iterable[str]:
        """Say what went wrong before that, where there is an end to trying."""
        return ()

    def _give_up(self, mistake: BaseException) -> None:
        """Note what no attempt can mend."""
        self.mistake = mistake

    def _is_down(self) -> None:
        """There is no connection any more."""
        self._ready.clear()
        self._down_since = asyncio.get_running_loop().time(), datetime.now(UTC)


def reason_of(error: BaseException) -> str:
    """Say in one line what an error says, or at least what it is."""
    text = str(error) or type(error).__name__
    return text if text.isprintable() else ascii(text)[1:-1]
