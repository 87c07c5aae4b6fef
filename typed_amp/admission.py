"""Who may connect: asking the function that decides, and saying whom it refused.

Rule of this module: only True admits. Anything else that the function does is a refusal, and all
refusals are in the log.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from typing_extensions import TypeVar

from typed_amp.functions import place_of
from typed_amp.log import LOGGER, log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typed_amp.connection import Connection

__all__ = ["Admission", "Verdict"]

S = TypeVar("S", default=None)

Verdict: TypeAlias = "bool | Awaitable[bool]"
"""Whether a connection is admitted, now or later."""


class Admission(Generic[S]):
    """Decides whether connections are admitted.

    Args:
        admit: the function that was given for it.
        timeout: how many seconds it may take, if it is async; as long a peer keeps a connection.
    """

    def __init__(self, admit: Callable[[Connection[S]], Verdict], timeout: float) -> None:
        self._admit = admit
        self._timeout = timeout

    def decide(self, connection: Connection[S]) -> Verdict:
        """Ask the function. What is to be awaited ends in time, and raises nothing."""
        try:
            verdict: object = self._admit(connection)
        except Exception as error:
            return self._failed(connection, error)
        if inspect.isawaitable(verdict):
            return self._wait(connection, verdict)
        return self._is_admitted(connection, verdict)

    async def _wait(self, connection: Connection[S], verdict: Awaitable[object]) -> bool:
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                came = await verdict
        except asyncio.CancelledError:
            if not connection.is_closed:  # or else nobody needs to know any more
                self._refused(connection, "was cancelled")
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                return self._refused(connection, f"took more than {self._timeout:g} seconds")
            return self._failed(connection, error)
        return self._is_admitted(connection, came)

    def _is_admitted(self, connection: Connection[S], verdict: object) -> bool:
        if verdict is True:
            return True
        if verdict is False:
            return self._refused(connection, "returned False")
        return self._refused(
            connection, f"returned a {type(verdict).__name__}, which is neither True nor False"
        )

    def _failed(self, connection: Connection[S], error: Exception) -> bool:
        log(logging.ERROR, "admit_failed", connection, "admit= failed", error=error)
        return self._refused(connection, f"raised {type(error).__name__}")

    def _refused(self, connection: Connection[Any], reason: str) -> bool:
        credentials = connection.peer_credentials
        who = "" if credentials is None else " (process {}, user {}, group {})".format(*credentials)
        place = place_of(self._admit)
        extra = {"amp_event": "not_admitted", "amp_connection": connection.name}
        told = "refused %s%s: %s %s"
        LOGGER.info(told, connection._link.peer, who, place, reason, extra=extra)
        return False
