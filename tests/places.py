"""Places where a server comes and goes, for clients that come back."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.peers import HOST
from typed_amp import Backoff, Connection, Router, Server, serve

QUICK = Backoff(first=0.001, maximum=0.01)
"""For tests, which don't want to wait."""

SLOW = Backoff(first=3600, maximum=3600, jitter=0)
"""Longer than any test."""


def free_port() -> int:
    """Give a port at which nobody listens."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Place:
    """A port at which a server of a router comes and goes."""

    def __init__(self, router: Router[Any]) -> None:
        self.port = free_port()
        self.router = router
        self._server: Server[Any] | None = None
        self._draining: list[Server[Any]] = []

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    @property
    def connections(self) -> list[Connection[Any]]:
        """All there are, those of servers that close among them."""
        servers = [*self._draining, *([self._server] if self._server else [])]
        return [connection for server in servers for connection in server.connections]

    async def open(self) -> None:
        """Listen, unless it does."""
        if self._server is None:
            self._server = await serve(self.router, HOST, self.port)

    def cut(self) -> None:
        """Break all connections, as when a network does."""
        for connection in self.connections:
            connection._link.transport.abort()

    async def drain(self) -> None:
        """Close the server decently: its responders finish, and everything else is refused."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self._draining.append(server)
        server.close(drain_timeout=60)

    async def vanish(self) -> None:
        """Go as when its process is killed; returns when nothing of it is left."""
        await self.drain()
        self.cut()
        for server in self._draining:
            server.close(drain_timeout=0)
            await server.wait_closed()
        self._draining.clear()


@asynccontextmanager
async def place_of(router: Router[Any], *, is_open: bool = True) -> AsyncIterator[Place]:
    """Make a place, and end it."""
    place = Place(router)
    try:
        if is_open:
            await place.open()
        yield place
    finally:
        await place.vanish()
