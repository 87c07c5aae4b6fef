"""One ask and its one answer, where each is a box that travels alone.

Rule of this module: every ask is answered exactly once, whatever becomes of its responder, and the
answer tells nothing that isn't declared. It knows of boxes and responders, and nothing of what
carries them; there is no connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from typed_amp.box import TIMEOUT, encode_pairs, printable
from typed_amp.deadlines import AMBIENT_DEADLINE
from typed_amp.dialogue import Dialogue
from typed_amp.errors import DecodeError, TooLongError
from typed_amp.refusals import (
    UNKNOWN_ERROR,
    declared_error,
    ended,
    invalid,
    log_failure,
    undeclared_error,
    unhandled,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from typed_amp.dialogue import Asked
    from typed_amp.log import Named
    from typed_amp.refusals import Refusal
    from typed_amp.router import Responder, Router

__all__ = ["LENGTH", "LIMIT", "TOO_LONG", "Dispatch", "Refused"]

TOO_LONG: Final = b"TOO_LONG"
"""The `_error_code` of an answer that was too long for what carries it."""

LENGTH: Final = b"length"
LIMIT: Final = b"limit"
"""The keys in which such an error says how long it was, and how long it may be."""


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
        is_cancelling: whether the responders that run are cancelled since this side is closing.
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
        self.is_cancelling: bool = False

    async def carry_out(self, asked: Asked) -> bytes | Refused:
        """Run the responder of an ask, in the task that runs now, which is for nothing else.

        Whoever cancels the task says before, in `asked.verdict` or `is_cancelling`, why. The ask
        is answered all the same.

        Returns:
            The box of the answer, empty if none is wanted; or the error.
        """
        if asked.deadline is not None:
            if asked.verdict is None and asked.deadline <= self._time():
                asked.verdict = TIMEOUT
            AMBIENT_DEADLINE.set(asked.deadline)
        if asked.verdict is not None:
            return self.refuse(asked, ended(asked.verdict))
        responder = self._router.find(asked.name)
        if responder is None:
            return self.refuse(asked, unhandled(asked))
        try:
            command = responder.signature.arguments.decode(asked.box)
        except DecodeError as error:
            return self.refuse(asked, invalid(error, has_details=True))
        try:
            answer = await responder.function(command)
        except (Exception, asyncio.CancelledError) as error:
            return self.refuse(asked, self._failed(responder, asked, error))
        return self._answer(responder, asked, answer)

    def refuse(self, asked: Asked, refusal: Refusal) -> Refused:
        """Answer an ask with an error."""
        code, description, fields = refusal
        # At most four bytes for each character: so the rest of the box has half of the room.
        data = self.dialogue.error(asked, code, description[: self._limit() // 8], fields)
        return Refused(data, printable(code[:100]), description)

    def _answer(self, responder: Responder, asked: Asked, answer: Any) -> bytes | Refused:
        signature = responder.signature
        try:
            data = signature.encode_answer(answer, self.dialogue.answer_head(asked))
        except Exception as error:
            # Not as a declared error, even if the command declares ValueErrors.
            log_failure(self._owner, asked, error)
            return self.refuse(asked, UNKNOWN_ERROR)
        if len(data) > self._limit() and asked.tag is not None:
            too_long = self._too_long(f"the answer to {signature.title}", len(data))
            log_failure(self._owner, asked, too_long)
            if TOO_LONG in signature.error_types:  # it would be taken for another
                return self.refuse(asked, UNKNOWN_ERROR)
            fields = {LENGTH: b"%d" % too_long.length, LIMIT: b"%d" % too_long.limit}
            return self.refuse(asked, (TOO_LONG, too_long.rule, encode_pairs(fields)))
        return data if self.dialogue.answered(asked) else b""

    def _failed(self, responder: Responder, asked: Asked, error: BaseException) -> Refusal:
        signature = responder.signature
        declared = signature.declared(error)
        if declared is None:
            is_ended = self.is_cancelling or asked.verdict is not None
            return undeclared_error(self._owner, asked, error, is_ended=is_ended)
        refusal = declared_error(self._owner, asked, error, signature, declared)
        length = len(refusal[2])
        if length > self._limit() // 4:  # the description has its share
            what = f"an error of {signature.title}"
            log_failure(self._owner, asked, self._too_long(what, length))
            return UNKNOWN_ERROR
        return refusal
