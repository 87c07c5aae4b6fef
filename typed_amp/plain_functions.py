"""Plain functions as responders: where they run.

Rule of this module: a function that blocks holds up an event loop only where somebody has said that
it may. A thread that has begun is waited for, since nothing can end it.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["abandoned", "run_in_thread", "run_inline"]

_ABANDONED: Final[set[asyncio.Future[Any]]] = set()


async def run_inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function at once, in this very thread; nothing else goes on meanwhile."""
    return _called(function, *arguments)


async def run_in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a thread of the event loop's executor, with the context of the caller.

    Cancelling waits until the function is over, if it has begun, and drops what it returns or
    raises. So whoever counts what runs counts it until then.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    is_wanted = True

    def work() -> Any:
        if not is_wanted:
            return None
        return context.run(_called, function, *arguments)

    running = loop.run_in_executor(None, work)
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        is_wanted = False
        _ABANDONED.add(running)
        running.add_done_callback(_forget)
        await asyncio.wait([running])
        raise
    return running.result()


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (SystemExit, KeyboardInterrupt, StopIteration) as error:
        # No future can hold the last, and the others would end the program with all its calls.
        raise RuntimeError(f"a plain function raised {error!r}") from error


def _forget(running: asyncio.Future[Any]) -> None:
    _ABANDONED.discard(running)
    if not running.cancelled():
        running.exception()  # has been seen, so that nobody warns of it


def abandoned() -> frozenset[asyncio.Future[Any]]:
    """Give what runs in threads of this process though nobody waits for it any more."""
    return frozenset(_ABANDONED)
