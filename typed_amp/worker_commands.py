"""What a pool and its workers tell each other beside the calls.

Rule of this module: both sides import it, and nothing of what the user's router needs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pydantic import BaseModel

from typed_amp.command import Command
from typed_amp.command_error import CommandError
from typed_amp.limits import Limits

__all__ = ["NotStartedError", "Settle", "Settled", "WorkerSettings"]


class NotStartedError(CommandError):
    """The worker has no router to serve."""

    reason: str
    traceback: str


class Settled(BaseModel):
    """The worker's event loop runs.

    Attributes:
        unsettled: how many functions still run in threads though nobody waits for them.
    """

    unsettled: int


class Settle(
    Command[Settled], name="typed-amp.worker.settle", errors={NotStartedError: "NOT_STARTED"}
):
    """Answered when the worker is ready for calls: it reads, and has nothing left to finish.

    Attributes:
        seconds: how long to wait for functions that run in threads though nobody waits for them.
    """

    seconds: float = 0.0


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker has to know before it begins, as an argument of its command line.

    Attributes:
        target: where the router is: `package.module:router`.
        parent: the number of the parent's process.
        path: where modules are looked for.
        limits: as for the parent's side of the connection.
        max_concurrency: how many calls it has at a time.
        threads: whether plain functions run in threads.
        drain_timeout: as for `serve_fds`.
    """

    target: str
    parent: int
    path: list[str]
    limits: Limits
    max_concurrency: int
    threads: bool
    drain_timeout: float

    def written(self) -> str:
        """Give it as a text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> WorkerSettings:
        """Read what `written` gave."""
        values = json.loads(text)
        return cls(**{**values, "limits": Limits(**values["limits"])})
