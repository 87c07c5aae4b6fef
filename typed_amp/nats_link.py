"""A program's connection to NATS, as both who calls and who serves has one.

Rule of this module: nats-py connects, and connects again. This says when there is a connection and
when there will be none any more, in words of typed_amp. It is the only module that imports nats-py,
and does so when somebody connects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from typed_amp.errors import ConnectionLostError, TooLongError
from typed_amp.log import log
from typed_amp.nats_options import DEFAULT_NATS_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.aio.client import Client

    from typed_amp.log import Named
    from typed_amp.nats_options import NatsOptions

__all__ = ["NatsLink", "flush", "new_client", "resume_closing"]

_CLOSE_TIMEOUT: Final = 5.0
"""Seconds that the last messages have to be sent."""

_ABANDON_TIMEOUT: Final = 0.2
"""Seconds that an attempt to connect has to end, when it has failed."""


def new_client() -> Client:
    """Make a client of nats-py's, which isn't connected yet.

    Raises:
        ImportError: nats-py isn't installed.
    """
    try:
        from nats.aio.client import Client
    except ImportError as error:
        raise ImportError(
            "NATS is an extra, and needs nats-py: pip install 'typed_amp[nats]'"
        ) from error
    return Client()


async def flush(client: Client) -> None:
    """Wait until the server has taken what was sent, subscriptions among it. Cancelling stops that.

    nats-py's `flush` alone sends its ping at once, before what still waits to be sent. By the time
    of its answer that has gone out, and a second ping goes behind it.

    Raises:
        nats.errors.Error: there is no connection, or no answer in time.
    """
    await client.flush()
    await client.flush()


def resume_closing(client: Client) -> None:
    """Let `close` of a client of nats-py's do what it has left undone when it failed.

    It fails where the connection turns out to be lost while there is something to send: `drain`,
    and leaving its `async with`, end in the same place. By then the client counts as closed, so
    that closing it again does nothing, and its tasks run on for ever. Nothing public undoes that,
    or has it forget beforehand what it can't send. `tests/test_nats_link.py` tells when it changes.
    """
    client._pending_data_size = 0  # nothing is to be sent any more
    client._status = client.DISCONNECTED  # and it isn't closed yet


class NatsLink:
    """One connection to a cluster, made again by nats-py when it is lost.

    Args:
        owner: what log records call it.
        servers: addresses of some of the cluster's servers; it learns of the others.
        options: for nats-py.
        on_lost: called when the connection is lost.
        on_back: called when there is one again.
        on_ended: called once, when there will be none any more.

    Attributes:
        client: nats-py's.
        failure: why there will be no connection any more, if it isn't that somebody closed it.
    """

    def __init__(
        self,
        owner: Named,
        servers: Sequence[str],
        options: NatsOptions,
        *,
        on_lost: Callable[[], None],
        on_back: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self.client: Client = new_client()
        self.failure: Exception | None = None
        self._owner = owner
        self._servers = servers
        self._options = options
        self._on_lost = on_lost
        self._on_back = on_back
        self._on_ended = on_ended
        self._failures: list[Exception] | None = []
        """Those of the first attempts to connect, until one has succeeded."""
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closing = False

    @property
    def where(self) -> str:
        """The servers that were named, without their passwords."""
        return ", ".join(_shown(each) for each in self._servers)

    async def open(self) -> None:
        """Connect: each server is tried once.

        Raises:
            ConnectionLostError: none of them can be reached, or will have this program.
        """
        own = {"name": self._owner.name}
        options: dict[str, Any] = {**DEFAULT_NATS_OPTIONS, **own, **self._options}
        try:
            await self.client.connect(
                list(self._servers),
                error_cb=self._error,
                disconnected_cb=self._disconnected,
                reconnected_cb=self._reconnected,
                closed_cb=self._closed,
                **options,
            )
        except Exception as error:
            await self._abandon()
            if not self._failures:
                raise
            reason = str(error) or type(error).__name__
            raise ConnectionLostError(f"no connection to NATS at {self.where}: {reason}") from error
        except BaseException:
            await self._abandon()
            raise
        self._failures = None

    async def _abandon(self) -> None:
        self._is_closing = True
        await self._close_client(_ABANDON_TIMEOUT)

    @property
    def is_up(self) -> bool:
        """Whether there is a connection now, as far as is known."""
        return self.client.is_connected

    @property
    def is_ended(self) -> bool:
        """Whether there will be none any more."""
        return self.client.is_closed

    async def wait_up(self) -> None:
        """Wait until there is a connection, or will be none any more."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            while not (self.is_up or self.is_ended):
                await waiter
                waiter = asyncio.get_running_loop().create_future()
                self._waiting.add(waiter)
        finally:
            self._waiting.discard(waiter)

    def max_bytes(self) -> int:
        """Give the bytes that the server takes in one message."""
        return self.client.max_payload

    def too_long(self, what: str, length: int) -> TooLongError:
        """Make the error of a message that is longer than that."""
        limit = self.client.max_payload
        return TooLongError(
            what,
            length,
            limit,
            f"the NATS server's max_payload allows at most {limit:,} in one message. Raise it in"
            " the server's configuration, or send less at once",
        )

    async def close(self) -> None:
        """Send what is to be sent, and close the connection. Not to be cancelled."""
        self._is_closing = True
        await self._close_client(_CLOSE_TIMEOUT)
        self._wake()

    async def _close_client(self, seconds: float) -> None:
        # Where a handshake has failed, nats-py waits for an end that nobody tells; and where it has
        # not even tried to connect, it fails each time.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(seconds):
                try:
                    await self.client.close()
                except Exception:
                    resume_closing(self.client)
                    await self.client.close()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def _error(self, error: Exception) -> None:
        if self._failures is not None:
            self._failures.append(error)
            if len(self._failures) >= len(self._servers):
                raise error  # nats-py would go on for as long as it does after a loss
            return
        if not self._is_closing:
            reason = str(error) or type(error).__name__
            log(logging.WARNING, "nats_error", self._owner, "NATS: %s", reason)

    async def _disconnected(self) -> None:
        if self._failures is not None or self._is_closing:
            return
        told = "the connection to NATS is lost; making another"
        log(logging.WARNING, "nats_lost", self._owner, told)
        self._on_lost()

    async def _reconnected(self) -> None:
        server = self.client.connected_url
        where = server.netloc.rpartition("@")[2] if server else "?"
        log(logging.INFO, "nats_back", self._owner, "connected to NATS again, at %s", where)
        self._wake()
        self._on_back()

    async def _closed(self) -> None:
        if self._failures is not None:
            return
        if not self._is_closing:
            self.failure = self.client.last_error
            told = "the connection to NATS has ended: %s"
            log(logging.ERROR, "nats_ended", self._owner, told, self.failure or "it was closed")
        self._wake()
        self._on_ended()


def _shown(server: str) -> str:
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    return parts.netloc.rpartition("@")[2]
