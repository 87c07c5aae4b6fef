"""What two typed_amp programs tell each other beyond AMP, and how they find out that they may.

Rule of this module: a peer that doesn't know of an extension never sees one. The side that
connected asks one question, `typed-amp.capabilities`, which any AMP peer answers, if only by not
knowing it; it does so at once, with TLS when it makes its first call, and waits for nothing.
Nothing else is sent before the other side is known to understand it, but `typed-amp.ping`, of which
only the answer counts, whatever it is.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from typed_amp.box import ERROR
from typed_amp.built_in import (
    CAPABILITIES_TAG,
    FEATURES,
    Cancel,
    Capabilities,
    CapabilitiesAnswer,
    Closing,
)
from typed_amp.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typed_amp.command import Command
    from typed_amp.link import Link
    from typed_amp.waiting import Waiter

__all__ = ["Extensions"]

_CLOSING_TIMEOUT: Final = 5.0
"""How many seconds a peer has to say that it knows of the closing."""


class Extensions:
    """The extensions on one connection.

    Args:
        link: the inside of the connection.
        is_enabled: whether this side has any.
        asks: whether this side is the one that asks for the peer's, since it has connected.
    """

    __slots__ = (
        "_announcement",
        "_asks",
        "_link",
        "_question",
        "has_cancel",
        "has_closing",
        "has_deadlines",
        "has_details",
        "is_enabled",
        "is_question_due",
    )

    def __init__(self, link: Link[Any], *, is_enabled: bool, asks: bool) -> None:
        self._link = link
        self.is_enabled: bool = is_enabled
        """Whether this side has any."""
        self.has_cancel: bool = False
        """Whether the peer wants to know of calls that this side gave up."""
        self.has_closing: bool = False
        """Whether the peer wants to know that this side is closing."""
        self.has_deadlines: bool = False
        """Whether the peer wants to know how long this side waits."""
        self.has_details: bool = False
        """Whether the peer wants to know more of arguments that this side refused."""
        self.is_question_due: bool = False
        """Whether the peer is to be asked for its own with the next call."""
        self._asks = asks
        self._question: Waiter | None = None
        self._announcement: Waiter | None = None

    # -- What the peer says --------------------------------------------------------------------

    def carry_out(self, command: Command[Any]) -> Any:
        """Do what a built-in command says, and give its answer."""
        if isinstance(command, Capabilities):
            self._know(command.features)
            return CapabilitiesAnswer(features=list(FEATURES))
        if isinstance(command, Cancel):
            self._link.responses.cancel_ask(command.ask)
        elif isinstance(command, Closing):
            self._link.calls.refused()
        return None

    def _know(self, features: Iterable[str]) -> None:
        known = set(features)
        self.has_cancel = "cancel" in known
        self.has_closing = "closing" in known
        self.has_deadlines = "deadline" in known
        self.has_details = "details" in known

    # -- What this side says -------------------------------------------------------------------

    def begin(self) -> None:
        """AMP begins: ask which extensions the peer has, if this side has connected."""
        if not (self._asks and self.is_enabled):
            return
        if self._link.is_encrypted:
            # A server that refuses this side's certificate says so after the handshake, and who
            # writes before he has read that learns of a broken pipe instead.
            self.is_question_due = True
        else:
            self.ask()

    def begin_again(self) -> None:
        """Know nothing of the peer any more: what it said in the clear, anybody may have said."""
        self._know(())
        self.begin()

    def ask(self) -> None:
        """Ask which extensions the peer has."""
        self.is_question_due = False
        question = Capabilities(features=list(FEATURES))
        self._question = self._link.calls.ask_aside(question, CAPABILITIES_TAG)
        self._question.add_done_callback(self._answered)

    def _answered(self, question: Waiter) -> None:
        box = question.result()
        if question is not self._question:
            return
        self._question = None
        if isinstance(box, dict) and ERROR not in box:
            with contextlib.suppress(DecodeError):  # something else of that name: no typed_amp
                answer: CapabilitiesAnswer = Capabilities.__amp_signature__().decode_answer(box)
                self._know(answer.features)

    def announce_closing(self, *, waits: bool) -> None:
        """Have the peer ask nothing more, and say so behind the last thing that it has asked.

        Args:
            waits: whether the connection is to go on until the peer has said so.
        """
        link = self._link
        if not self.has_closing or (self._asks and not link.is_asked):
            return
        announcement = link.calls.ask_aside(Closing())
        if waits:
            self._announcement = announcement
            announcement.add_done_callback(self._acknowledged)
            link.call_later(_CLOSING_TIMEOUT, self._acknowledged, announcement)

    @property
    def is_announcing(self) -> bool:
        """Whether the peer has yet to say that it knows of the closing."""
        return self._announcement is not None

    def forget_announcement(self) -> None:
        """Wait no longer for the peer to say so."""
        self._announcement = None

    def _acknowledged(self, announcement: Waiter) -> None:
        if announcement is self._announcement:
            self._announcement = None
            self._link.check_drained()
