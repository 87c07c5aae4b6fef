"""How a connection begins and ends: what it waits for in between.

Rule of this module: users' hooks run here. One that fails ends a connection that begins, and holds
up no other when it ends. What can be done without waiting is the business of `link`, which is
compiled, as coroutines are not.
"""

from __future__ import annotations

import asyncio
from logging import ERROR
from typing import TYPE_CHECKING, Any

from typed_amp.deadlines import AMBIENT_DEADLINE
from typed_amp.log import log

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from typed_amp.link import Link

__all__ = ["await_verdict", "finish", "greet", "greeted"]


async def await_verdict(link: Link[Any], verdict: Awaitable[bool]) -> None:
    """Wait for what `admit=` says of the peer, and begin or refuse."""
    is_admitted = False
    AMBIENT_DEADLINE.set(None)  # of a responder that has connected; it isn't the connection's
    try:
        is_admitted = await verdict
    finally:
        if not link.is_shut:
            link.decided(is_admitted=is_admitted)


async def greet(link: Link[Any]) -> None:
    """Run the hooks of `on_connect`, then what was asked meanwhile."""
    link.has_begun = True
    AMBIENT_DEADLINE.set(None)  # as in `await_verdict`
    try:
        for hook in link.settings.router.connect_hooks():
            await hook(link.connection)
    except BaseException as error:
        if not link.is_shut:
            log(ERROR, "hook_failed", link.connection, "an on_connect hook failed", error=error)
        link.lost_cause = link.lost_cause or error
        link.close(0)
        if not isinstance(error, Exception):
            raise
    link.responses.release()
    link.regulate_reading()


async def greeted(link: Link[Any]) -> None:
    """Wait until the hooks of `on_connect` are done.

    Raises:
        ConnectionLostError: one of them failed, or the connection went meanwhile.
    """
    if link.greeting is not None:
        await asyncio.wait([link.greeting])
    if link.is_shut:
        await link.finished.wait()
        raise link.lost("connect")


async def finish(link: Link[Any]) -> None:
    """Wait for what goes on after the end of the transport."""
    try:
        if link.greeting is not None:
            link.greeting.cancel()
            await asyncio.wait([link.greeting])
        while tasks := link.responses.tasks:
            await asyncio.wait(tasks)
        if link.has_begun:
            await _part(link)
    finally:
        link.has_finished()


async def _part(link: Link[Any]) -> None:
    AMBIENT_DEADLINE.set(None)  # as in `await_verdict`
    for hook in link.settings.router.disconnect_hooks():
        try:
            await hook(link.connection)
        except Exception as error:
            told = "an on_disconnect hook failed"
            log(ERROR, "hook_failed", link.connection, told, error=error)
