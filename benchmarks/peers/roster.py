"""Who takes part: each peer's module, what it needs, and what it runs on.

Rule of this module: the peers are known by name here, and none of their packages is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

TRANSPORTS = ("tcp", "unix", "tls")
LOOPS = ("asyncio", "uvloop")


@dataclass(frozen=True)
class Peer:
    """One who takes part.

    Attributes:
        module: what holds `run_server(turn)` and `run_client(turn)`.
        packages: the distributions that it needs, and whose versions matter.
        own_loop: what it runs on, if it isn't asyncio.
    """

    module: str
    packages: tuple[str, ...]
    own_loop: str = ""

    @property
    def loops(self) -> tuple[str, ...]:
        return (self.own_loop,) if self.own_loop else LOOPS


PEERS = {
    "typed_amp": Peer("benchmarks.peers.typed", ("typed_amp", "pydantic")),
    "twisted": Peer("benchmarks.peers.twisted_amp", ("twisted",), "epoll"),
    "grpc.aio": Peer("benchmarks.peers.grpc_aio", ("grpcio", "protobuf")),
    "grpclib": Peer("benchmarks.peers.grpc_lib", ("grpclib", "protobuf")),
    "fastapi": Peer(
        "benchmarks.peers.fast_api", ("fastapi", "uvicorn", "httptools", "aiohttp", "pydantic")
    ),
    "rpyc": Peer("benchmarks.peers.rpyc_threads", ("rpyc", "pydantic"), "threads"),
    "bare": Peer("benchmarks.peers.bare", ()),
    "bare-bytes": Peer("benchmarks.peers.bare_bytes", ()),
}
