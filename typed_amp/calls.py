"""What this side asks, from the asking to the answer.

Rule of this module: whoever asks is told, once, what became of it: the answer, or why there is
none. What gives up waiting leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from typed_amp.errors import AmpError, CallTimeoutError, ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typed_amp.box import Box
    from typed_amp.dialogue import Answered, Dialogue
    from typed_amp.writer import BoxWriter

__all__ = ["Calls", "Waiter", "resolve"]

Waiter: TypeAlias = "asyncio.Future[Box | AmpError]"
"""What a call awaits: the answer's box, or why there is none.

A result in both cases: an exception that nobody is left to take would be logged as lost.
"""


class Calls:
    """The calls that one connection makes.

    Args:
        dialogue: gives tags, and knows which answer belongs to which ask.
        lost: makes the error of a call that can't be answered any more, given the call's name.
        on_ask: called when an answer is waited for.
    """

    def __init__(
        self,
        dialogue: Dialogue[Waiter],
        *,
        lost: Callable[[str], ConnectionLostError],
        on_ask: Callable[[], None],
    ) -> None:
        self._dialogue = dialogue
        self._lost = lost
        self._on_ask = on_ask
        self._loop = asyncio.get_running_loop()
        self._writer: BoxWriter
        self._untold: set[Waiter] = set()
        """Those that want no answer, and wait for the transport."""
        self.is_ended: bool = False
        """Whether every call fails from now on."""

    def begin(self, writer: BoxWriter) -> None:
        """There is a transport to write to."""
        self._writer = writer

    async def ask(
        self,
        title: str,
        head: bytes,
        encode: Callable[[Any, bytes], bytes],
        value: Any,
        timeout: float | None,
    ) -> Box:
        """Ask for something and wait for the answer, or the error: its box.

        Args:
            title: the command's name, for messages.
            head: the pair with the command's name, already written.
            encode: writes the value and the end of the box behind pairs already written.
            value: the command.
            timeout: seconds to wait, those for the transport included; None for ever.

        Raises:
            CallTimeoutError: the time is over.
            ConnectionLostError: the connection has ended, or did so meanwhile.
            Exception: what `encode` raises; nothing was sent.
        """
        if self.is_ended:
            raise self._lost(title)
        dialogue = self._dialogue
        tag = dialogue.new_tag()
        data = encode(value, _ask_head(tag, head))
        waiter: Waiter = self._loop.create_future()
        dialogue.ask(tag, waiter)
        self._writer.write_ask(waiter, data)
        self._on_ask()
        return await self._wait(title, waiter, tag, timeout)

    async def turn(self, title: str) -> None:
        """Wait until something could be written now.

        Raises:
            ConnectionLostError: the connection has ended, or did so meanwhile.
        """
        await self.tell(title, b"", _nothing, None, None)

    async def ask_alone(
        self,
        title: str,
        head: bytes,
        encode: Callable[[Any, bytes], bytes],
        value: Any,
        on_written: Callable[[bytes], None],
    ) -> Box:
        """Ask for something behind which nothing may be written until the answer is here.

        To be called when it is this call's `turn`. Everything else is as with `ask`, but that
        `on_written` is called with the ask's tag before anything else can be written.
        """
        if self.is_ended:
            raise self._lost(title)
        tag = self._dialogue.new_tag()
        data = encode(value, _ask_head(tag, head))
        waiter: Waiter = self._loop.create_future()
        self._dialogue.ask(tag, waiter)
        self._writer.write(data)
        on_written(tag)
        self._on_ask()
        return await self._wait(title, waiter, tag, None)

    async def tell(
        self,
        title: str,
        head: bytes,
        encode: Callable[[Any, bytes], bytes],
        value: Any,
        timeout: float | None,
    ) -> None:
        """Send something that wants no answer; returns when it is on its way.

        Everything else is as with `ask`.
        """
        if self.is_ended:
            raise self._lost(title)
        data = encode(value, head)
        waiter: Waiter = self._loop.create_future()
        if self._writer.write_ask(waiter, data, partial(resolve, waiter, {})):
            return
        self._untold.add(waiter)
        try:
            await self._wait(title, waiter, None, timeout)
        finally:
            self._untold.discard(waiter)

    def answered(self, event: Answered[Waiter]) -> None:
        """Pass an answer on to the call that waits for it."""
        resolve(event.waiter, event.box)

    def end(self) -> None:
        """Wake everybody whose call can't succeed any more; later calls fail at once."""
        self.is_ended = True
        lost = ConnectionLostError()  # `_wait` says why
        for waiter in [*self._dialogue.end(), *self._untold]:
            resolve(waiter, lost)

    async def _wait(
        self, title: str, waiter: Waiter, tag: bytes | None, timeout: float | None
    ) -> Box:
        timer = None
        if timeout is not None:
            error = CallTimeoutError(title, timeout)
            timer = self._loop.call_later(timeout, resolve, waiter, error)
        try:
            result = await waiter
        except BaseException:
            self._give_up(waiter, tag)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if type(result) is dict:
            return result
        self._give_up(waiter, tag)
        raise result if isinstance(result, CallTimeoutError) else self._lost(title)

    def _give_up(self, waiter: Waiter, tag: bytes | None) -> None:
        was_held = self._writer.withdraw(waiter)
        if tag is not None:
            self._dialogue.abandon(tag, is_sent=not was_held)


def resolve(waiter: Waiter, result: Box | AmpError) -> None:
    """Wake a call, unless it is awake."""
    if not waiter.done():
        waiter.set_result(result)


def _nothing(_value: Any, _head: bytes) -> bytes:
    return b""


def _ask_head(tag: bytes, head: bytes) -> bytes:
    return b"\0\4_ask\0%c%b%b" % (len(tag), tag, head)
