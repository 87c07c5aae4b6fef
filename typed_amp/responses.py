"""The peer's asks, from their arrival to their answers.

Rule of this module: every ask is answered exactly once, whatever becomes of its responder. A
failure costs its own call and nothing else, and tells the peer nothing that isn't declared.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic

from typing_extensions import TypeVar

from typed_amp.alarms import Alarms
from typed_amp.box import (
    BUSY,
    CANCELLED,
    CLOSING,
    DEADLINE,
    NOT_ALLOWED,
    TIMEOUT,
    printable,
)
from typed_amp.built_in import BUILT_IN
from typed_amp.calls import too_long_box
from typed_amp.deadlines import decode_deadline
from typed_amp.descriptors import close_descriptors
from typed_amp.errors import DecodeError, NotAllowedError
from typed_amp.extensions import carry_out
from typed_amp.log import LOGGER, log
from typed_amp.refusals import (
    UNKNOWN_ERROR,
    declared_error,
    ended,
    invalid,
    log_failure,
    undeclared_error,
    unhandled,
)
from typed_amp.responding import start

if TYPE_CHECKING:
    from typed_amp.dialogue import Asked
    from typed_amp.handover import Handover
    from typed_amp.link import Link
    from typed_amp.refusals import Refusal
    from typed_amp.router import Responder
    from typed_amp.signature import Signature

__all__ = ["ASKS_PER_TURN", "Responses"]

S = TypeVar("S", default=None)

ASKS_PER_TURN: Final = 16
"""How many of one connection's boxes are taken up before others have their turn.

Few enough that neighbours hardly notice a flood. More would not be faster either: while one side
writes some answers, the other works on those that it has already.
"""

_CANCELLED_PER_TURN: Final = 16
"""Likewise of responders that are cancelled: each then runs its `finally`."""


_NONE: Final[dict[Asked, asyncio.Task[None] | None]] = {}
"""The responders where none runs: a dict that was emptied would keep the memory of what was in it.

Nothing is put into this one."""


class Responses(Generic[S]):
    """Runs the responders of one connection, each as a task of its own.

    Args:
        link: the inside of the connection.
    """

    __slots__ = (
        "_alarms",
        "_by_tag",
        "_held",
        "_held_bytes",
        "_is_cancelling",
        "_is_going_on",
        "_is_holding",
        "_max_requests",
        "_tasks",
        "_told",
        "_unbegun",
        "link",
        "refusal",
        "taken",
    )

    def __init__(self, link: Link[S]) -> None:
        self.link: Link[S] = link
        """The inside of the connection."""
        self._max_requests = link.settings.limits.max_requests
        self._tasks: dict[Asked, asyncio.Task[None] | None] = _NONE
        """The responders that run; None instead of a task that has not been made yet."""
        self._unbegun: list[Asked] | None = None
        """Those whose tasks may not have had their first step."""
        self._alarms: Alarms[Asked] | None = None
        """Of responders whose callers don't wait for ever, once there are any."""
        self._by_tag: dict[bytes, Asked] | None = None
        """Those that wait or run, once the peer has given up one of them."""
        self._held: deque[Asked] | None = None
        """The asks that wait, if there are any."""
        self._held_bytes = 0
        self._is_holding = False
        self._is_going_on = False
        self.taken: int = 0
        """How many commands came, built-in ones left out."""
        self._is_cancelling = False
        self._told: set[str] | None = None
        """What the log was told, if it was told anything that is said but once."""
        self.refusal: Refusal | None = None
        """With what is answered whatever is asked from now on, if it is refused."""

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
        """How much the asks take that wait."""
        return self._held_bytes

    @property
    def is_full(self) -> bool:
        """Whether so many responders run that what is asked now would have to wait."""
        return len(self._tasks) >= self._max_requests

    @property
    def is_full_or_behind(self) -> bool:
        """Whether what is asked now would have to wait, for whatever reason."""
        return bool(self._held) or len(self._tasks) >= self._max_requests

    def hold(self) -> None:
        """Let asks wait from now on, until `release`."""
        self._is_holding = True

    def release(self) -> None:
        """Take up the asks that waited, in their order, as long as nothing says to hold again."""
        self._is_holding = False
        self._take_held()

    def _take_held(self) -> None:
        most = ASKS_PER_TURN
        while self._held and not self._is_holding:
            if self.refusal is not None:
                pass  # that is done quickly
            elif self.is_full:
                return
            elif not most:
                self._go_on_soon()
                return
            most -= 1
            asked = self._held.popleft()
            self._held_bytes -= _size(asked)
            if not self._held:
                self._held = None
            self._take_now(asked)

    def _go_on_soon(self) -> None:
        if not self._is_going_on:
            self._is_going_on = True
            self.link.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_going_on = False
        self._take_held()
        self.link.regulate_reading()

    def check_held(self) -> None:
        """Take up what waits if what it waits for waits for it.

        A hook may wait for an answer that the peer keeps back until it may speak another protocol.
        """
        if self._held and self.handover.is_waited_for(self._held[-1]):
            self.release()
            self._is_holding = True

    def take(self, asked: Asked) -> None:
        """Answer an ask: now, if it can't be carried out, or when its responder is done."""
        if asked.name in BUILT_IN:
            self._take_built_in(asked)
            return
        self.taken += 1
        link = self.link
        if link.features.has_deadlines and DEADLINE in asked.box:
            seconds = decode_deadline(asked.box[DEADLINE])
            asked.deadline = None if seconds is None else link.loop.time() + seconds
        if (
            self._is_holding or self._held or len(self._tasks) >= self._max_requests
        ) and not self.handover.goes_first(asked):
            self._hold(asked)
            return
        self._take_now(asked)

    def _hold(self, asked: Asked) -> None:
        size = _size(asked)
        limit = self.link.settings.limits.max_held_bytes
        if self.link.dialogue.expected and self._held_bytes + size > limit:
            # What this side waits for comes behind it, so it can't be left unread.
            self._busy(asked, "max_held_bytes", "too much waits to be carried out")
            return
        self._note_tag(asked)
        if self._held is None:
            self._held = deque()
        self._held.append(asked)
        self._held_bytes += size
        self.check_held()

    def _busy(self, asked: Asked, limit: str, reason: str) -> None:
        if self._is_untold(limit):
            told = "commands are refused with BUSY: %s"
            log(logging.WARNING, "busy", self.link.connection, told, limit, limit=limit)
        self._refuse(asked, (BUSY, f"{reason}; it was not carried out, try again later", b""))

    def _is_untold(self, what: str) -> bool:
        """Say whether something is yet to be logged, which is logged once: now."""
        if self._told is None:
            self._told = set()
        is_untold = what not in self._told
        self._told.add(what)
        return is_untold

    def _take_built_in(self, asked: Asked) -> None:
        if not self.link.settings.has_extensions:
            # No fallback is to pass on what is said about this connection.
            self._decline(asked, unhandled(asked))
            return
        signature = BUILT_IN[asked.name]
        try:
            answer = carry_out(self.link, signature.arguments.decode(asked.box))
        except DecodeError as error:
            self._refuse(asked, invalid(error, has_details=False))
            return
        data = signature.encode_answer(answer, self.link.dialogue.answer_head(asked))
        if self.link.dialogue.answered(asked):
            self.link.reply(data)

    def _take_now(self, asked: Asked) -> None:
        if self.refusal is not None:
            self._decline(asked, self.refusal)
            return
        if asked.verdict is not None:
            self._refuse(asked, ended(asked.verdict))
            return
        if asked.deadline is not None and asked.deadline <= self.link.loop.time():
            asked.verdict = TIMEOUT
            self._refuse(asked, ended(TIMEOUT))
            return
        settings = self.link.settings
        responder = settings.router.find(asked.name)
        if responder is None:
            self._decline(asked, unhandled(asked))
            return
        if responder.guards and not self._is_let_pass(responder, asked):
            return
        signature = responder.signature
        try:
            if signature.has_attachments:
                command, asked.attachments = self.link.descriptors.decode(
                    signature.arguments, asked.box, is_latest=not self._held
                )
            else:
                command = signature.arguments.decode(asked.box)
        except DecodeError as error:
            has_details = self.link.features.has_details
            self._decline(asked, invalid(error, has_details=has_details))
            return
        budget = settings.budget
        if budget is not None:
            if budget.is_used_up:
                close_descriptors(asked.attachments)
                self._busy(asked, "max_total_requests", "the server has as much to do as it may")
                return
            budget.in_use += 1
        if self._by_tag is not None:
            self._note_tag(asked)
        if not self._tasks:
            self._tasks = {}
        self._tasks[asked] = None
        if asked.deadline is not None:
            if self._alarms is None:
                self._alarms = Alarms(self.link.loop, self._expire)
            self._alarms.set(asked, asked.deadline)
        task = start(self, responder, command, asked)
        if asked in self._tasks:
            self._tasks[asked] = task
            if asked.is_doomed:
                task.cancel()
            if not asked.is_begun:
                if self._unbegun is None:
                    self._unbegun = []
                    self.link.loop.call_soon(self._check_begun)
                self._unbegun.append(asked)

    def _is_let_pass(self, responder: Responder, asked: Asked) -> bool:
        try:
            for guard in responder.guards:
                guard.check(self.link.connection, asked.name)
        except NotAllowedError as error:
            self._refuse(asked, (NOT_ALLOWED, error.description, b""))
        except Exception as error:
            told = "a guard of %s failed"
            self._log(logging.ERROR, "guard_failed", told, asked, asked.shown_name, error=error)
            self._refuse(asked, UNKNOWN_ERROR)
        else:
            return True
        return False

    def close(self) -> None:
        """Refuse asks from now on, those that wait among them; responders go on."""
        self.refusal = CLOSING, "this side is closing the connection", b""
        self.release()

    def cancel_ask(self, tag: bytes) -> None:
        """Cancel the responder of an ask that the peer has given up, if it waits or runs."""
        if self._by_tag is None:
            self._by_tag = {
                asked.tag: asked
                for asked in [*self._tasks, *(self._held or ())]
                if asked.tag is not None
            }
        asked = self._by_tag.get(tag)
        if asked is not None:
            self._end(asked, CANCELLED)

    def _note_tag(self, asked: Asked) -> None:
        if self._by_tag is not None and asked.tag is not None:
            self._by_tag[asked.tag] = asked

    def _forget_tag(self, asked: Asked) -> None:
        if self._by_tag is not None and asked.tag is not None:
            self._by_tag.pop(asked.tag, None)

    def _expire(self, asked: Asked) -> None:
        self._end(asked, TIMEOUT)

    def _end(self, asked: Asked, verdict: bytes) -> None:
        if asked.is_answered or asked.is_doomed or asked.verdict is not None:
            return  # a second reason must not cancel what it does in its `finally`
        asked.verdict = verdict
        self._cancel(asked)

    def _cancel(self, asked: Asked) -> None:
        """Cancel the responder of an ask, if it runs."""
        if asked not in self._tasks:
            return
        asked.is_doomed = True
        task = self._tasks[asked]
        if task is not None:  # or else it is in its first step, further up this very stack
            task.cancel()

    def cancel(self, *, unheard_only: bool = False) -> None:
        """Cancel the responders that run.

        Args:
            unheard_only: only those whose answer somebody waited for, now that nobody does. Where
                no answer was asked for, nobody stopped waiting for one; nor where it was given.
                Those that are cancelled already aren't cancelled again.
        """
        self._is_cancelling = True
        self._cancel_in_turns(
            deque(
                asked
                for asked in self._tasks
                if not unheard_only
                or (asked.tag is not None and not asked.is_answered and asked.verdict is None)
            )
        )

    def _cancel_in_turns(self, doomed: deque[Asked]) -> None:
        """Cancel some of them now, and others in the next turn: neighbours go on meanwhile."""
        for _ in range(min(len(doomed), _CANCELLED_PER_TURN)):
            self._cancel(doomed.popleft())
        if doomed:
            self.link.loop.call_soon(self._cancel_in_turns, doomed)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The responders that run."""
        return [task for task in self._tasks.values() if task is not None]

    @property
    def untold(self) -> list[asyncio.Task[None]]:
        """Those of which the caller wants no answer."""
        return [
            task for asked, task in self._tasks.items() if task is not None and asked.tag is None
        ]

    @property
    def handover(self) -> Handover:
        """What takes over when a responder has agreed to a change of protocol."""
        return self.link.handover

    @property
    def must_wait(self) -> bool:
        """Whether so much waits for the peer that no answer is to be written now."""
        return self.link.writer.is_overfull

    def room(self) -> asyncio.Future[None]:
        """Give what is done when that may have changed."""
        return self.link.writer.room()

    def answer(self, responder: Responder, asked: Asked, answer: Any) -> bool:
        """Answer an ask, with what its responder returned.

        Returns:
            Whether the responder isn't `done` yet: it is to `Handover.accept` its answer.
        """
        signature = responder.signature
        link = self.link
        try:
            head = link.dialogue.answer_head(asked)
            if signature.is_plain:
                data = signature.encode_answer(answer, head)
            else:
                data = self._encode_special(signature, answer, head)
            limit = link.settings.limits.max_box_bytes
            if len(data) > limit:
                raise too_long_box(f"the answer to {signature.title}", len(data), limit)
        except Exception as error:
            # Not as a declared error, even if the command declares ValueErrors.
            log_failure(self.link.connection, asked, error)
            self._refuse(asked, UNKNOWN_ERROR)
        else:
            if link.dialogue.answered(asked):
                link.reply(data)
                if signature.transition is not None:
                    return True
        self.done(asked)
        return False

    def _encode_special(self, signature: Signature[Any, Any], answer: Any, head: bytes) -> bytes:
        if not signature.answer_has_attachments:
            data = signature.encode_answer(answer, head)
            self.handover.check_answer(answer)
            return data
        plan = signature.answer
        assert plan is not None
        try:
            if not head or self.link.calls.is_ended:  # nobody gets it, nor what is attached to it
                return signature.encode_answer(answer, head, lambda _: 0)
            return self.link.descriptors.encode(signature.encode_answer, answer, head)
        finally:
            close_descriptors(plan.descriptors_in(answer))

    def failed(self, responder: Responder, asked: Asked, error: BaseException) -> None:
        """Answer an ask whose responder has failed, or was cancelled."""
        declared = responder.signature.declared(error)
        if declared is None:
            self._fail_undeclared(asked, error)
            return
        refusal = declared_error(self.link.connection, asked, error, responder.signature, declared)
        self._refuse(asked, refusal)
        if declared.is_fatal:
            self.link.fail(error)

    def _fail_undeclared(self, asked: Asked, error: BaseException) -> None:
        is_ended = self._is_cancelling or asked.verdict is not None
        self._refuse(asked, undeclared_error(self.link.connection, asked, error, is_ended=is_ended))

    def _decline(self, asked: Asked, refusal: Refusal) -> None:
        """Refuse an ask that no responder takes up."""
        if asked.tag is None and self._is_untold("declined"):
            # How many more come is the peer's choice.
            code, description, _ = refusal
            self._log(
                logging.WARNING,
                "refused",
                "refused %s, whose caller is told nothing: %.500s (others: level DEBUG)",
                asked,
                asked.shown_name,
                printable(description.encode("utf-8", "backslashreplace")),
                code=printable(code),
            )
        self._refuse(asked, refusal)

    def _refuse(self, asked: Asked, refusal: Refusal) -> None:
        code, description, fields = refusal
        if LOGGER.isEnabledFor(logging.DEBUG):
            verb = "refused" if asked.tag is None else "answered"
            names = asked.shown_name, verb, printable(code)
            told = "%s is %s with %.200s"
            self._log(logging.DEBUG, "refused", told, asked, *names, code=names[2])
        data = self.link.dialogue.error(asked, code, description, fields)
        if data is not None:
            self.link.reply(data)
        self._forget_tag(asked)
        self.link.refused(asked)

    def _log(
        self,
        level: int,
        event: str,
        told: str,
        asked: Asked,
        *arguments: object,
        error: BaseException | None = None,
        **attributes: str,
    ) -> None:
        attributes["command"] = asked.shown_name
        log(level, event, self.link.connection, told, *arguments, error=error, **attributes)

    def _check_begun(self) -> None:
        """Answer for responders that were cancelled before their first step: they never run."""
        waiting: list[Asked] = []
        for asked in self._unbegun or ():
            if asked.is_begun:
                continue
            task = self._tasks[asked]
            if task is not None and task.done():
                close_descriptors(asked.attachments)
                self._fail_undeclared(asked, asyncio.CancelledError())
                self.done(asked)
            else:
                waiting.append(asked)
        self._unbegun = waiting or None
        if waiting:
            self.link.loop.call_soon(self._check_begun)

    def end(self) -> None:
        """Nothing runs any more, and nothing will."""
        if self._alarms is not None:
            self._alarms.clear()

    def done(self, asked: Asked) -> None:
        """A responder is done, and its ask answered."""
        del self._tasks[asked]
        budget = self.link.settings.budget
        if budget is not None:
            budget.in_use -= 1
        if self._alarms is not None:
            self._alarms.unset(asked)
        if self._by_tag is not None:
            self._forget_tag(asked)
        if self._held or len(self._tasks) == self._max_requests - 1:
            self._go_on_soon()
        if not self._tasks:
            self._tasks = _NONE
            self.link.check_drained()


def _size(asked: Asked) -> int:
    """Estimate what a box takes in memory: what is in it, and the objects around that."""
    return 500 + sum(100 + len(key) + len(value) for key, value in asked.box.items())
