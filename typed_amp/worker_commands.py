"""What a pool and its workers tell each other beside the calls.

Rule of this module: both sides import it, and nothing of what the user's router needs.
"""

from __future__ import annotations

import json
import re
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Final

from pydantic import BaseModel

from typed_amp.command import Command
from typed_amp.command_error import CommandError
from typed_amp.limits import Limits

__all__ = ["LOADING", "NotStartedError", "Settle", "Settled", "WorkerSettings"]

LOADING: Final[ContextVar[str | None]] = ContextVar("LOADING", default=None)
"""In a worker: the target, while its module is being imported."""


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
        follows_untold: whether to wait for a responder whose caller wants no answer. Where several
            run, for one that no other waits for.
    """

    seconds: float = 0.0
    follows_untold: bool = False


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker has to know before it begins, as an argument of its command line.

    Attributes:
        target: where the router is: `package.module:router`.
        path: where modules are looked for.
        limits: as for the parent's side of the connection.
        max_concurrency: how many calls it has at a time.
        threads: whether plain functions run in threads.
        drain_timeout: as for `serve_fds`.
        parent: the number of the parent's process, which is known when the worker is started.

    Raises:
        TypeError: the target is no text.
        ValueError: no worker can import it.
    """

    target: str
    path: list[str]
    limits: Limits
    max_concurrency: int
    threads: bool
    drain_timeout: float
    parent: int = 0

    def __post_init__(self) -> None:
        is_name = re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", self.target)
        if not is_name or self.target.startswith("__main__:"):
            raise ValueError(
                f"a worker can't import {self.target!r}; write package.module:router, with a module"
                " that is not the program itself"
            )

    def written(self) -> str:
        """Give it as a text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def read(cls, text: str) -> WorkerSettings:
        """Read what `written` gave."""
        values = json.loads(text)
        return cls(**{**values, "limits": Limits(**values["limits"])})
