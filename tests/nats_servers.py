"""NATS servers on loopback, as processes that come and go."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from nats.aio.client import Client

from tests.programs import PATIENCE

PROGRAM = Path(sysconfig.get_path("scripts")) / "nats-server"


class NatsServer:
    """One server. It may be killed, and started again at the same port.

    Args:
        directory: where it writes down its ports; for nothing else.
        routes: the others of its cluster; None if there is none, empty of its first.
        config: more for its configuration file.
    """

    def __init__(
        self, directory: Path, *, routes: list[str] | None = None, config: str = ""
    ) -> None:
        self._directory = directory
        self._routes = routes
        self._config = config
        self._port = -1
        self._cluster_port = -1
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it takes clients."""
        config = f'listen: "127.0.0.1:{self._port}"\nmax_control_line: 4096\n{self._config}\n'
        if self._routes is not None:
            routes = ", ".join(f'"{route}"' for route in self._routes)
            config += (
                f'cluster {{ name: "tests", listen: "127.0.0.1:{self._cluster_port}",'
                f" routes: [{routes}] }}\n"
            )
        path = self._directory / "nats.conf"
        path.write_text(config)
        self._process = subprocess.Popen(
            [PROGRAM, "--config", path, "--ports_file_dir", self._directory],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GOMAXPROCS": "1"},
        )
        ports_file = self._directory / f"nats-server_{self._process.pid}.ports"
        patience = time.monotonic() + PATIENCE
        ports = None
        while ports is None:
            assert time.monotonic() < patience, "the NATS server does not come up"
            assert self._process.poll() is None, "the NATS server has ended"
            with contextlib.suppress(FileNotFoundError, ValueError):
                ports = json.loads(ports_file.read_text())
            time.sleep(0.005)
        self._port = int(ports["nats"][0].rpartition(":")[2])
        if self._routes is not None:
            self._cluster_port = int(ports["cluster"][0].rpartition(":")[2])

    def kill(self) -> None:
        """End it without its having a say."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    @property
    def route(self) -> str:
        return f"nats://127.0.0.1:{self._cluster_port}"


@contextlib.contextmanager
def nats_server(directory: Path, *, config: str = "") -> Iterator[NatsServer]:
    """Run a server; at the end nothing of it is left."""
    server = NatsServer(directory, config=config)
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
