"""What a service is asked over NATS, from the message to the answer.

Rule of this module: any message will do, whoever sent it. Responders run side by side, as many as
may; what comes beyond waits, as long as it isn't too much, and is refused after that.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from typed_amp.alarms import Alarms
from typed_amp.box import (
    ASK,
    BUSY,
    CANCELLED,
    CLOSING,
    DEADLINE,
    INVALID_ARGUMENTS,
    NOT_ALLOWED,
    TIMEOUT,
    UNHANDLED,
    UNKNOWN,
    printable,
)
from typed_amp.counters import Counters
from typed_amp.deadlines import decode_deadline
from typed_amp.dialogue import Asked
from typed_amp.dispatch import TOO_LONG, Dispatch, Refused
from typed_amp.errors import ProtocolViolationError
from typed_amp.log import log
from typed_amp.message import box_of
from typed_amp.nats_cancels import CancelledBefore, cancelled_reply
from typed_amp.refusals import ended

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from nats.aio.msg import Msg

    from typed_amp.limits import Limits
    from typed_amp.log import Named
    from typed_amp.nats_link import NatsLink
    from typed_amp.refusals import Refusal
    from typed_amp.router import Router

__all__ = ["Endpoint", "NatsRequests"]

_ERROR_CODE: Final = "Nats-Service-Error-Code"
_ERROR: Final = "Nats-Service-Error"
"""The headers by which NATS micro's tools know an error. typed_amp's clients read the box."""

MESSAGES_PER_TURN: Final = 64
"""How many messages are taken up before others have their turn.

While this side writes some answers, the other works on those that it has already.
"""

_SHOWN_CHARACTERS: Final = 200

_MOST_HEADER_BYTES: Final = 300
"""More than the headers of an error take."""

_NUMBERS: Final = {
    "400": "400",  # what is not one box of AMP has no other code
    INVALID_ARGUMENTS.decode(): "400",
    NOT_ALLOWED.decode(): "403",
    UNHANDLED.decode(): "404",
    TIMEOUT.decode(): "408",
    TOO_LONG.decode(): "413",
    BUSY.decode(): "429",
    CANCELLED.decode(): "499",
    UNKNOWN.decode(): "500",
    CLOSING.decode(): "503",
}
"""The numbers by which NATS micro wants errors told: those of HTTP that mean the same."""

_NUMBER_OF_OTHERS: Final = "422"
"""That of errors that a command declares: understood, and refused for reasons of its own."""

_OVERHEAD: Final = 1_000
"""About what a message that waits takes beside its bytes."""


class Endpoint:
    """Where one command is asked for, and what became of it there, as NATS micro counts it.

    Attributes:
        name: what NATS micro calls it.
        subject: its subject.
        metadata: what is told of the command.
        requests: how many messages came.
        errors: how many were answered with an error.
        last_error: the last of these.
        nanoseconds: how long responders took in all, waiting included.
    """

    __slots__ = (
        "_requests",
        "errors",
        "last_error",
        "metadata",
        "name",
        "nanoseconds",
        "requests",
        "subject",
    )

    def __init__(
        self, requests: NatsRequests, name: str, subject: str, metadata: dict[str, str]
    ) -> None:
        self._requests = requests
        self.name: str = name
        self.subject: str = subject
        self.metadata: dict[str, str] = metadata
        self.requests: int = 0
        self.errors: int = 0
        self.last_error: str = ""
        self.nanoseconds: int = 0

    async def receive(self, message: Msg) -> None:
        """Take a message; returns when a responder runs, or it waits, or is refused."""
        self.requests += 1
        refusal = self._requests.take(message, self)
        if refusal is not None:
            await refusal

    def count(self, refused: Refused, nanoseconds: int) -> None:
        """Count an error that a message was answered with, and how long that took."""
        self.nanoseconds += nanoseconds
        self.errors += 1
        self.last_error = _told(refused)


class _Request:
    """A message that waits, or whose responder runs."""

    __slots__ = ("asked", "begun_at", "endpoint", "reply", "size", "task")

    def __init__(self, asked: Asked, endpoint: Endpoint, reply: str, size: int) -> None:
        self.asked = asked
        self.endpoint = endpoint
        self.reply = reply
        self.size = size
        self.begun_at = 0
        self.task: asyncio.Task[None] | None = None


class NatsRequests:
    """Answers what a service is asked.

    Args:
        owner: what log records call it.
        router: has the responders.
        link: to send the answers by.
        limits: how many run at a time, and how much may wait.
    """

    def __init__(self, owner: Named, router: Router[Any], link: NatsLink, limits: Limits) -> None:
        self._owner = owner
        self._publish = link.client.publish
        self._max_bytes = link.max_bytes
        self._max_keys = limits.max_keys
        self._max_requests = limits.max_requests
        self._max_held_bytes = limits.max_held_bytes
        self._dispatch = Dispatch(owner, router, link.max_bytes, link.too_long)
        self._loop = asyncio.get_running_loop()
        self._alarms: Alarms[_Request] = Alarms(self._loop, self._expire)
        self._running: set[_Request] = set()
        self._held: deque[_Request] = deque()
        self._held_bytes = 0
        self._due: dict[str, _Request] = {}
        """What waits or runs, by where its answer is due: nothing else has the same subject."""
        self._cancelled_before = CancelledBefore()
        self._taken = 0
        self._strays = 0
        self._violations = 0
        self._bytes_received = 0
        self._bytes_sent = 0
        self._has_warned = False
        self._is_closing = False
        self._is_going_on = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def counters(self) -> Counters:
        """What happened up to now, in numbers."""
        return Counters(
            requests=self._taken,
            requests_in_flight=len(self._running),
            refusals=dict(self._dispatch.dialogue.errors_given),
            strays=self._strays,
            violations=self._violations,
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
        )

    def take(self, message: Msg, endpoint: Endpoint) -> Coroutine[Any, Any, None] | None:
        """Take a message: run its responder, or let it wait.

        Returns:
            None; or what is to be awaited: it refuses the message, or lets others have their turn.
        """
        size = len(message.data)
        self._bytes_received += size
        reply = message.reply
        if reply in self._due:
            self._strays += 1
            return None  # it was sent again, and this is where it runs already
        try:
            asked = self._asked(message)
        except ProtocolViolationError as error:
            return self._refuse_violation(message, endpoint, error.reason)
        self._taken += 1
        if DEADLINE in asked.box:
            seconds = decode_deadline(asked.box[DEADLINE])
            asked.deadline = None if seconds is None else self._loop.time() + seconds
        request = _Request(asked, endpoint, reply, size + _OVERHEAD)
        if reply in self._cancelled_before:
            return self._refuse(request, ended(CANCELLED))
        if self._is_closing:
            return self._refuse(request, (CLOSING, "this responder is closing", b""))
        is_full = bool(self._held) or len(self._running) >= self._max_requests
        if is_full and self._held_bytes + request.size > self._max_held_bytes:
            return self._refuse_busy(request)
        if reply:
            self._due[reply] = request
        if is_full:
            self._held.append(request)
            self._held_bytes += request.size
            return None
        self._start(request)
        return asyncio.sleep(0) if self._taken % MESSAGES_PER_TURN == 0 else None

    def _asked(self, message: Msg) -> Asked:
        """Read a message.

        Raises:
            ProtocolViolationError: it is no box, or one that asks for nothing.
        """
        box = box_of(message.data, self._max_keys)
        if not message.reply:
            box.pop(ASK, None)
        asked = self._dispatch.dialogue.receive(box)
        if not isinstance(asked, Asked):
            raise ProtocolViolationError("it is an answer, where commands are asked for")
        return asked

    def _start(self, request: _Request) -> None:
        asked = request.asked
        if not self._running:
            self._idle.clear()
        request.begun_at = time.perf_counter_ns()
        self._running.add(request)
        if asked.deadline is not None:
            self._alarms.set(request, asked.deadline)
        request.task = _start(self._run(request), self._loop)

    async def _run(self, request: _Request) -> None:
        asked = request.asked
        asked.is_begun = True
        try:
            answer = await self._dispatch.carry_out(asked)
            nanoseconds = time.perf_counter_ns() - request.begun_at
            if isinstance(answer, Refused):
                request.endpoint.count(answer, nanoseconds)
                if answer.data is not None:
                    await self._send_error(request.reply, answer)
            else:
                request.endpoint.nanoseconds += nanoseconds
                if answer:
                    self._bytes_sent += len(answer)
                    try:
                        await self._publish(request.reply, answer)
                    except Exception as error:  # nats-py's have no base but this
                        self._log_unsent(error)
        finally:
            self._done(request)

    def _done(self, request: _Request) -> None:
        self._running.discard(request)
        self._due.pop(request.reply, None)
        if request.asked.deadline is not None:
            self._alarms.unset(request)
        if self._held:
            if not self._is_going_on:
                self._is_going_on = True
                self._loop.call_soon(self._take_held)
        elif not self._running:
            self._idle.set()

    def _take_held(self) -> None:
        self._is_going_on = False
        for _ in range(MESSAGES_PER_TURN):
            if not self._held or len(self._running) >= self._max_requests:
                return
            following = self._held.popleft()
            self._held_bytes -= following.size
            self._start(following)
        if self._held and not self._is_going_on:
            self._is_going_on = True
            self._loop.call_soon(self._take_held)

    async def _send_error(self, reply: str, error: Refused) -> None:
        assert error.data is not None
        self._bytes_sent += len(error.data)
        number = _NUMBERS.get(error.code, _NUMBER_OF_OTHERS)
        headers: dict[str, str] | None = {_ERROR_CODE: number, _ERROR: _told(error)}
        if len(error.data) + _MOST_HEADER_BYTES > self._max_bytes():  # they count as well
            headers = None
        try:
            await self._publish(reply, error.data, headers=headers)
        except Exception as failure:
            self._log_unsent(failure)

    def _log_unsent(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        told = "an answer could not be sent: %s"
        log(logging.WARNING, "answer_lost", self._owner, told, reason)

    async def _refuse(self, request: _Request, refusal: Refusal) -> None:
        refused = self._dispatch.refuse(request.asked, refusal)
        request.endpoint.count(refused, 0)
        if refused.data is not None:
            await self._send_error(request.reply, refused)

    async def _refuse_busy(self, request: _Request) -> None:
        if not self._has_warned:
            self._has_warned = True
            told = "commands are refused with BUSY: max_held_bytes"
            log(logging.WARNING, "busy", self._owner, told, limit="max_held_bytes")
        reason = "too much waits to be carried out; it was not carried out, try again later"
        await self._refuse(request, (BUSY, reason, b""))

    async def _refuse_violation(self, message: Msg, endpoint: Endpoint, reason: str) -> None:
        self._log_violation(message, reason)
        refused = Refused(b"", "400", f"not one box of AMP: {reason}")
        endpoint.count(refused, 0)
        if message.reply:
            await self._send_error(message.reply, refused)

    def _log_violation(self, message: Msg, reason: str) -> None:
        self._violations += 1
        level = logging.DEBUG if self._violations > 1 else logging.WARNING
        told = "a message at %s is not one box of AMP: %s (others: level DEBUG)"
        subject = printable(message.subject.encode())
        log(level, "violation", self._owner, told, subject, reason)

    async def take_cancel(self, message: Msg) -> None:
        """Take a message that says which call nobody waits for any more: if it waits or runs here,
        it is cancelled; if not, it is never begun."""
        self._bytes_received += len(message.data)
        try:
            reply = cancelled_reply(message.data, self._max_keys)
        except ProtocolViolationError as error:
            self._log_violation(message, error.reason)
            return
        request = self._due.get(reply)
        if request is None:
            self._cancelled_before.add(reply)
        else:
            self._end(request, CANCELLED)

    def _expire(self, request: _Request) -> None:
        self._end(request, TIMEOUT)

    def _end(self, request: _Request, verdict: bytes | None) -> None:
        asked = request.asked
        if asked.is_answered or asked.verdict is not None or self._dispatch.is_cancelling:
            return  # a second reason must not cancel what it does in its `finally`
        asked.verdict = verdict
        if asked.is_begun and request.task is not None:
            request.task.cancel()

    def close(self) -> None:
        """Refuse what comes from now on; what runs or waits goes on."""
        self._is_closing = True

    def cancel(self) -> None:
        """Cancel the responders that run, and refuse what waits and what comes."""
        self.close()
        for request in [*self._held, *self._running]:
            self._end(request, None if request.asked.is_begun else CLOSING)
        self._dispatch.is_cancelling = True

    async def wait_idle(self) -> None:
        """Wait until nothing runs and nothing waits: all is answered."""
        await self._idle.wait()
        self._alarms.clear()


if sys.version_info >= (3, 12):

    def _start(
        coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        # A responder that never has to wait is done without a turn of the event loop.
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
else:

    def _start(
        coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[None]:
        return asyncio.Task(coroutine, loop=loop)


def _told(refused: Refused) -> str:
    """Give what NATS micro is told of an error: the beginning, in one line."""
    text = f"{refused.code}: {refused.description[:_SHOWN_CHARACTERS]}"
    return printable(text.encode("utf-8", "backslashreplace"))[:_SHOWN_CHARACTERS]
