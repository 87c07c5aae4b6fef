"""How much one peer can make this side hold.

Rule of this module: each limit has a default that is safe for a server on the open Internet, and
says why it is what it is. What happens at a limit is the business of who keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one peer can make this side hold.

    Attributes:
        max_box_bytes: the longest box, in bytes on the wire. 4 MiB, as gRPC's default for one
            message: sixty of AMP's longest values fit. A box beyond that is refused when its
            lengths announce it, before it is stored. Boxes of this side are held to it as well,
            so that a call that is too long fails by itself, and not at the peer's end of the line.
        max_keys: the most keys in one box. 1,024: ten times what Apache allows headers in a
            request, and few enough that a box of the shortest keys is no burden.
        max_held_bytes: the most bytes of commands that are read and wait, because the peer doesn't
            take the answers to earlier ones. Beyond it, and at once if this side waits for no
            answer of the peer's, nothing more is read until it does. 64 MiB: a thousand of AMP's
            longest values.

        max_unclaimed_descriptors: the most file descriptors that came and that no command has
            claimed yet; the oldest are closed beyond it. 256: about as many as one message on a
            Unix socket can carry on Linux, and a quarter of what a process may have open there
            unless told otherwise.

    Raises:
        ValueError: a limit is not positive.
    """

    max_box_bytes: int = 4 * 1024 * 1024
    max_keys: int = 1_024
    max_held_bytes: int = 64 * 1024 * 1024
    max_unclaimed_descriptors: int = 256

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"Limits.{name} must be positive, not {getattr(self, name)}")
