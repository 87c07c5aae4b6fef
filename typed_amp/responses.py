"""The peer's asks, from their arrival to their answers.

Rule of this module: every ask is answered exactly once, whatever becomes of its responder. A
failure costs its own call and nothing else, and tells the peer nothing that isn't declared.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from typed_amp.box import CLOSING, INVALID_ARGUMENTS, NOT_ALLOWED, UNHANDLED, UNKNOWN, printable
from typed_amp.calls import too_long_box
from typed_amp.descriptors import close_descriptors
from typed_amp.errors import DecodeError, NotAllowedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from typed_amp.connection import Connection
    from typed_amp.descriptor_exchange import DescriptorExchange
    from typed_amp.dialogue import Asked, Dialogue
    from typed_amp.handover import Handover
    from typed_amp.router import Responder, Router
    from typed_amp.signature import Signature

__all__ = ["Responses"]

S = TypeVar("S", default=None)

_logger = logging.getLogger("typed_amp")


class Responses(Generic[S]):
    """Runs the responders of one connection, each as a task of its own.

    Args:
        connection: given to responders that want it.
        router: says who answers what.
        dialogue: says what is written.
        descriptors: sends and receives those in boxes.
        handover: takes over when a responder has agreed to a change of protocol.
        max_box_bytes: how long an answer may be.
        reply: writes it.
        on_idle: called when the last responder is done.
        on_fatal: called when one failed with an error that is to end the connection.
    """

    def __init__(
        self,
        connection: Connection[S],
        router: Router[S],
        dialogue: Dialogue[Any],
        *,
        descriptors: DescriptorExchange,
        handover: Handover,
        max_box_bytes: int,
        reply: Callable[[bytes], None],
        on_idle: Callable[[], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self._router = router
        self._dialogue = dialogue
        self._descriptors = descriptors
        self._handover = handover
        self._max_box_bytes = max_box_bytes
        self._reply = reply
        self._on_idle = on_idle
        self._on_fatal = on_fatal
        self._tasks: dict[Asked, asyncio.Task[None] | None] = {}
        """The responders that run; None instead of a task that has not been made yet."""
        self._unbegun: list[Asked] = []
        """Those whose tasks may not have had their first step."""
        self._doomed: set[Asked] = set()
        """Those to be cancelled as soon as their first step is over."""
        self._held: deque[Asked] = deque()
        self._held_bytes = 0
        self._is_holding = False
        self._is_cancelling = False
        self._is_closing = False

    @property
    def running(self) -> int:
        """How many responders run."""
        return len(self._tasks)

    @property
    def is_behind(self) -> bool:
        """Whether asks wait that came before what comes now."""
        return bool(self._held)

    @property
    def held_bytes(self) -> int:
        """How much the asks take that wait for `release`."""
        return self._held_bytes

    def hold(self) -> None:
        """Let asks wait from now on, until `release`."""
        self._is_holding = True

    def release(self) -> None:
        """Take up the asks that waited, in their order, as long as nothing says to hold again."""
        self._is_holding = False
        while self._held and not self._is_holding:
            asked = self._held.popleft()
            self._held_bytes -= _size(asked)
            self._take_now(asked)

    def check_held(self) -> None:
        """Take up what waits if what it waits for waits for it.

        A hook may wait for an answer that the peer keeps back until it may speak another protocol.
        """
        if self._held and self._handover.is_waited_for(self._held[-1]):
            self.release()
            self._is_holding = True

    def take(self, asked: Asked) -> None:
        """Answer an ask: now, if it can't be carried out, or when its responder is done."""
        if (self._is_holding or self._held) and not self._handover.goes_first(asked):
            self._held.append(asked)
            self._held_bytes += _size(asked)
            self.check_held()
            return
        self._take_now(asked)

    def _take_now(self, asked: Asked) -> None:
        if self._is_closing:
            self._refuse(asked, CLOSING, "this side is closing the connection")
            return
        responder = self._router.find(asked.name)
        if responder is None:
            # As Twisted words it, but for the b of its bytes.
            self._refuse(asked, UNHANDLED, f"Unhandled Command: '{printable(asked.name)}'")
            return
        if responder.guards and not self._is_let_pass(responder, asked):
            return
        signature = responder.signature
        try:
            if signature.has_attachments:
                command, asked.attachments = self._descriptors.decode(
                    signature.arguments, asked.box, is_latest=not self._held
                )
            else:
                command = signature.arguments.decode(asked.box)
        except DecodeError as error:
            self._refuse(asked, INVALID_ARGUMENTS, str(error))
            return
        self._tasks[asked] = None
        task = _start_task(self._respond(responder, command, asked), signature.title)
        if asked in self._tasks:
            self._tasks[asked] = task
            if asked in self._doomed:
                task.cancel()
            if not asked.is_begun:
                self._unbegun.append(asked)
                if len(self._unbegun) == 1:
                    asyncio.get_running_loop().call_soon(self._check_begun)

    def _is_let_pass(self, responder: Responder, asked: Asked) -> bool:
        try:
            for guard in responder.guards:
                guard.check(self._connection, asked.name)
        except NotAllowedError as error:
            self._refuse(asked, NOT_ALLOWED, error.description)
        except Exception as error:
            name = printable(asked.name)
            _logger.error("%r: a guard of %s failed", self._connection, name, exc_info=error)
            self._refuse(asked, UNKNOWN, "Unknown Error")
        else:
            return True
        return False

    def close(self) -> None:
        """Refuse asks from now on, those that wait among them; responders go on."""
        self._is_closing = True
        self.release()

    def cancel(self, *, unheard_only: bool = False) -> None:
        """Cancel the responders that run.

        Args:
            unheard_only: only those whose answer somebody waited for, now that nobody does. Where
                no answer was asked for, nobody stopped waiting for one; nor where it was given.
        """
        self._is_cancelling = True
        for asked, task in list(self._tasks.items()):
            if unheard_only and (asked.tag is None or asked.is_answered):
                continue
            if task is None:
                self._doomed.add(asked)  # it is in its first step, further up this very stack
            else:
                task.cancel()

    async def wait(self) -> None:
        """Wait until no responder runs."""
        while self._tasks:
            await asyncio.wait([task for task in self._tasks.values() if task is not None])

    async def _respond(self, responder: Responder, command: Any, asked: Asked) -> None:
        asked.is_begun = True
        signature = responder.signature
        try:
            if responder.takes_connection:
                answer = await responder.function(command, self._connection)
            else:
                answer = await responder.function(command)
            if not signature.is_plain:
                self._handover.check_state(answer)
        except BaseException as error:
            self._fail(responder, asked, error)
            self._done(asked)
            if not isinstance(error, Exception):
                raise
            return
        try:
            head = self._dialogue.answer_head(asked)
            if signature.is_plain:
                data = signature.encode_answer(answer, head)
            else:
                data = self._encode_special(signature, answer, head)
            if len(data) > self._max_box_bytes:
                title = f"the answer to {signature.title}"
                raise too_long_box(title, len(data), self._max_box_bytes)
        except Exception as error:
            # Not as a declared error, even if the command declares ValueErrors.
            self._log_failure(asked, error)
            self._refuse(asked, UNKNOWN, "Unknown Error")
        else:
            if self._dialogue.answered(asked):
                self._reply(data)
                if signature.transition is not None:
                    try:
                        await self._handover.accept(answer)
                    finally:
                        self._done(asked)
                    return
        self._done(asked)

    def _encode_special(self, signature: Signature[Any, Any], answer: Any, head: bytes) -> bytes:
        if not signature.answer_has_attachments:
            data = signature.encode_answer(answer, head)
            self._handover.check_answer(answer)
            return data
        plan = signature.answer
        assert plan is not None
        try:
            if not head:  # nobody wants the answer, nor what is attached to it
                return signature.encode_answer(answer, head, lambda _: 0)
            return self._descriptors.encode(signature.encode_answer, answer, head)
        finally:
            close_descriptors(plan.descriptors_in(answer))

    def _fail(self, responder: Responder, asked: Asked, error: BaseException) -> None:
        declared = responder.signature.declared(error)
        if declared is None and isinstance(error, NotAllowedError) and not error.is_received:
            self._refuse(asked, NOT_ALLOWED, error.description)
            return
        is_expected = isinstance(error, asyncio.CancelledError) and self._is_cancelling
        # What is declared is the business of who asked, unless he is told nothing of it.
        if (declared is None or asked.tag is None) and not is_expected:
            self._log_failure(asked, error)
        if declared is None:
            self._refuse(asked, UNKNOWN, "Unknown Error")
            return
        try:
            description, fields = responder.signature.error_parts(error)
        except Exception as failure:
            self._log_failure(asked, failure)
            self._refuse(asked, UNKNOWN, "Unknown Error")
        else:
            self._refuse(asked, declared.code, description, fields)
        if declared.is_fatal:
            self._on_fatal(error)

    def _refuse(self, asked: Asked, code: bytes, description: str, fields: bytes = b"") -> None:
        if _logger.isEnabledFor(logging.DEBUG):
            name = printable(asked.name)
            _logger.debug("%r: %s is answered with %s", self._connection, name, printable(code))
        data = self._dialogue.error(asked, code, description, fields)
        if data is not None:
            self._reply(data)
        if asked is self._handover.asked:
            self._handover.refused()

    def _log_failure(self, asked: Asked, error: BaseException) -> None:
        title = printable(asked.name)
        _logger.error("%r: the responder of %s failed", self._connection, title, exc_info=error)

    def _check_begun(self) -> None:
        """Answer for responders that were cancelled before their first step: they never run."""
        waiting: list[Asked] = []
        for asked in self._unbegun:
            if asked.is_begun:
                continue
            task = self._tasks[asked]
            if task is not None and task.done():
                close_descriptors(asked.attachments)
                self._refuse(asked, UNKNOWN, "Unknown Error")
                self._done(asked)
            else:
                waiting.append(asked)
        self._unbegun = waiting
        if waiting:
            asyncio.get_running_loop().call_soon(self._check_begun)

    def _done(self, asked: Asked) -> None:
        del self._tasks[asked]
        self._doomed.discard(asked)
        if not self._tasks:
            self._on_idle()


def _size(asked: Asked) -> int:
    """Estimate what a box takes in memory: what is in it, and the objects around that."""
    return 500 + sum(100 + len(key) + len(value) for key, value in asked.box.items())


if sys.version_info >= (3, 12):

    def _start_task(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        # A responder that never has to wait is done without a turn of the event loop.
        loop = asyncio.get_running_loop()
        return asyncio.Task(coroutine, loop=loop, name=name, eager_start=True)
else:

    def _start_task(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.Task(coroutine, loop=asyncio.get_running_loop(), name=name)
