"""NATS servers for the tests, and a client that knows nothing of us."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from nats.aio.client import Client

from examples.cluster.node import NatsServer

__all__ = ["NatsServer", "nats_cluster", "nats_server", "plain_client"]


@contextlib.contextmanager
def nats_server(directory: Path, *, port: int = -1, config: str = "") -> Iterator[NatsServer]:
    """Run a server; at the end nothing of it is left."""
    server = NatsServer(directory, port=port, config=config)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def nats_cluster(directory: Path, size: int = 3) -> Iterator[list[NatsServer]]:
    """Run a cluster of servers, which all know of each other."""
    servers: list[NatsServer] = []
    try:
        for number in range(size):
            place = directory / f"node{number}"
            place.mkdir()
            node = NatsServer(place, routes=[each.route for each in servers])
            servers.append(node)
            node.start()
        yield servers
    finally:
        for server in servers:
            server.kill()


@contextlib.asynccontextmanager
async def plain_client(server: NatsServer) -> AsyncIterator[Client]:
    """Connect with nats-py alone, which knows nothing of us."""
    client = Client()
    await client.connect(server.url)
    try:
        yield client
    finally:
        await client.close()
