"""How much one peer can make this side hold, and how long it may take.

Rule of this module: each limit has a default that is safe for a server on the open Internet, and
says why it is what it is. What happens at a limit is the business of who keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one peer can make this side hold, and how long it may take.

    Attributes:
        max_box_bytes: the longest box, in bytes on the wire. 4 MiB, as gRPC's default for one
            message: sixty of AMP's longest values fit. A box beyond that is refused when its
            lengths announce it, before it is stored. Boxes of this side are held to it as well,
            so that a call that is too long fails by itself, and not at the peer's end of the line.
        max_keys: the most keys in one box. 1,024: ten times what Apache allows headers in a
            request, and few enough that a box of the shortest keys is no burden.
        max_requests: the most responders that run at a time for this peer. Beyond it nothing more
            is read until one is done; while this side waits for an answer of the peer's, which
            comes the same way, commands are read and wait. 1,000: ten times what servers of HTTP/2
            allow, since here even a small answer takes a request of its own.
        max_held_bytes: the most bytes of commands that are read and wait: for hooks of
            `on_connect`, for one of `max_requests`, or for the peer to take the answers to earlier
            ones. Beyond it nothing more is read; while this side waits for an answer of the peer's,
            commands beyond it are refused with the code `BUSY`. 16 MiB: four of the longest boxes.
        max_unwritten_bytes: the most bytes that wait for the peer to read. Beyond that,
            answers are written when it has read enough, and their responders count as running
            until then. Two of the longest boxes beyond that, nothing is read from it either. 4 MiB:
            one of the longest boxes.
        max_unclaimed_descriptors: the most file descriptors that came and that no command has
            claimed yet; the oldest are closed beyond it. 256: about as many as one message on a
            Unix socket can carry on Linux, and a quarter of what a process may have open there
            unless told otherwise.
        handshake_timeout: the seconds that a TLS handshake may take, or a server's `admit=`. 10: a
            handshake takes two or three round trips, and nothing holds more memory for less.
        box_timeout: the seconds from a box's first byte to its last. 60: the longest box in that
            time is 70 kB a second, and nearly all boxes are a thousandth of it.
        idle_timeout: the seconds after which a connection is closed on which nothing goes on: no
            call either way, and no part of one on its way; what `keepalive` does isn't counted.
            None, which is for ever: connections of AMP are made to last, and one whose peer is gone
            is found by `keepalive`.

    Raises:
        ValueError: a limit is not positive.
    """

    max_box_bytes: int = 4 * 1024 * 1024
    max_keys: int = 1_024
    max_requests: int = 1_000
    max_held_bytes: int = 16 * 1024 * 1024
    max_unwritten_bytes: int = 4 * 1024 * 1024
    max_unclaimed_descriptors: int = 256
    handshake_timeout: float = 10.0
    box_timeout: float = 60.0
    idle_timeout: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ValueError(f"Limits.{field.name} must be positive, not {value}")


DEFAULT_LIMITS: Final = Limits()
"""Those of whoever says nothing: the same for all connections."""
