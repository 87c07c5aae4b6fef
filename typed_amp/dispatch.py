"""One ask and its one answer, where each is a box that travels alone.

Rule of this module: every ask is answered exactly once, whatever becomes of its responder, and the
answer tells nothing that isn't declared. It knows of boxes and responders, and nothing of what
carries them; there is no connection.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from typed_amp.box import (
    CANCELLED,
    CLOSING,
    INVALID_ARGUMENTS,
    NOT_ALLOWED,
    TIMEOUT,
    UNHANDLED,
    UNKNOWN,
    encode_pairs,
    printable,
)
from typed_amp.deadlines import AMBIENT_DEADLINE
from typed_amp.details import ERROR_DETAILS, encode_details
from typed_amp.dialogue import Dialogue
from typed_amp.errors import DecodeError, NotAllowedError, TooLongError
from typed_amp.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from typed_amp.dialogue import Asked
    from typed_amp.log import Named
    from typed_amp.router import Responder, Router

__all__ = ["LENGTH", "LIMIT", "TOO_LONG", "Dispatch", "Refused"]

TOO_LONG: Final = b"TOO_LONG"
"""The `_error_code` of an answer that was too long for what carries it."""

LENGTH: Final = b"length"
LIMIT: Final = b"limit"
"""The keys in which such an error says how long it was, and how long it may be."""

_REASONS: Final = {
    CANCELLED: "its responder was cancelled, since this side is closing",
    CLOSING: "this side is closing; it was not carried out",
    TIMEOUT: "the caller's time is over",
}


class Refused(NamedTuple):
    """An error that an ask is answered with.

    Attributes:
        data: the box; None if no answer is wanted.
        code: its code.
        description: what it says.
    """

    data: bytes | None
    code: str
    description: str


class Dispatch:
    """Carries out what is asked, by a router.

    Args:
        owner: what log records call who answers.
        router: has the responders. None of them takes a connection or has guards.
        limit: gives the bytes that an answer may have.
        too_long: makes the error of one that is longer.

    Attributes:
        dialogue: makes asks of boxes, and counts what they were answered with.
    """

    def __init__(
        self,
        owner: Named,
        router: Router[Any],
        limit: Callable[[], int],
        too_long: Callable[[str, int], TooLongError],
    ) -> None:
        self._time = asyncio.get_running_loop().time
        self._owner = owner
        self._router = router
        self._limit = limit
        self._too_long = too_long
        self.dialogue: Dialogue[Any] = Dialogue()

    async def carry_out(self, asked: Asked) -> bytes | Refused:
        """Run the responder of an ask, in the task that runs now, which is for nothing else.

        Whoever cancels the task says before, in `asked.verdict`, why. It is answered all the same.

        Returns:
            The box of the answer, empty if none is wanted; or the error.
        """
        if asked.deadline is not None:
            if asked.verdict is None and asked.deadline <= self._time():
                asked.verdict = TIMEOUT
            AMBIENT_DEADLINE.set(asked.deadline)
        if asked.verdict is not None:
            return self._verdict(asked, asked.verdict)
        responder = self._router.find(asked.name)
        if responder is None:
            return self.refuse(asked, UNHANDLED, f"Unhandled Command: '{asked.shown_name}'")
        try:
            command = responder.signature.arguments.decode(asked.box)
        except DecodeError as error:
            details = encode_pairs({ERROR_DETAILS: encode_details(error.errors)})
            return self.refuse(asked, INVALID_ARGUMENTS, str(error), details)
        try:
            answer = await responder.function(command)
        except (Exception, asyncio.CancelledError) as error:
            return self._failed(responder, asked, error)
        return self._answer(responder, asked, answer)

    def refuse(self, asked: Asked, code: bytes, description: str, fields: bytes = b"") -> Refused:
        """Answer an ask with an error.

        Args:
            asked: the ask.
            code: the `_error_code`.
            description: the `_error_description`.
            fields: further pairs, already written.
        """
        # At most four bytes for each character: so the rest of the box has half of the room.
        data = self.dialogue.error(asked, code, description[: self._limit() // 8], fields)
        return Refused(data, printable(code[:100]), description)

    def _answer(self, responder: Responder, asked: Asked, answer: Any) -> bytes | Refused:
        signature = responder.signature
        try:
            data = signature.encode_answer(answer, self.dialogue.answer_head(asked))
        except Exception as error:
            # Not as a declared error, even if the command declares ValueErrors.
            self._log_failure(asked, error)
            return self.refuse(asked, UNKNOWN, "Unknown Error")
        if len(data) > self._limit() and asked.tag is not None:
            too_long = self._too_long(f"the answer to {signature.title}", len(data))
            self._log_failure(asked, too_long)
            if TOO_LONG in signature.error_types:  # it would be taken for another
                return self.refuse(asked, UNKNOWN, "Unknown Error")
            fields = {LENGTH: b"%d" % too_long.length, LIMIT: b"%d" % too_long.limit}
            return self.refuse(asked, TOO_LONG, too_long.rule, encode_pairs(fields))
        return data if self.dialogue.answered(asked) else b""

    def _failed(self, responder: Responder, asked: Asked, error: BaseException) -> Refused:
        signature = responder.signature
        declared = signature.declared(error)
        if declared is None:
            if isinstance(error, NotAllowedError) and not error.is_received:
                return self.refuse(asked, NOT_ALLOWED, error.description)
            if isinstance(error, asyncio.CancelledError) and asked.verdict is not None:
                return self._verdict(asked, asked.verdict)
            self._log_failure(asked, error)
            return self.refuse(asked, UNKNOWN, "Unknown Error")
        if asked.tag is None:  # who asked is told nothing of it
            self._log_failure(asked, error)
        try:
            description, fields = signature.error_parts(error)
            if len(fields) > self._limit() // 4:  # the description has its share
                raise self._too_long(f"an error of {signature.title}", len(fields))
        except Exception as failure:
            self._log_failure(asked, failure)
            return self.refuse(asked, UNKNOWN, "Unknown Error")
        return self.refuse(asked, declared.code, description, fields)

    def _verdict(self, asked: Asked, code: bytes) -> Refused:
        return self.refuse(asked, code, _REASONS[code])

    def _log_failure(self, asked: Asked, error: BaseException) -> None:
        name = asked.shown_name
        told = "the responder of %s failed"
        event = "responder_failed"
        log(logging.ERROR, event, self._owner, told, name, error=error, command=name)
