"""What may be said wherever a connection is made.

Rule of this module: one place says what there is to say of a connection, whichever side makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

if TYPE_CHECKING:
    from typed_amp.limits import Limits

__all__ = ["DRAIN_TIMEOUT", "ConnectionOptions", "check_options"]

DRAIN_TIMEOUT: Final = 10.0
"""How many seconds a responder may go on when its connection is closed, unless told otherwise."""


class ConnectionOptions(TypedDict, total=False):
    """The options that `connect`, `serve` and all other functions that make connections take.

    Attributes:
        limits: how much the peer can make this side hold.
        drain_timeout: seconds that responders may go on when the connection is closed; 10, if left
            out.
    """

    limits: Limits | None
    drain_timeout: float


def check_options(options: ConnectionOptions) -> None:
    """Refuse options that don't exist, before they are needed.

    Raises:
        TypeError: there is no such option.
    """
    unknown = sorted(options.keys() - ConnectionOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(ConnectionOptions.__annotations__)
        raise TypeError(f"no such option: {', '.join(unknown)}. There are {known}")
