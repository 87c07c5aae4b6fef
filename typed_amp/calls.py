"""What this side asks, from the asking to the answer.

Rule of this module: whoever asks is told, once, what became of it: the answer, or why there is
none. What gives up waiting leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from typed_amp.alarms import Alarms
from typed_amp.box import CLOSING, DEADLINE, ERROR
from typed_amp.built_in import Cancel
from typed_amp.deadlines import encode_deadline, time_for
from typed_amp.descriptors import close_descriptors
from typed_amp.errors import CallTimeoutError, ConnectionLostError, RemoteAmpError, TooLongError
from typed_amp.waiting import Attached, Timed, Waiter, resolve, wait, wait_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from typed_amp.box import Box
    from typed_amp.command import Command
    from typed_amp.dialogue import Answered
    from typed_amp.link import Link

__all__ = ["Calls", "too_long_box"]

_CANCEL: Final = Cancel.__amp_signature__()

_DEADLINE_KEY: Final = b"\0%c%b" % (len(DEADLINE), DEADLINE)


class Calls:
    """The calls that one connection makes.

    Args:
        link: the inside of the connection.
    """

    __slots__ = (
        "_alarms",
        "_decoders",
        "_ended",
        "_link",
        "_untold",
        "is_ended",
        "is_refused",
        "made",
    )

    def __init__(self, link: Link[Any]) -> None:
        self._link = link
        self._untold: set[Waiter] | None = None
        """Those that want no answer, and wait for the transport."""
        self._decoders: dict[Waiter, Callable[[Box], Attached | Exception]] | None = None
        """Of those whose answer is more than its box."""
        self._alarms: Alarms[Timed] | None = None
        """Of those that don't wait for ever, once there are any."""
        self.made: int = 0
        """How many there were."""
        self.is_ended: bool = False
        """Whether every call fails from now on."""
        self.is_refused: bool = False
        """Whether the peer has said that it refuses what is asked from now on."""
        self._ended: asyncio.Event | None = None

    def ask(
        self,
        title: str,
        head: bytes,
        encode: Callable[[Any, bytes], bytes],
        value: Any,
        seconds: float | None,
    ) -> Coroutine[Any, Any, Box]:
        """Ask for something; what it returns waits for the answer, or the error: its box.

        Args:
            title: the command's name, for messages.
            head: the pair with the command's name, already written.
            encode: writes the value and the end of the box behind pairs already written.
            value: the command.
            seconds: how long to wait, for the transport too; from `begin_call`.

        Raises:
            CallTimeoutError: the time is over.
            ConnectionLostError: the connection has ended meanwhile.
            RemoteAmpError: the peer is closing; nothing was sent.
            TooLongError: the box is longer than it may be; nothing was sent.
            Exception: what `encode` raises; nothing was sent.
        """
        link = self._link
        dialogue = link.dialogue
        tag = dialogue.new_tag()
        head = _ask_head(tag, head if seconds is None else self._with_deadline(head, seconds))
        data = self._encoded(title, encode, value, head)
        waiter: Waiter = link.loop.create_future()
        dialogue.ask(tag, waiter)
        # A call that is alone gains nothing by waiting for others to be sent along.
        link.writer.write_ask(waiter, data, is_last=dialogue.pending == 1)
        link.asks()
        return wait(self, title, waiter, tag, seconds)

    def turn(self, title: str) -> Coroutine[Any, Any, object]:
        """Give what waits until something could be written.

        Raises:
            ConnectionLostError: the connection has ended, or did so meanwhile.
            RemoteAmpError: the peer is closing.
        """
        self._check_open(title)
        return self.tell(title, b"", _nothing, None, None)

    def ask_alone(
        self,
        title: str,
        head: bytes,
        encode: Callable[[Any, bytes], bytes],
        value: Any,
        on_written: Callable[[bytes], None],
    ) -> Coroutine[Any, Any, Box]:
        """Ask for something behind which nothing may be written until the answer is here.

        To be called when it is this call's `turn`. Everything else is as with `ask`, but that
        `on_written` is called with the ask's tag before anything else can be written.
        """
        self._check_open(title)
        tag = self._link.dialogue.new_tag()
        data = self._encoded(title, encode, value, _ask_head(tag, head))
        waiter: Waiter = self._link.loop.create_future()
        self._link.dialogue.ask(tag, waiter)
        self._link.writer.write(data)
        on_written(tag)
        self._link.asks()
        return wait(self, title, waiter, tag, None)

    def tell(
        self,
        title: str,
        head: bytes,
        encode: Callable[[Any, bytes], bytes],
        value: Any,
        seconds: float | None,
    ) -> Coroutine[Any, Any, object]:
        """Send something that wants no answer; what this returns waits until it is on its way.

        Everything else is as with `ask`.
        """
        data = self._encoded(title, encode, value, head)
        waiter: Waiter = self._link.loop.create_future()
        if self._link.writer.write_ask(waiter, data, partial(resolve, waiter, {})):
            waiter.set_result({})
        else:
            self._note_untold(waiter)
        return wait_aside(self, title, waiter, None, seconds)

    def in_turn(
        self,
        title: str,
        head: bytes,
        encode: Callable[[Any, bytes], bytes],
        value: Any,
        seconds: float | None,
        *,
        requires_answer: bool = True,
        decode: Callable[[Box], Attached | Exception] | None = None,
    ) -> Coroutine[Any, Any, Box | Attached]:
        """Send something whose bytes depend on when they are written.

        The same as `ask`, or as `tell` if no answer is required, but that the value is written as
        bytes when it is its turn to go out.

        Args:
            title: the command's name, for messages.
            head: the pair with the command's name, already written.
            encode: writes the value; nothing else is written between that and its box.
            value: the command.
            seconds: how long to wait; from `begin_call`.
            requires_answer: whether to wait for an answer.
            decode: reads the answer when it arrives, before anything else is read.
        """
        waiter: Waiter = self._link.loop.create_future()
        tag = None
        if requires_answer:
            tag = self._link.dialogue.new_tag()
            head = _ask_head(tag, head if seconds is None else self._with_deadline(head, seconds))
            self._link.dialogue.ask(tag, waiter)
        else:
            self._note_untold(waiter)
        if decode is not None:
            if self._decoders is None:
                self._decoders = {}
            self._decoders[waiter] = decode

        def write() -> None:
            try:
                data = self._encoded(title, encode, value, head)
            except Exception as error:
                if tag is not None:
                    self._link.dialogue.abandon(tag, is_sent=False)
                resolve(waiter, error)
                return
            self._link.writer.write(data)
            if tag is None:
                resolve(waiter, {})

        if self._link.writer.write_ask(waiter, b"", write):
            write()
        if tag is not None:
            self._link.asks()
        return wait_aside(self, title, waiter, tag, seconds)

    def _note_untold(self, waiter: Waiter) -> None:
        if self._untold is None:
            self._untold = set()
        self._untold.add(waiter)

    def forget(self, waiter: Waiter) -> None:
        """Nobody waits for something that was told, or asked in turn, any more."""
        if self._untold is not None:
            self._untold.discard(waiter)
        if self._decoders is not None:
            self._decoders.pop(waiter, None)

    def ask_aside(self, command: Command[Any], tag: bytes | None = None) -> Waiter:
        """Ask a built-in command, at once, whoever else waits for the transport.

        Args:
            command: the command, one that requires an answer.
            tag: the tag, if it is to be a certain one.

        Returns:
            What will have the answer's box as its result, or a `ConnectionLostError`.
        """
        signature = command.__amp_signature__()
        tag = tag or self._link.dialogue.new_tag()
        waiter: Waiter = self._link.loop.create_future()
        self._link.dialogue.ask(tag, waiter, is_aside=True)
        self._link.writer.write(signature.arguments.encode(command, _ask_head(tag, signature.head)))
        return waiter

    def answered(self, event: Answered[Waiter]) -> None:
        """Pass an answer on to the call that waits for it."""
        waiter, box = event
        decode = self._decoders.pop(waiter, None) if self._decoders else None
        if decode is None or ERROR in box:
            if not waiter.done():
                waiter.set_result(box)
            return
        result = decode(box)
        if not waiter.done():
            waiter.set_result(result)
        elif isinstance(result, Attached):  # the call gave up in this very turn
            close_descriptors(result.descriptors)

    def refused(self) -> None:
        """The peer refuses what it is asked from now on, and so what was not sent yet."""
        self.is_refused = True
        unsent: list[Any] = self._link.writer.held()
        for waiter in unsent:
            resolve(waiter, self._refusal())

    def end(self) -> None:
        """Wake everybody whose call can't succeed any more; later calls fail at once.

        The writer must not have forgotten yet whose calls it holds back: those were never sent.
        """
        self.is_ended = True
        if self._ended is not None:
            self._ended.set()
        for waiter in [*self._link.dialogue.end(), *(self._untold or ())]:
            lost = ConnectionLostError()  # `wait` has it say why
            lost.was_sent = not self._link.writer.withdraw(waiter)
            resolve(waiter, lost)
        if self._alarms is not None:
            self._alarms.clear()

    @property
    def ended(self) -> asyncio.Event:
        """What is set when every call fails."""
        if self._ended is None:
            self._ended = asyncio.Event()
            if self.is_ended:
                self._ended.set()
        return self._ended

    def _encoded(
        self, title: str, encode: Callable[[Any, bytes], bytes], value: Any, head: bytes
    ) -> bytes:
        data = encode(value, head)
        limit = self._link.settings.limits.max_box_bytes
        if len(data) > limit:
            raise too_long_box(title, len(data), limit)
        return data

    def expire_in(self, seconds: float, waiter: Waiter, title: str) -> Timed:
        """Have a call fail when its time is over, unless `over` is told of it before."""
        if self._alarms is None:
            self._alarms = Alarms(self._link.loop, self._expire)
        timed = waiter, title, seconds
        self._alarms.set(timed, self._link.loop.time() + seconds)
        return timed

    def over(self, timed: Timed) -> None:
        """The call is over, whatever became of it."""
        if self._alarms is not None:
            self._alarms.unset(timed)

    def _expire(self, timed: Timed) -> None:
        waiter, title, seconds = timed
        resolve(waiter, self.timed_out(title, seconds))

    def lost(self, title: str, *, was_sent: bool) -> ConnectionLostError:
        """Make the error of a call that can't be answered any more."""
        error = self._link.lost(title)
        error.was_sent = was_sent
        return error

    def give_up(self, waiter: Waiter, tag: bytes | None) -> None:
        """Nobody waits for an answer any more."""
        was_held = self._link.writer.withdraw(waiter)
        if tag is None or not self._link.dialogue.abandon(tag, is_sent=not was_held):
            return
        if self._link.features.has_cancel and not self.is_ended:
            self._link.writer.write(_CANCEL.arguments.encode(Cancel(ask=tag), _CANCEL.head))

    def begin_call(self, title: str, timeout: float | None) -> float | None:
        """Count a call, unless it can't be answered any more; give the seconds that it has.

        Args:
            title: the command's name, for messages.
            timeout: what the call was given; see `time_for`.

        Returns:
            The seconds; None for ever.

        Raises:
            ConnectionLostError: the connection has ended.
            RemoteAmpError: the peer is closing.
            CallTimeoutError: no time is left.
        """
        if self.is_ended or self.is_refused:
            self._check_open(title)
        self.made += 1
        seconds = time_for(timeout, self._link.settings.call_timeout)
        if seconds is not None and seconds <= 0:
            raise self.timed_out(title, seconds)
        return seconds

    def _check_open(self, title: str) -> None:
        if self.is_ended:
            raise self.lost(title, was_sent=False)
        if self.is_refused:
            raise self._refusal()

    def timed_out(self, title: str, seconds: float) -> CallTimeoutError:
        """Make the error of a call that was not answered in time."""
        return CallTimeoutError(title, seconds, self._link.peer)

    def _refusal(self) -> RemoteAmpError:
        return RemoteAmpError(CLOSING.decode(), "the peer has said that it is closing")

    def _with_deadline(self, head: bytes, seconds: float) -> bytes:
        if not self._link.features.has_deadlines:
            return head
        deadline = encode_deadline(seconds)
        return b"%b\0%c%b%b" % (_DEADLINE_KEY, len(deadline), deadline, head)


def too_long_box(what: str, length: int, limit: int) -> TooLongError:
    """Say that a box as a whole is too long; a peer with the same limits would close for it."""
    return TooLongError(
        what,
        length,
        limit,
        f"Limits.max_box_bytes allows at most {limit:,} in one box. Raise it on both sides, or send"
        " less at once",
    )


def _nothing(_value: Any, _head: bytes) -> bytes:
    return b""


def _ask_head(tag: bytes, head: bytes) -> bytes:
    return b"\0\4_ask\0%c%b%b" % (len(tag), tag, head)
