"""One turn of one peer: what both of its programs must know.

Rule of this module: whatever a peer could choose, where to listen and with which certificate, is
chosen here, so that it is the same for all.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

HOST = "127.0.0.1"

UNABLE = 3
"""The exit status of a client whose peer can't do this, which is no failure of the benchmark."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of one peer.

    Attributes:
        peer: its name in the roster.
        loop: `asyncio`, `uvloop`, or what the peer has instead.
        transport: `tcp`, `unix` or `tls`.
        work: which of `WORKS`.
        in_flight: how many calls wait at a time, on all connections together.
        seconds: how long to call; the first fifth is for warming up.
        directory: where the certificates are, and the Unix socket is made.
        connections: how many connections the client makes; of peers on asyncio only.
        cpus: the processors of client and server; none where the system can't bind to them.
        port: where the server listens, once it does.
        server: the server's process, for the client to see what it costs.
    """

    peer: str
    loop: str
    transport: str
    work: str
    in_flight: int
    seconds: float
    directory: str
    connections: int = 1
    cpus: tuple[int, ...] = ()
    port: int = 0
    server: int = 0

    @classmethod
    def of_arguments(cls) -> Turn:
        """Read what the runner passed to this program."""
        fields = json.loads(sys.argv[2])
        return cls(**{**fields, "cpus": tuple(fields["cpus"])})

    def as_argument(self) -> str:
        return json.dumps(asdict(self))

    def bind(self, cpu: int) -> None:
        """Bind this process to the first processor of the turn, or the second."""
        if self.cpus:
            os.sched_setaffinity(0, {self.cpus[cpu]})

    @property
    def path(self) -> str:
        """The Unix socket; empty for the other transports."""
        return str(Path(self.directory, "socket")) if self.transport == "unix" else ""

    @property
    def is_encrypted(self) -> bool:
        return self.transport == "tls"

    @property
    def authority(self) -> Path:
        return Path(self.directory, "authority.pem")

    @property
    def certificate(self) -> Path:
        return Path(self.directory, "certificate.pem")

    @property
    def key(self) -> Path:
        return Path(self.directory, "key.pem")

    def listen(self) -> socket.socket:
        """Make the socket on which the server listens."""
        if self.path:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.path)
        else:
            # asyncio turns Nagle's algorithm off only for sockets that name their protocol.
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            listener.bind((HOST, 0))
        listener.listen(2_048)  # as many as may connect at once
        return listener

    def server_context(self) -> ssl.SSLContext | None:
        if not self.is_encrypted:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext | None:
        if not self.is_encrypted:
            return None
        return ssl.create_default_context(cafile=self.authority)


def port_of(listener: socket.socket) -> int:
    """Give the port of a listening socket; 0 for a Unix socket."""
    return 0 if listener.family == socket.AF_UNIX else int(listener.getsockname()[1])


def unable(why: str) -> NoReturn:
    """End this client, since its peer can't do what the turn asks for."""
    print(why, file=sys.stderr)
    sys.exit(UNABLE)


def announce(port: int) -> None:
    """Tell the runner that the server listens."""
    print(port, flush=True)


def processor_time(process: int) -> float:
    """Give the seconds of processor time that another process has had, in all its threads.

    The number is what `clock_getcpuclockid` gives on Linux; 0 where there is no such clock.
    """
    if sys.platform != "linux" or not process:
        return 0.0
    return time.clock_gettime((~process << 3) | 2)
