"""Asks and answers: which box means what, and who waits for it.

Rule of this module: no I/O. It is told what is asked and what arrived, and says what is to be
written. It imports neither asyncio nor pydantic, so that it can be fuzzed alone and used under any
transport.

A dialogue is symmetric: both sides ask, and both answer. Twisted's `BoxDispatcher` is the same
thing with a transport in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from typed_amp.box import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    MAX_VALUE_LENGTH,
    Box,
    encode_box,
    encode_pairs,
    printable,
)
from typed_amp.counters import count_code
from typed_amp.errors import ProtocolViolationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "Answered",
    "Asked",
    "Dialogue",
]

W = TypeVar("W")

_SHOWN_BYTES: Final = 200
"""How much of a command's name is shown."""


_NONE: Final[dict[bytes, Any]] = {}
"""The asks where none is pending: a dict that was emptied would keep the memory of what was in it.

Nothing is put into this one."""


class Asked:
    """The peer asks for something.

    Attributes:
        name: the command.
        tag: what the answer must carry, opaque bytes; None if the peer wants no answer.
        box: the whole box, for the arguments in it.
        is_answered: whether the dialogue has given out its answer.
        is_begun: for the owner of the dialogue: whether a responder runs for it.
        is_doomed: likewise: whether that was cancelled, or is to be after its first step.
        attachments: likewise: what came with it, and must be closed if no responder runs.
        deadline: likewise: until when somebody waits for the answer.
        verdict: likewise: with which code it is refused when its responder is cancelled.
    """

    __slots__ = (
        "attachments",
        "box",
        "deadline",
        "is_answered",
        "is_begun",
        "is_doomed",
        "name",
        "tag",
        "verdict",
    )

    def __init__(self, name: bytes, tag: bytes | None, box: Box) -> None:
        self.name: bytes = name
        self.tag: bytes | None = tag
        self.box: Box = box
        self.is_answered: bool = False
        self.is_begun: bool = False
        self.is_doomed: bool = False
        self.attachments: Sequence[int] = ()
        self.deadline: float | None = None
        self.verdict: bytes | None = None

    @property
    def shown_name(self) -> str:
        """The command's name, for people. Of one that is longer than any program's the beginning:
        escaping costs time."""
        return printable(self.name[:_SHOWN_BYTES])


class Answered(NamedTuple, Generic[W]):
    """The peer answers one of our asks.

    Attributes:
        waiter: what was given to `Dialogue.ask`.
        box: the answer, or the error if `_error` is in it.
    """

    waiter: W
    box: Box


class _Mishaps:
    """What went wrong in a dialogue, in numbers; see there."""

    __slots__ = ("errors_given", "errors_received", "late", "strays")

    def __init__(self) -> None:
        self.late: int = 0
        self.strays: int = 0
        self.errors_received: dict[str, int] = {}
        self.errors_given: dict[str, int] = {}


class Dialogue(Generic[W]):
    """One connection's asks and answers, ours and the peer's.

    Two promises: each of our asks meets at most one answer, and each of the peer's gets exactly
    one. A `W` is whatever the owner of the dialogue lets wait for an answer.

    Attributes:
        unanswered: how many of the peer's asks await an answer now.
    """

    __slots__ = (
        "_abandoned",
        "_asides",
        "_asks_made",
        "_mishaps",
        "_pending",
        "unanswered",
    )

    def __init__(self) -> None:
        self.unanswered: int = 0
        self._mishaps: _Mishaps | None = None
        """What went wrong, once anything did."""
        self._asks_made = 0
        self._abandoned = 0
        self._pending: dict[bytes, W] = _NONE
        """Our asks that await an answer, and who waits for it."""
        self._asides: set[bytes] | None = None
        """The tags of what is asked aside, if anything is."""

    @property
    def late(self) -> int:
        """How many answers came to asks that were given up."""
        return self._mishaps.late if self._mishaps is not None else 0

    @property
    def strays(self) -> int:
        """How many answers came to asks that were never made, or were answered before.

        They are counted and ignored, where Twisted drops the connection.
        """
        return self._mishaps.strays if self._mishaps is not None else 0

    @property
    def errors_received(self) -> dict[str, int]:
        """How many of our asks were answered with an error, by its code."""
        return self._mishaps.errors_received if self._mishaps is not None else {}

    @property
    def errors_given(self) -> dict[str, int]:
        """How many of the peer's were."""
        return self._mishaps.errors_given if self._mishaps is not None else {}

    def _more_mishaps(self) -> _Mishaps:
        if self._mishaps is None:
            self._mishaps = _Mishaps()
        return self._mishaps

    @property
    def pending(self) -> int:
        """How many of our asks await an answer now, those made aside left out."""
        return len(self._pending) - (len(self._asides) if self._asides else 0)

    def new_tag(self) -> bytes:
        """Give the tag for the next ask. Like Twisted's: a count, in hexadecimal."""
        self._asks_made += 1
        return b"%x" % self._asks_made

    def ask(self, tag: bytes, waiter: W, *, is_aside: bool = False) -> None:
        """Note that an ask is made, and who waits for its answer.

        Args:
            tag: from `new_tag`, used for nothing else.
            waiter: comes back in `Answered`, or from `end`.
            is_aside: whether nothing depends on the answer, so that it isn't `expected`.
        """
        if not self._pending:
            self._pending = {}
        self._pending[tag] = waiter
        if is_aside:
            if self._asides is None:
                self._asides = set()
            self._asides.add(tag)

    @property
    def expected(self) -> int:
        """How many answers may still come, those to asks given up among them."""
        return self.pending + self._abandoned

    def abandon(self, tag: bytes, *, is_sent: bool = True) -> bool:
        """Wait no more for an answer; one that comes later is ignored.

        Args:
            tag: the tag of the ask.
            is_sent: whether the peer may know of the ask.

        Returns:
            Whether it was waited for, by a peer that may know of it.
        """
        is_given_up = self._pending.pop(tag, None) is not None and is_sent
        if not self._pending:
            self._pending = _NONE
        self._abandoned += is_given_up
        return is_given_up

    def receive(self, box: Box) -> Asked | Answered[W] | None:
        """Say what a box means. None: a stray, to be ignored.

        Raises:
            ProtocolViolationError: the box is neither ask, answer nor error.
        """
        if ANSWER in box:
            tag = box[ANSWER]
        elif ERROR in box:
            tag = box[ERROR]
            if tag in self._pending and not (self._asides and tag in self._asides):
                code = printable(box.get(ERROR_CODE, b"")[:100])
                count_code(self._more_mishaps().errors_received, code)
        elif COMMAND in box:
            asked = Asked(box[COMMAND], box.get(ASK), box)
            if asked.tag is not None:
                self.unanswered += 1
            return asked
        else:
            raise ProtocolViolationError("a box with none of _command, _answer and _error")
        pending = self._pending
        if tag in pending:
            if self._asides:
                self._asides.discard(tag)
                if not self._asides:
                    self._asides = None
            waiter = pending.pop(tag)
            if not pending:
                self._pending = _NONE
            return Answered(waiter, box)
        if self._abandoned:
            self._abandoned -= 1
            self._more_mishaps().late += 1
        else:
            self._more_mishaps().strays += 1
        return None

    def answer_head(self, asked: Asked) -> bytes:
        """Give the first pair of an answer; the fields' pairs and the end of the box go behind it.

        Empty for an ask that wants no answer. The ask counts as answered only with `answered`,
        when the rest is known to be writable.
        """
        tag = asked.tag
        if tag is None:
            return b""
        return b"\0\7_answer%b%b" % (len(tag).to_bytes(2, "big"), tag)

    def answered(self, asked: Asked) -> bool:
        """Note that an ask is answered now. False: nothing may be written, since it was before, or
        since nobody wants an answer."""
        if asked.is_answered:
            return False
        asked.is_answered = True
        if asked.tag is None:
            return False
        self.unanswered -= 1
        return True

    def error(
        self, asked: Asked, code: bytes, description: str, fields: bytes = b""
    ) -> bytes | None:
        """Answer an ask with an error.

        Args:
            asked: the ask.
            code: the `_error_code`.
            description: the `_error_description`; cut where it is too long to travel.
            fields: further pairs, already written.

        Returns:
            The box to write; None if nothing may be written.
        """
        count_code(self._more_mishaps().errors_given, printable(code[:100]))
        if not self.answered(asked):
            return None
        assert asked.tag is not None
        text = description.encode("utf-8", "backslashreplace")
        if len(text) > MAX_VALUE_LENGTH:
            text = text[:MAX_VALUE_LENGTH].decode("utf-8", "ignore").encode()
        box = {ERROR: asked.tag, ERROR_CODE: code, ERROR_DESCRIPTION: text}
        return encode_pairs(box) + fields + b"\0\0" if fields else encode_box(box)

    def end(self) -> Iterator[W]:
        """The connection is gone: give back, once, everybody who waits for an answer."""
        self._asides = None
        while self._pending:
            yield self._pending.popitem()[1]
        self._pending = _NONE
