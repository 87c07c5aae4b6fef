"""The commands that two typed_amp programs have beside those of their users.

Rule of this module: what they say is fixed, since programs of every version say it to each other.

The features that they tell each other of:

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

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field

from typed_amp.command import Command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typed_amp.signature import Signature

__all__ = [
    "BUILT_IN",
    "CAPABILITIES_TAG",
    "FEATURES",
    "Cancel",
    "Capabilities",
    "CapabilitiesAnswer",
    "Closing",
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
