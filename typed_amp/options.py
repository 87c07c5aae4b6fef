"""What may be said wherever a connection is made.

Rule of this module: one place says what there is to say of a connection, whichever side makes it.
"""

from __future__ import annotations

from typing import Final, TypedDict

from typed_amp.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "DRAIN_TIMEOUT",
    "KEEPALIVE",
    "ConnectionOptions",
    "check_options",
    "handshake_timeout",
    "limits_of",
]

DRAIN_TIMEOUT: Final = 10.0
"""How many seconds a responder may go on when its connection is closed, unless told otherwise."""

KEEPALIVE: Final = 30.0
"""After how many seconds of silence a peer is asked whether it is there, unless told otherwise."""


class ConnectionOptions(TypedDict, total=False):
    """The options that `connect`, `serve` and all other functions that make connections take.

    Attributes:
        limits: how much the peer can make this side hold.
        drain_timeout: seconds that responders may go on when the connection is closed; 10, if left
            out.
        call_timeout: seconds that each call waits which isn't given a `timeout` of its own. If left
            out, or None, such calls wait as long as the connection lives.
        extensions: whether to find out if the peer is a typed_amp program, which then learns of
            deadlines, of calls that were given up and of this side's closing, and says more of
            arguments that it refuses. Other peers see one command that they don't know,
            `typed-amp.capabilities`, and nothing else. True, if left out.
        keepalive: seconds of silence after which the peer is asked whether it is there, by a
            command that any AMP peer answers, `typed-amp.ping`. After three times as long without
            a byte from it the connection is given up. 30, if left out; a peer that works for more
            than a minute without reading needs more. While this side doesn't read, since all the
            responders run that may, only that is noticed which the system says of itself. None for
            never.
    """

    limits: Limits | None
    drain_timeout: float
    call_timeout: float | None
    extensions: bool
    keepalive: float | None


def check_options(options: ConnectionOptions) -> None:
    """Refuse options that don't exist or can't hold, before they are needed.

    Raises:
        TypeError: there is no such option.
        ValueError: seconds are negative, or none where there must be some.
    """
    unknown = sorted(options.keys() - ConnectionOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(ConnectionOptions.__annotations__)
        raise TypeError(f"no such option: {', '.join(unknown)}. There are {known}")
    drain_timeout = options.get("drain_timeout", DRAIN_TIMEOUT)
    if not drain_timeout >= 0:
        raise ValueError(f"drain_timeout must not be negative, as {drain_timeout} is")
    for name, seconds in (
        ("call_timeout", options.get("call_timeout")),
        ("keepalive", options.get("keepalive")),
    ):
        if seconds is not None and not seconds > 0:
            raise ValueError(f"{name} must be positive, or None for never, not {seconds}")


def handshake_timeout(ssl: object, options: ConnectionOptions) -> float | None:
    """Give the seconds for a TLS handshake, as asyncio wants to be told: None without TLS."""
    return limits_of(options).handshake_timeout if ssl else None


def limits_of(options: ConnectionOptions) -> Limits:
    """Give the limits that were said, or those that hold without."""
    return options.get("limits") or DEFAULT_LIMITS
