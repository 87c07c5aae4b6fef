"""The program of a worker, which a `WorkerPool` starts.

Rule of this module: it serves whoever started it, or says why it can't, and ends with it. Nothing
that the user's modules do while they are imported breaks the stream.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from typed_amp.orphans import end_with_parent
from typed_amp.plain_functions import abandoned, run_in_thread, run_inline
from typed_amp.router import Router
from typed_amp.server import loop_factory
from typed_amp.stdio import serve_fds, take_standard_streams
from typed_amp.worker_commands import LOADING, NotStartedError, Settle, Settled, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typed_amp.connection import Connection

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


def main(told: str) -> int:
    """Serve until the parent closes the pipe; gives the exit status.

    Args:
        told: the settings, as `WorkerSettings.written` gives them.
    """
    settings = WorkerSettings.read(told)
    fds = take_standard_streams()
    end_with_parent(settings.parent, fds[0])
    # Ctrl-C is for the parent to act on. A handler, since programs that it starts would inherit
    # that the signal is ignored.
    signal.signal(signal.SIGINT, lambda *_: None)
    exit_status = 0
    loading = LOADING.set(settings.target)
    try:
        router = _with_commands(load_router(settings.target))
        router.run_plain_functions(run_in_thread if settings.threads else run_inline)
    except BaseException as error:  # whatever it is, also an end of the program
        router = _without_commands(error)
        exit_status = 1
    LOADING.reset(loading)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(router, settings, *fds))
    return exit_status


async def _serve(
    router: Router[Any], settings: WorkerSettings, read_fd: int, write_fd: int
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(settings.max_concurrency + _MORE_THREADS))
    # Two for each place, since the pool asks when what wants no answer is done.
    most = max(settings.limits.max_requests, 2 * settings.max_concurrency + _MORE_REQUESTS)
    async with serve_fds(
        router,
        read_fd,
        write_fd,
        limits=replace(settings.limits, max_requests=most),
        drain_timeout=settings.drain_timeout,
        keepalive=None,  # the end of the pipe says all there is to know
    ) as connection:
        await connection.wait_closed()


def _with_commands(router: Router[Any]) -> Router[Any]:
    """Make a router around another, whose guards then have no say in what the pool asks."""
    outer: Router[Any] = Router()
    outer._state = router._state  # both are to make the same
    outer.include(router)

    @outer.on_connect
    async def heed_signals(connection: Connection[Any]) -> None:
        # Before anything is answered, by which the pool learns that there is a worker.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, connection.close)

    waited_for: set[asyncio.Task[None]] = set()

    @outer.responder(Settle)
    async def settle(command: Settle, connection: Connection[Any]) -> Settled:
        if command.follows_untold:
            for task in connection._link.responses.untold:
                if task not in waited_for:
                    waited_for.add(task)
                    task.add_done_callback(waited_for.discard)
                    await asyncio.wait([task])
                    break
            return Settled(unsettled=0)
        await asyncio.sleep(0)  # for what was just cancelled to notice
        if running := abandoned():
            await asyncio.wait(running, timeout=command.seconds)
        return Settled(unsettled=sum(not each.done() for each in running))

    return outer


def _without_commands(error: BaseException) -> Router[Any]:
    router = Router()
    reason = _text(traceback.format_exception_only(error))[:_MOST_CHARACTERS]
    users_part = error.with_traceback(_users_part(error))
    told = _text(traceback.format_exception(users_part))[-_MOST_CHARACTERS:]

    @router.responder(Settle)
    async def settle(_command: Settle) -> Settled:
        raise NotStartedError(reason=reason, traceback=told)

    return router


def _text(lines: Iterable[str]) -> str:
    """Join lines to a text that can travel: names of files may be in it that are none."""
    return "".join(lines).strip().encode("utf-8", "backslashreplace").decode()


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
