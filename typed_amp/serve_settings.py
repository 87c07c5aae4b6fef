"""What a supervisor tells its workers as it starts them.

Rule of this module: plain values, which travel as JSON; files are named, and read by each worker.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys

from typed_amp.limits import DEFAULT_LIMITS
from typed_amp.server import INTRODUCTION_TIMEOUT

__all__ = ["Assignment", "ServeSettings", "log_as"]


@dataclasses.dataclass(frozen=True, slots=True)
class ServeSettings:
    """What all workers have in common.

    Attributes:
        target: the router, as `package.module:router`.
        drain_timeout: seconds that responders may go on when a worker ends.
        max_connections: how many connections one worker may have.
        start_timeout: seconds that a worker has until it is ready to serve.
        log_level: of the `logging` module.
        tls_certificate: the file of the server's certificate, if there is to be TLS.
        tls_key: the file of its private key, if that isn't in the same.
        tls_authority: the file of those who sign clients' certificates, if clients must have some.
    """

    target: str
    drain_timeout: float
    max_connections: int
    start_timeout: float
    log_level: str = "INFO"
    tls_certificate: str | None = None
    tls_key: str | None = None
    tls_authority: str | None = None

    @property
    def patience(self) -> float:
        """How many seconds a worker may take from the word that it is to end until it has."""
        beginning = DEFAULT_LIMITS.handshake_timeout + INTRODUCTION_TIMEOUT
        return beginning + self.drain_timeout + 5


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """What one worker is told.

    Attributes:
        settings: what all have in common.
        number: which worker it is, from 1.
        control: the descriptor of its socket to the supervisor.
        sockets: the descriptors that it accepts on.
        balance: the descriptor of a `SharedCounts`.
        place: its place in there, if there was one left.
    """

    settings: ServeSettings
    number: int
    control: int
    sockets: list[int]
    balance: int
    place: int | None

    def as_json(self) -> str:
        """Write it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Assignment:
        """Read it."""
        values = json.loads(text)
        return cls(**{**values, "settings": ServeSettings(**values["settings"])})


def log_as(name: str, level: str) -> None:
    """Log on standard error from now on, each line with the time, the level and the process.

    Args:
        name: what the process is.
        level: from which level on.
    """
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)-7s {name} ({os.getpid()}): %(message)s",
    )
