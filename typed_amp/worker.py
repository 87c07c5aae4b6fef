"""The program of a worker: `python -m typed_amp.worker SETTINGS`, started by a `WorkerPool`.

Rule of this module: it serves whoever started it, or says why it can't, and ends with it. Nothing
that the user's modules do while they are imported breaks the stream.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from typed_amp.orphans import end_with_parent
from typed_amp.plain_functions import abandoned, run_in_thread, run_inline
from typed_amp.router import Router
from typed_amp.stdio import serve_fds, take_standard_streams
from typed_amp.worker_commands import NotStartedError, Settle, Settled, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["load_router", "main"]

_MOST_CHARACTERS: Final = 15_000
"""How much is told of a traceback, from its end."""

_MORE_THREADS: Final = 4
"""Threads for what responders start themselves, and for looking up names."""

_MORE_REQUESTS: Final = 100
"""What the pool asks, beside the calls."""


def load_router(target: str) -> Router[Any]:
    """Import a router.

    Args:
        target: `package.module:router`; what is named there is a router, or a function without
            parameters that makes one.

    Raises:
        TypeError: it is something else.
        Exception: what importing its module raises, or the function.
    """
    module, _, name = target.partition(":")
    found = reduce(getattr, name.split("."), importlib.import_module(module))
    if callable(found):
        found = found()
    if not isinstance(found, Router):
        raise TypeError(f"{target} is {found!r}; a worker needs a Router, or what makes one")
    return found


def main(arguments: Sequence[str]) -> int:
    """Serve until the parent closes the pipe; gives the exit status."""
    settings = WorkerSettings.read(arguments[0])
    fds = take_standard_streams()
    end_with_parent(settings.parent, fds[0])
    # Ctrl-C is for the parent to act on. A handler, since programs that it starts would inherit
    # that the signal is ignored.
    signal.signal(signal.SIGINT, lambda *_: None)
    sys.path[:] = settings.path
    exit_status = 0
    try:
        router = _with_commands(load_router(settings.target))
        router.run_plain_functions(run_in_thread if settings.threads else run_inline)
    except BaseException as error:  # whatever it is, also an end of the program
        router = _without_commands(error)
        exit_status = 1
    asyncio.run(_serve(router, settings, *fds))
    return exit_status


async def _serve(
    router: Router[Any], settings: WorkerSettings, read_fd: int, write_fd: int
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(settings.max_concurrency + _MORE_THREADS))
    most = max(settings.limits.max_requests, settings.max_concurrency + _MORE_REQUESTS)
    async with serve_fds(
        router,
        read_fd,
        write_fd,
        limits=replace(settings.limits, max_requests=most),
        drain_timeout=settings.drain_timeout,
        keepalive=None,  # the end of the pipe says all there is to know
    ) as connection:
        loop.add_signal_handler(signal.SIGTERM, connection.close)
        await connection.wait_closed()


def _with_commands(router: Router[Any]) -> Router[Any]:
    """Make a router around another, whose guards then have no say in what the pool asks."""
    outer: Router[Any] = Router()
    outer._state = router._state  # both are to make the same
    outer.include(router)

    @outer.responder(Settle)
    async def settle(command: Settle) -> Settled:
        await asyncio.sleep(0)  # for what was just cancelled to notice
        if running := abandoned():
            await asyncio.wait(running, timeout=command.seconds)
        return Settled(unsettled=sum(not each.done() for each in running))

    return outer


def _without_commands(error: BaseException) -> Router[Any]:
    router = Router()
    reason = "".join(traceback.format_exception_only(error)).strip()
    told = "".join(traceback.format_exception(error.with_traceback(_users_part(error)))).strip()

    @router.responder(Settle)
    async def settle(_command: Settle) -> Settled:
        raise NotStartedError(reason=reason[:_MOST_CHARACTERS], traceback=told[-_MOST_CHARACTERS:])

    return router


def _users_part(error: BaseException) -> TracebackType | None:
    """Give the traceback from the user's first line on; that far it is the same for all."""
    ours = (__file__, importlib.__file__)
    rest = error.__traceback__
    while rest is not None:
        file = rest.tb_frame.f_code.co_filename
        if file not in ours and not file.startswith("<frozen importlib"):
            break
        rest = rest.tb_next
    return rest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
