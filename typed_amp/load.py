"""Making one call many times, and noting how long each takes and what fails.

Rule of this module: it calls and counts; what is shown of it is shown by others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from time import perf_counter
from typing import TYPE_CHECKING, Any

from typed_amp.errors import (
    AmpError,
    CallTimeoutError,
    ConnectionLostError,
    DecodeError,
    DefinitionError,
    EncodeError,
    RemoteAmpError,
)
from typed_amp.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typed_amp.command import Command
    from typed_amp.reconnecting import Client

__all__ = ["Load", "Result", "code_of"]


class Result:
    """What has come out so far.

    Attributes:
        latency: how long the calls took that were answered as they should be.
        errors: how often each error came, by its code.
        seconds: how long it all took.
    """

    def __init__(self) -> None:
        self.latency: Histogram = Histogram()
        self.errors: Counter[str] = Counter()
        self.seconds: float = 0.0

    @property
    def done(self) -> int:
        """How many calls have ended."""
        return self.latency.count + self.errors.total()

    @property
    def rate(self) -> float:
        """How many calls ended in a second."""
        return self.done / self.seconds if self.seconds else 0.0


class Load:
    """Many calls of one command.

    Args:
        clients: they take turns.
        command: the command.
        repeat: how many calls to make.
        in_flight: how many at a time.
        timeout: seconds for each; None for any time.
    """

    def __init__(
        self,
        clients: Sequence[Client[Any]],
        command: Command[Any],
        *,
        repeat: int,
        in_flight: int,
        timeout: float | None,
    ) -> None:
        self._clients = clients
        self._command = command
        self._left = repeat
        self._in_flight = in_flight
        self._timeout = timeout
        self.result: Result = Result()

    async def run(self) -> None:
        """Make the calls. Cancelling leaves in `result` what there is by then.

        Raises:
            EncodeError: the command can't be written.
            Exception: what its codecs raise.
        """
        began = perf_counter()
        count = min(self._in_flight, self._left)
        clients = [self._clients[number % len(self._clients)] for number in range(count)]
        try:
            async with asyncio.TaskGroup() as callers:
                for client in clients:
                    callers.create_task(self._call(client))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self.result.seconds = perf_counter() - began

    async def _call(self, client: Client[Any]) -> None:
        declared = tuple(self._command.__amp_signature__().errors)
        mistakes = (EncodeError, DefinitionError)
        while self._left > 0:
            self._left -= 1
            began = perf_counter()  # uvloop's own clock has milliseconds
            try:
                await client.call(self._command, timeout=self._timeout)
            except Exception as error:
                if isinstance(error, mistakes) or not isinstance(error, (AmpError, *declared)):
                    raise
                self.result.errors[code_of(self._command, error)] += 1
                if isinstance(error, ConnectionLostError) and client.is_closed:
                    # It has given up: what is left would fail at once, and say nothing new.
                    self._left = 0
            else:
                self.result.latency.add(perf_counter() - began)


def code_of(command: Command[Any], error: BaseException) -> str:
    """Give the code of an error that a call has failed with: the peer's, or one of our own."""
    declared = command.__amp_signature__().declared(error)
    if declared is not None:
        return declared.code.decode("utf-8", "backslashreplace")
    if isinstance(error, RemoteAmpError):
        return error.code
    if isinstance(error, CallTimeoutError):
        return "TIMEOUT"
    if isinstance(error, DecodeError):
        return "UNDECODABLE"
    return "CONNECTION_LOST"
