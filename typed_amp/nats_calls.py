"""What a client asks over NATS, from the asking to the answer.

Rule of this module: every call ends: with its answer, or with an error that says why there is none.
It is sent again only if nobody has carried it out for certain, or if its command may be carried out
twice.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING, Any, Final, cast

from typed_amp.alarms import Alarms
from typed_amp.box import (
    ANSWER,
    BUSY,
    CANCELLED,
    CLOSING,
    ERROR,
    ERROR_CODE,
)
from typed_amp.counters import Counters
from typed_amp.deadlines import encode_deadline, time_for
from typed_amp.dialogue import Answered, Dialogue
from typed_amp.errors import (
    CallTimeoutError,
    ConnectionLostError,
    DecodeError,
    NoRespondersError,
    ProtocolViolationError,
)
from typed_amp.message import box_of
from typed_amp.nats_cancels import Cancels

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from nats.aio.msg import Msg

    from typed_amp.backoff import Backoff
    from typed_amp.box import Box
    from typed_amp.nats_link import NatsLink

__all__ = ["NatsCalls"]

_MOST_RESEND_AFTER: Final = 30.0
"""The most seconds between two times that a call is sent."""

_NOBODY: Final = "503"
"""The status of what a server answers where nobody has subscribed."""


class _Pending:
    """A call that waits for its answer."""

    __slots__ = ("is_idempotent", "is_under_way", "result", "tag", "waiter")

    def __init__(self, tag: bytes, waiter: asyncio.Future[None], *, is_idempotent: bool) -> None:
        self.tag = tag
        self.waiter = waiter
        self.is_idempotent = is_idempotent
        self.is_under_way = False
        """Whether somebody may be carrying it out."""
        self.result: Box | Exception | None = None

    def expect_another(self) -> None:
        """Forget the result, if there is one: it was no answer."""
        if self.result is not None:
            self.result = None
            self.is_under_way = False
        if self.waiter.done():
            self.waiter = self.waiter.get_loop().create_future()

    def wake(self, result: Box | Exception | None = None) -> None:
        """Go on: with a result, or to see what is to be done without."""
        if self.result is None:
            self.result = result
        if not self.waiter.done():
            self.waiter.set_result(None)


class NatsCalls:
    """The calls that one client makes.

    Args:
        link: the connection to NATS.
        service: who is called.
        call_timeout: the seconds of calls that are given none; None for ever.
        resend_after: after how many seconds a call that may be sent again is; None for never.
        waits: whether calls wait where nobody answers.
        backoff: how long they wait, there and where somebody is busy.
    """

    def __init__(
        self,
        link: NatsLink,
        service: str,
        *,
        call_timeout: float | None,
        resend_after: float | None,
        waits: bool,
        backoff: Backoff,
    ) -> None:
        self._link = link
        self._client = link.client
        self._call_timeout = call_timeout
        self._resend_after = resend_after
        self._waits = waits
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self._dialogue: Dialogue[_Pending] = Dialogue()
        self._alarms: Alarms[_Pending] = Alarms(self._loop, _Pending.wake)
        self._cancels = Cancels(link, service)
        self._inbox = ""
        self._made = 0
        self._bytes_received = 0
        self._bytes_sent = 0
        self.is_ended: bool = False
        """Whether every call fails from now on."""

    async def begin(self) -> None:
        """There is a connection: take answers from now on."""
        self._inbox = f"{self._client.new_inbox()}."
        await self._client.subscribe(f"{self._inbox}*", cb=self._answered)

    @property
    def counters(self) -> Counters:
        """What happened up to now, in numbers."""
        dialogue = self._dialogue
        return Counters(
            calls=self._made,
            calls_in_flight=dialogue.pending,
            call_errors=dict(dialogue.errors_received),
            late=dialogue.late,
            strays=dialogue.strays,
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
        )

    def begin_call(self, title: str, timeout: float | None) -> float | None:
        """Count a call, unless there is no answer to be had; give the seconds that it has.

        Raises:
            ConnectionLostError: all calls fail.
            CallTimeoutError: no time is left.
        """
        if self.is_ended:
            raise self._unavailable(title, was_sent=False)
        self._made += 1
        seconds = time_for(timeout, self._call_timeout)
        if seconds is not None and seconds <= 0:
            raise self.timed_out(title, seconds)
        return seconds

    async def tell(self, title: str, subject: str, data: bytes, seconds: float | None) -> None:
        """Send something that wants no answer.

        Raises:
            ConnectionLostError: there will be no connection any more.
            CallTimeoutError: the time is over.
            TooLongError: it is too long for the server.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._wait_up(title, was_sent=False)
                self._check_length(title, data)
                try:
                    await self._client.publish(subject, data)
                except Exception as error:
                    raise self._unavailable(title, was_sent=False) from error
        except TimeoutError:
            raise self.timed_out(title, seconds or 0.0) from None
        self._bytes_sent += len(data)

    async def ask(
        self,
        title: str,
        subject: str,
        head: bytes,
        encode: Callable[[Any, bytes], bytes],
        value: Any,
        *,
        seconds: float | None,
        is_idempotent: bool,
        declared: Container[bytes] = (),
    ) -> Box:
        """Ask, and ask again as long as that is right.

        Args:
            title: the command's name, for messages.
            subject: where to ask.
            head: the pair with the command's name, already written.
            encode: writes the value and the end of the box behind pairs already written.
            value: the command.
            seconds: how long to wait, for all of it; from `begin_call`.
            is_idempotent: whether the command may be carried out twice.
            declared: the codes of errors that the command declares.

        Returns:
            The box of the answer, or of the error.

        Raises:
            NoRespondersError: nobody answers there.
            ConnectionLostError: the connection went, or there will be none any more.
            CallTimeoutError: the time is over.
            TooLongError: it is too long for the server.
            Exception: what `encode` raises.

        When it is cancelled, who carries it out is told. A responder knows by itself when the time
        is over.
        """
        loop = self._loop
        dialogue = self._dialogue
        deadline = None if seconds is None else loop.time() + seconds
        left = seconds
        tag = dialogue.new_tag()
        head = b"\0\4_ask\0%c%b%b" % (len(tag), tag, head)
        alarms = self._alarms
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        cancelled = task.cancelling()
        reply = self._inbox + tag.decode()
        pending = _Pending(tag, loop.create_future(), is_idempotent=is_idempotent)
        dialogue.ask(tag, pending)
        sent = refusals = 0
        is_refused = False
        try:
            while True:
                delay: float | None = None
                if is_refused:  # nobody carries it out: later, then
                    refusals += 1
                    delay = self._backoff.delay(refusals, random.random())  # noqa: S311
                    pending.expect_another()
                    dialogue.ask(tag, pending)
                elif pending.result is None:
                    pending.expect_another()
                    if not self._client.is_connected:
                        await self._wait_up_until(title, deadline, was_sent=sent > 0)
                        if deadline is not None:
                            left = deadline - loop.time()
                        continue
                    data = encode(value, head if left is None else _with_deadline(head, left))
                    self._check_length(title, data)
                    pending.is_under_way = True
                    sent += 1
                    try:
                        await self._client.publish(subject, data, reply)
                    except Exception as error:  # nats-py's have no base but this
                        raise self._unavailable(title, was_sent=sent > 1) from error
                    self._bytes_sent += len(data)
                    if task.cancelling() > cancelled:
                        raise asyncio.CancelledError  # nats-py catches that while it has to wait
                    if is_idempotent and self._resend_after is not None:
                        delay = min(self._resend_after * 2 ** (sent - 1), _MOST_RESEND_AFTER)
                if left is not None and (delay is None or left < delay):
                    delay = left
                if delay is not None:
                    alarms.set(pending, loop.time() + delay)
                await pending.waiter
                result = pending.result
                is_refused = result is not None
                if isinstance(result, dict):
                    if ERROR not in result:
                        return result
                    code = result.get(ERROR_CODE, b"")
                    may_go_again = code in (BUSY, CLOSING) or (is_idempotent and code == CANCELLED)
                    if code in declared or not may_go_again:
                        return result
                elif isinstance(result, NoRespondersError):
                    if not self._waits:
                        raise _no_responders(title, subject, was_sent=sent > 1)
                elif isinstance(result, DecodeError):
                    raise result.within(f"the answer to {title}")
                elif result is not None:
                    raise self._unavailable(title, was_sent=pending.is_under_way)
                if deadline is not None and seconds is not None:
                    left = deadline - loop.time()
                    is_over = result is None and pending.is_under_way and not is_idempotent
                    if left <= 0 or is_over:  # a timer may be early by a trifle
                        raise self.timed_out(title, seconds)
        except TimeoutError as error:
            if isinstance(error, CallTimeoutError) or seconds is None:
                raise
            raise self.timed_out(title, seconds) from None
        except asyncio.CancelledError:
            if sent > refusals and pending.result is None:
                self._cancels.add(reply)
            raise
        finally:
            alarms.unset(pending)
            dialogue.abandon(tag, is_sent=sent > 0)

    async def _wait_up_until(self, title: str, deadline: float | None, *, was_sent: bool) -> None:
        async with asyncio.timeout_at(deadline):
            await self._wait_up(title, was_sent=was_sent)

    async def _wait_up(self, title: str, *, was_sent: bool) -> None:
        while not self._link.is_up:
            if self.is_ended:
                raise self._unavailable(title, was_sent=was_sent)
            await self._link.wait_up()

    def _check_length(self, title: str, data: bytes) -> None:
        if len(data) > self._client.max_payload:
            raise self._link.too_long(title, len(data))

    async def _answered(self, message: Msg) -> None:
        self._bytes_received += len(message.data)
        tag = message.subject[len(self._inbox) :].encode()
        headers = message.headers
        result: Box | Exception
        if headers and not message.data and headers.get("Status") == _NOBODY:
            result = NoRespondersError()  # `ask` has it say where
        else:
            try:
                answered = self._dialogue.receive(box_of(message.data, sys.maxsize))
                if isinstance(answered, Answered):
                    answered.waiter.wake(answered.box)
                return
            except ProtocolViolationError:
                pass
            result = DecodeError("not one box of AMP")
        answered = self._dialogue.receive({ANSWER: tag})
        if isinstance(answered, Answered):
            answered.waiter.wake(result)

    def lost(self) -> None:
        """The connection is gone, and answers with it; there will be another."""
        for pending in list(self._dialogue.end()):
            if pending.is_under_way and not pending.is_idempotent:
                self._give_up(pending)
                pending.wake(ConnectionLostError())  # `ask` has it say why
            else:
                self._dialogue.ask(pending.tag, pending)

    def back(self) -> None:
        """There is another connection: what may be sent again is."""
        for pending in list(self._dialogue.end()):
            self._dialogue.ask(pending.tag, pending)
            # nats-py says so a little late: some may have been sent on this very connection.
            if pending.is_idempotent or not pending.is_under_way:
                pending.wake()
        self._cancels.resume()

    def end(self) -> None:
        """Wake everybody: no call can succeed any more."""
        self.is_ended = True
        self._alarms.clear()
        for pending in self._dialogue.end():
            if pending.is_under_way:
                self._give_up(pending)
            pending.wake(ConnectionLostError())

    async def finish(self) -> None:
        """Wait until who carries something out knows that nobody waits for it any more."""
        await self._cancels.finish()

    def _give_up(self, pending: _Pending) -> None:
        self._cancels.add(self._inbox + pending.tag.decode())

    def timed_out(self, title: str, seconds: float) -> CallTimeoutError:
        """Make the error of a call that was not answered in time."""
        return CallTimeoutError(title, seconds, f"NATS at {self._link.where}")

    def _unavailable(self, title: str, *, was_sent: bool) -> ConnectionLostError:
        failure = self._link.failure
        if self.is_ended:
            reason = f"the connection to NATS at {self._link.where} "
            reason += f"has ended: {failure}" if failure else "is closed"
        else:
            reason = f"the connection to NATS at {self._link.where} was lost"
        error = ConnectionLostError(f"{title}: {reason}")
        error.__cause__ = failure
        error.was_sent = was_sent
        return error


def _with_deadline(head: bytes, seconds: float) -> bytes:
    value = encode_deadline(seconds)
    return b"%b\0\x09_deadline\0%c%b" % (head, len(value), value)


def _no_responders(title: str, subject: str, *, was_sent: bool) -> NoRespondersError:
    error = NoRespondersError(
        f"{title}: nobody answers at {subject}. Is a program running that serves this command of"
        " this service, and may it be reached by this user?"
    )
    error.was_sent = was_sent
    return error
