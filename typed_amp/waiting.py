"""Waiting for what becomes of a call.

Rule of this module: who waits may be cancelled at any point, and leaves nothing behind. What can be
done without waiting is the business of `calls`, which is compiled, as coroutines are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from typed_amp.descriptors import close_descriptors
from typed_amp.errors import ConnectionLostError

if TYPE_CHECKING:
    import asyncio

    from typed_amp.box import Box
    from typed_amp.calls import Calls

__all__ = ["Attached", "Timed", "Waiter", "resolve", "wait", "wait_aside"]


class Attached(NamedTuple):
    """An answer that came with descriptors.

    Attributes:
        value: the answer, read.
        descriptors: those in it. Somebody has to close them if nobody takes the answer.
    """

    value: Any
    descriptors: list[int]


Waiter: TypeAlias = "asyncio.Future[Box | Attached | Exception]"
"""What a call awaits: the answer, or why there is none.

A result in both cases: an exception that nobody is left to take would be logged as lost.
"""

Timed: TypeAlias = "tuple[Waiter, str, float]"
"""A call that doesn't wait for ever: the command's name, and how many seconds it has."""


def resolve(waiter: Waiter, result: Box | Exception) -> None:
    """Wake a call, unless it is awake."""
    if not waiter.done():
        waiter.set_result(result)


async def wait(
    calls: Calls, title: str, waiter: Waiter, tag: bytes | None, seconds: float | None
) -> Any:
    """Wait for the answer to a call, or until it is given up.

    Args:
        calls: those of the connection.
        title: the command's name, for messages.
        waiter: what has the answer.
        tag: the ask's, if it has one.
        seconds: how long to wait.

    Raises:
        Exception: why there is no answer.
    """
    timed = None
    try:
        if seconds is not None:
            timed = calls.expire_in(seconds, waiter, title)
        result = await waiter
    except BaseException:
        calls.give_up(waiter, tag)
        if waiter.done() and not waiter.cancelled():
            result = waiter.result()
            if isinstance(result, Attached):
                close_descriptors(result.descriptors)
        raise
    finally:
        if timed is not None:
            calls.over(timed)
    if not isinstance(result, Exception):
        return result
    calls.give_up(waiter, tag)
    if isinstance(result, ConnectionLostError):
        raise calls.lost(title, was_sent=result.was_sent)
    raise result


async def wait_aside(
    calls: Calls, title: str, waiter: Waiter, tag: bytes | None, seconds: float | None
) -> Any:
    """Do the same for a call of which more is remembered than its tag."""
    try:
        return await wait(calls, title, waiter, tag, seconds)
    finally:
        calls.forget(waiter)
