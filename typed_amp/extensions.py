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

__all__ = ["NO_FEATURES", "Extensions", "Features", "carry_out"]

_CLOSING_TIMEOUT: Final = 5.0
"""How many seconds a peer has to say that it knows of the closing."""


class Features:
    """Which extensions a peer has: what it wants to know.

    Args:
        names: what it says that it understands.
    """

    __slots__ = ("has_cancel", "has_closing", "has_deadlines", "has_details")

    def __init__(self, names: Iterable[str]) -> None:
        self.has_cancel: bool = "cancel" in names
        """Whether the peer wants to know of calls that this side gave up."""
        self.has_closing: bool = "closing" in names
        """Whether the peer wants to know that this side is closing."""
        self.has_deadlines: bool = "deadline" in names
        """Whether the peer wants to know how long this side waits."""
        self.has_details: bool = "details" in names
        """Whether the peer wants to know more of arguments that this side refused."""


NO_FEATURES: Final = Features(())
"""Those of plain AMP."""

_ALL_FEATURES: Final = Features(FEATURES)
"""Those that this version has: most peers that have any have all of them, and share this."""


def _features_of(names: Iterable[str]) -> Features:
    known = set(names)
    return _ALL_FEATURES if known.issuperset(FEATURES) else Features(known)


def carry_out(link: Link[Any], command: Command[Any]) -> Any:
    """Do what a built-in command of the peer's says, and give its answer."""
    if isinstance(command, Capabilities):
        link.features = _features_of(command.features)
        return CapabilitiesAnswer(features=list(FEATURES))
    if isinstance(command, Cancel):
        link.responses.cancel_ask(command.ask)
    elif isinstance(command, Closing):
        link.calls.refused()
    return None


class Extensions:
    """What this side asks the peer and tells it.

    Args:
        link: the inside of the connection.
    """

    __slots__ = ("_announcement", "_link", "_question", "is_question_due")

    def __init__(self, link: Link[Any]) -> None:
        self._link = link
        self.is_question_due: bool = False
        """Whether the peer is to be asked for its own with the next call."""
        self._question: Waiter | None = None
        self._announcement: Waiter | None = None

    def begin(self) -> None:
        """AMP begins on a connection that this side has made: ask which extensions the peer has."""
        if self._link.is_encrypted:
            # A server that refuses this side's certificate says so after the handshake, and who
            # writes before he has read that learns of a broken pipe instead.
            self.is_question_due = True
        else:
            self.ask()

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
                self._link.features = _features_of(answer.features)

    def announce_closing(self, *, waits: bool) -> None:
        """Have the peer ask nothing more, and say so behind the last thing that it has asked.

        Args:
            waits: whether the connection is to go on until the peer has said so.
        """
        link = self._link
        if not (link.settings.is_server or link.is_asked):
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
