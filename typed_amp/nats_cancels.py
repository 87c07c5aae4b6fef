"""Telling a service which of its calls nobody waits for any more.

Rule of this module: nothing depends on it. Who gives up waits for nothing, calls that end otherwise
cost nothing, and who is told of a call that it doesn't have ignores that.

Callers don't know who of the service has their calls. So the box that a connection would carry,
`typed-amp.cancel`, goes to all of them. Its `ask` is the subject of the answer, which no other call
has, and which nobody can guess.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

from typed_amp.box import COMMAND
from typed_amp.built_in import Cancel
from typed_amp.errors import DecodeError, ProtocolViolationError
from typed_amp.message import box_of
from typed_amp.nats_subjects import cancel_subject

if TYPE_CHECKING:
    from typed_amp.nats_link import NatsLink

__all__ = ["CancelledBefore", "Cancels", "cancelled_reply"]

_SIGNATURE: Final = Cancel.__amp_signature__()

_TELL_TIMEOUT: Final = 5.0
"""Seconds that the last ones have to be sent when the client is closed."""

_MOST_REMEMBERED: Final = 1_000
_LONGEST_REMEMBERED: Final = 1_000
"""How many subjects are remembered, and of how many characters. All of them take a megabyte."""


class Cancels:
    """Says what a client has given up.

    Args:
        link: the connection to NATS.
        service: whom to tell.
    """

    def __init__(self, link: NatsLink, service: str) -> None:
        self._link = link
        self._subject = cancel_subject(service)
        self._untold: deque[str] = deque()
        self._telling: asyncio.Task[None] | None = None

    def add(self, reply: str) -> None:
        """Say so of one call: soon, or as soon as there is a connection.

        Args:
            reply: where its answer would come.
        """
        self._untold.append(reply)
        self.resume()

    def resume(self) -> None:
        """There may be a connection again: say what could not be said."""
        if self._telling is None and self._untold and self._link.is_up:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._untold and self._link.is_up:
                cancel = Cancel(ask=self._untold.popleft().encode())
                data = _SIGNATURE.arguments.encode(cancel, _SIGNATURE.head)
                with contextlib.suppress(Exception):  # nats-py's have no base but this
                    await self._link.client.publish(self._subject, data)
        finally:
            self._telling = None

    async def finish(self) -> None:
        """Say what is to be said yet, if there is a connection."""
        if self._telling is not None:
            _, late = await asyncio.wait([self._telling], timeout=_TELL_TIMEOUT)
            for each in late:
                each.cancel()


class CancelledBefore:
    """The latest cancels that came to who doesn't have the call.

    It may come yet: what is sent to one subject can overtake what was sent to another before.
    """

    def __init__(self) -> None:
        self._replies: dict[str, None] = {}

    def add(self, reply: str) -> None:
        """Remember one."""
        if len(reply) <= _LONGEST_REMEMBERED:
            self._replies[reply] = None
            if len(self._replies) > _MOST_REMEMBERED:
                del self._replies[next(iter(self._replies))]

    def __contains__(self, reply: str) -> bool:
        return reply in self._replies


def cancelled_reply(data: bytes, max_keys: int) -> str:
    """Read which call was given up: where its answer would go.

    Raises:
        ProtocolViolationError: the message says nothing of that kind.
    """
    box = box_of(data, max_keys)
    if box.get(COMMAND) != _SIGNATURE.name:
        raise ProtocolViolationError("it is not typed-amp.cancel, which alone is said there")
    try:
        cancel: Cancel = _SIGNATURE.arguments.decode(box)
    except DecodeError as error:
        raise ProtocolViolationError(str(error)) from None
    return cancel.ask.decode("utf-8", "replace")
