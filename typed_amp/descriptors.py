"""Fields that are file descriptors.

Rule of this module: it knows where in a model descriptors are. On the wire such a field is a
number, which says the how manieth descriptor of the connection it is; the descriptors themselves
travel beside the boxes, which is the connection's business.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NoReturn

from typed_amp.codecs import IntegerCodec
from typed_amp.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Descriptor",
    "DescriptorCodec",
    "close_descriptors",
    "refuse_to_attach",
    "refuse_to_claim",
]


class Descriptor:
    """Marks a field that is an open file descriptor: `Annotated[int, Descriptor()]`.

    Over Unix sockets without TLS. The peer gets a descriptor of its own for the same open file,
    under another number. Twisted's `Descriptor`.

    - What a call carries stays the caller's: it may be closed as soon as the call has returned or
      failed, and not before.
    - What a responder returns is given away: it is closed when it is sent, or can't be. Return
      `os.dup(...)` of what you want to keep.
    - What a responder or a caller receives is its own, to be closed by it. What nobody receives,
      since a command was refused or a call given up, is closed.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Descriptor()"


class DescriptorCodec(IntegerCodec):
    """The number of a descriptor: how many the connection carried before it, in this direction."""


def refuse_to_attach(_: int) -> NoReturn:
    """Stand for a transport that carries no descriptors.

    Raises:
        EncodeError: always.
    """
    raise EncodeError("descriptors travel over Unix sockets without TLS only")


def refuse_to_claim(_: int) -> NoReturn:
    """Stand for a transport that carries no descriptors.

    Raises:
        DecodeError: always.
    """
    raise DecodeError("descriptors travel over Unix sockets without TLS only")


def close_descriptors(descriptors: Iterable[int]) -> None:
    """Close them all, those that are closed already excepted."""
    for descriptor in descriptors:
        # What a responder returned may be anything.
        with contextlib.suppress(OSError, OverflowError, TypeError):
            os.close(descriptor)
