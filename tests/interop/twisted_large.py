"""Arguments of Twisted's for values that don't fit into one pair, as programs have them.

Twisted itself has none. These follow what is published and what the programs do; see the table in
`docs/wire.md`.
"""

# mypy: disable-error-code="no-untyped-call,misc"

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

from twisted.protocols import amp


class Sliced(amp.Argument):
    """Writes what another argument writes, in slices, each under a key of its own."""

    def __init__(self, whole: amp.Argument) -> None:
        super().__init__()
        self.whole: Any = whole

    def keys(self, name: bytes) -> Iterator[bytes]:
        raise NotImplementedError

    def pack(self, piece: bytes) -> bytes:
        return piece

    def unpack(self, piece: bytes) -> bytes:
        return piece

    def pieces(self, data: bytes) -> list[bytes]:
        starts = range(0, len(data), amp.MAX_VALUE_LENGTH)
        return [data[start : start + amp.MAX_VALUE_LENGTH] for start in starts]

    def toBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        data = self.whole.toStringProto(objects[name.decode()], proto)
        for key, piece in zip(self.keys(name), self.pieces(data), strict=False):
            strings[key] = self.pack(piece)

    def fromBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        there = itertools.takewhile(strings.__contains__, self.keys(name))
        data = b"".join(self.unpack(strings[key]) for key in there)
        objects[name.decode()] = self.whole.fromStringProto(data, proto)


class FromOne(Sliced):
    """`name`, `name.2`, `name.3`: mediumbox, and `BigString` as published."""

    def keys(self, name: bytes) -> Iterator[bytes]:
        return itertools.chain([name], (b"%b.%d" % (name, number) for number in itertools.count(2)))

    def pieces(self, data: bytes) -> list[bytes]:
        return super().pieces(data) or [b""]


class FromZero(Sliced):
    """`name.0`, `name.1`: Flocker and JoinMarket. An empty value is no key at all."""

    def keys(self, name: bytes) -> Iterator[bytes]:
        return (b"%b.%d" % (name, number) for number in itertools.count())


class Compressed(FromOne):
    """Each slice compressed by itself: Evennia."""

    def pack(self, piece: bytes) -> bytes:
        return zlib.compress(piece, 9)

    def unpack(self, piece: bytes) -> bytes:
        return zlib.decompress(piece)
