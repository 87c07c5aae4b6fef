"""One responder at work, as a task of its own.

Rule of this module: what a responder does is its own business: it may wait, fail, be cancelled, or
change what the connection speaks, and each way ends with its ask answered. What can be done without
waiting is the business of `responses`, which is compiled, as coroutines are not.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from typed_amp.deadlines import AMBIENT_DEADLINE

if TYPE_CHECKING:
    from typed_amp.dialogue import Asked
    from typed_amp.responses import Responses
    from typed_amp.router import Responder

__all__ = ["start"]


async def _respond(
    responses: Responses[Any], responder: Responder, command: Any, asked: Asked
) -> None:
    asked.is_begun = True
    if AMBIENT_DEADLINE.get() is not asked.deadline:
        AMBIENT_DEADLINE.set(asked.deadline)
    try:
        if responder.takes_connection:
            answer = await responder.function(command, responses.link.connection)
        else:
            answer = await responder.function(command)
        if not responder.signature.is_plain:
            responses.handover.check_state(answer)
        else:
            # What it was made from waits, instead of its bytes, until the peer has read others.
            while responses.must_wait:
                await responses.room()
    except BaseException as error:
        responses.failed(responder, asked, error)
        responses.done(asked)
        if not isinstance(error, Exception):
            raise
        return
    if responses.answer(responder, asked, answer):
        try:
            await responses.handover.accept(answer)
        finally:
            responses.done(asked)


if sys.version_info >= (3, 12):

    def start(
        responses: Responses[Any], responder: Responder, command: Any, asked: Asked
    ) -> asyncio.Task[None]:
        """Start a responder. It may be done when this returns, or have been cancelled."""
        # A responder that never has to wait is done without a turn of the event loop. Without
        # being told the loop, Python doesn't find it here.
        return asyncio.Task(
            _respond(responses, responder, command, asked),
            loop=responses.link.loop,
            name=responder.signature.title,
            eager_start=True,
        )
else:

    def start(
        responses: Responses[Any], responder: Responder, command: Any, asked: Asked
    ) -> asyncio.Task[None]:
        """Start a responder."""
        return asyncio.Task(
            _respond(responses, responder, command, asked),
            name=responder.signature.title,
        )
