"""What two typed_amp programs tell each other beyond AMP, and how they find out that they may.

Rule of this module: a peer that doesn't know of an extension never sees one. The side that
connected asks one question, `typed-amp.capabilities`, which any AMP peer answers, if only by not
knowing it; it does so at once, with TLS when it makes its first call, and waits for nothing.
Nothing else is sent before the other side is known to understand it, but `typed-amp.ping`, of which
only the answer counts, whatever it is.

The features:

- `deadline`: asks carry in `_deadline` how many milliseconds the caller still waits. When they are
  over, the responder is cancelled, and the ask answered with the code `TIMEOUT`.
- `cancel`: `typed-amp.cancel` says which ask was given up. Its responder is cancelled, and the ask
  answered with the code `CANCELLED`.
- `details`: refused arguments are told in `_error_details` as well, as JSON: which fields, and why.
- `closing`: `typed-amp.closing` says that its sender will refuse what is asked from now on. Its
  answer comes behind the last ask that was made before, which is how its sender knows that none is
  on the way any more.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from typed_amp.box import ERROR
from typed_amp.command import Command
from typed_amp.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from typed_amp.box import Box
    from typed_amp.signature import Signature

__all__ = [
    "BUILT_IN",
    "CAPABILITIES_TAG",
    "FEATURES",
    "Cancel",
    "Capabilities",
    "CapabilitiesAnswer",
    "Closing",
    "Extensions",
    "Ping",
]

FEATURES: Final = ("cancel", "closing", "deadline", "details")
"""What this version of typed_amp understands."""

CAPABILITIES_TAG: Final = b"0"
"""The tag of the question; those of calls begin with 1."""


class CapabilitiesAnswer(BaseModel):
    """What the answering side understands."""

    features: list[str] = Field(default_factory=list)


class Capabilities(Command[CapabilitiesAnswer], name="typed-amp.capabilities"):
    """Which extensions does the other side understand? Says as well which this one does."""

    features: list[str] = Field(default_factory=list)


class Cancel(Command, name="typed-amp.cancel", requires_answer=False):
    """Nobody waits for the answer to this ask any more."""

    ask: bytes


class Closing(Command, name="typed-amp.closing"):
    """What is asked from now on will be refused."""


class Ping(Command, name="typed-amp.ping"):
    """Are you there? Every AMP peer answers, if only that it doesn't know the command."""


BUILT_IN: Final[Mapping[bytes, Signature[Any, Any]]] = {
    command.__amp_signature__().name: command.__amp_signature__()
    for command in (Capabilities, Cancel, Closing, Ping)
}
"""The commands that a connection answers by itself, by their names on the wire."""


class Extensions:
    """The extensions on one connection.

    Args:
        is_enabled: whether this side has any.
        on_cancel: called with the tag of an ask that the peer has given up.
        on_closing: called when the peer refuses what is asked from now on.
    """

    def __init__(
        self,
        *,
        is_enabled: bool,
        on_cancel: Callable[[bytes], None],
        on_closing: Callable[[], None],
    ) -> None:
        self._on_cancel = on_cancel
        self._on_closing = on_closing
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

    def answered(self, box: Box) -> None:
        """Take the answer to `Capabilities`, which may be an error."""
        if ERROR not in box:
            with contextlib.suppress(DecodeError):  # something else of that name: no typed_amp
                answer: CapabilitiesAnswer = Capabilities.__amp_signature__().decode_answer(box)
                self._know(answer.features)

    def forget(self) -> None:
        """Know nothing of the peer any more: what it said in the clear, anybody may have said."""
        self._know(())

    def carry_out(self, command: Command[Any]) -> Any:
        """Do what a built-in command says, and give its answer."""
        if isinstance(command, Capabilities):
            self._know(command.features)
            return CapabilitiesAnswer(features=list(FEATURES))
        if isinstance(command, Cancel):
            self._on_cancel(command.ask)
        elif isinstance(command, Closing):
            self._on_closing()
        return None

    def _know(self, features: Iterable[str]) -> None:
        known = set(features)
        self.has_cancel = "cancel" in known
        self.has_closing = "closing" in known
        self.has_deadlines = "deadline" in known
        self.has_details = "details" in known
