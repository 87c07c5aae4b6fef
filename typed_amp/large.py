"""Values too long for one pair of a box: cut into slices, each a pair of its own.

Rule of this module: it sees a value's bytes and the pairs they become, and knows nothing of types.

AMP itself says nothing of such values. What programs do about them differs in the names of the
keys and in whether the slices are compressed; the options of `Large` are those differences.
"""

from __future__ import annotations

import sys
import zlib
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from typed_amp.box import MAX_KEY_LENGTH, MAX_VALUE_LENGTH, encode_pairs
from typed_amp.errors import DecodeError, DefinitionError, TooLongError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Large"]

_MIN_SLICE_BYTES: Final = 8_192
_MIN_COMPRESSED_SLICE_BYTES: Final = 32_768
# What zlib can't compress grows, by at most 31 bytes here: deflateBound() in zlib.h.
_MAX_COMPRESSED_SLICE_BYTES: Final = 65_500
_COMPRESSED_SLICE_BYTES: Final = 65_000
_LEVEL: Final = 9


class Large:
    """Marks a field whose value may be longer than 65,535 bytes: `Annotated[bytes, Large()]`.

    It goes beside any type, and beside `Json()` or a codec of your own. Both sides must know of
    it. By default it writes what is published as `BigString` and `mediumbox`: the first slice under
    the field's key, the others under `key.2`, `key.3` and so on, until a key is missing. A value
    that fits into one pair looks as if it weren't marked.

    The whole value is held in memory. The slices count for `Limits.max_box_bytes`, 4 MiB unless
    told otherwise, and each for `Limits.max_keys`: raise them at the side that reads, where values
    are longer. An `int` of millions of digits takes seconds to read: give `max_bytes` there.

    Args:
        zero_based: name the slices `key.0`, `key.1` and so on, as Flocker's `Big` and JoinMarket's
            `BigUnicode` do. They write nothing at all for an empty value. So where `key.0` is
            missing, a field that has no default and can't be None is read as empty; a default or
            None goes before that.
        compressed: compress each slice by itself with zlib, as Evennia's `Compressed` does.
        slice_bytes: how long a slice may be, before it is compressed: 8,192 to 65,535; if
            compressed 32,768 to 65,500. The most that fits, if left out; if compressed 65,000.
            Shorter ones would make more keys of a value than half of `Limits.max_keys` allows
            unless told otherwise, and gain nothing.
        max_bytes: how long a value may be, its slices inflated and joined: a `TooLongError` at the
            side that writes, a `DecodeError` at the side that reads. No more than that is inflated,
            whatever a peer sends.

    Raises:
        DefinitionError: an option has no such value.
    """

    __slots__ = ("compressed", "max_bytes", "slice_bytes", "zero_based")

    def __init__(
        self,
        *,
        zero_based: bool = False,
        compressed: bool = False,
        slice_bytes: int | None = None,
        max_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        for name, option in (("zero_based", zero_based), ("compressed", compressed)):
            if not _is(bool, option):
                raise DefinitionError(f"Large({name}=...) is True or False, not {option!r}")
        shortest = _MIN_COMPRESSED_SLICE_BYTES if compressed else _MIN_SLICE_BYTES
        longest = _MAX_COMPRESSED_SLICE_BYTES if compressed else MAX_VALUE_LENGTH
        if slice_bytes is None:
            slice_bytes = _COMPRESSED_SLICE_BYTES if compressed else longest
        if not _is(int, slice_bytes) or not shortest <= slice_bytes <= longest:
            raise DefinitionError(
                f"Large(slice_bytes=...) is {shortest:,} to {longest:,}"
                f"{' with compressed=True' if compressed else ''}, not {slice_bytes!r}"
            )
        if not _is(int, max_bytes) or max_bytes < 1:
            raise DefinitionError(f"Large(max_bytes=...) is 1 or more, not {max_bytes!r}")
        self.zero_based: bool = zero_based
        self.compressed: bool = compressed
        self.slice_bytes: int = slice_bytes
        self.max_bytes: int = max_bytes

    def __repr__(self) -> str:
        options = [
            *(["zero_based=True"] if self.zero_based else []),
            *(["compressed=True"] if self.compressed else []),
            f"slice_bytes={self.slice_bytes}",
            f"max_bytes={self.max_bytes}",
        ]
        return f"Large({', '.join(options)})"

    def encode(self, key: bytes, data: bytes) -> bytes:
        """Give the pairs of a value, complete and in their order.

        Raises:
            TooLongError: it is longer than `max_bytes`. Names no field: who calls knows it.
        """
        if len(data) > self.max_bytes:
            raise TooLongError(
                "",
                len(data),
                self.max_bytes,
                f"its Large() allows at most {self.max_bytes:,}. Raise max_bytes on both sides",
            )
        size = self.slice_bytes
        slices = (data[i : i + size] for i in range(0, len(data) or 1, size))
        if self.compressed:
            slices = (zlib.compress(piece, _LEVEL) for piece in slices)
        return encode_pairs(dict(zip(self._keys(key), slices, strict=False)))

    def decode(self, key: bytes, box: Mapping[bytes, bytes]) -> bytes | None:
        """Find a value's slices in a box and join them; None if there are none.

        Raises:
            DecodeError: it is longer than `max_bytes`, or a slice isn't compressed as it should.
        """
        slices: list[bytes] = []
        room = self.max_bytes
        for slice_key in self._keys(key):
            data = box.get(slice_key)
            if data is None:
                break
            if self.compressed:
                data = _inflated(data, room, len(slices) + 1)
            room -= len(data)
            if room < 0:
                raise DecodeError(f"more than {self.max_bytes:,} bytes (Large.max_bytes)")
            slices.append(data)
        return b"".join(slices) if slices else None

    def keys_in(self, key: bytes, box: Mapping[bytes, bytes]) -> Iterator[bytes]:
        """Give those keys of a box that `decode` looks at."""
        for slice_key in self._keys(key):
            if slice_key not in box:
                break
            yield slice_key

    def owns(self, key: bytes, other: bytes) -> bool:
        """Whether another key is one that a slice may have, beside the field's own."""
        name, dot, digits = other.rpartition(b".")
        if name != key or not dot or not digits.isdigit():
            return False
        number = int(digits)
        return b"%d" % number == digits and number >= (0 if self.zero_based else 2)

    def max_key_length(self) -> int:
        """How long the field's key may be, so that the keys of all its slices can be written."""
        slices = -(-self.max_bytes // self.slice_bytes)
        if self.zero_based:
            return MAX_KEY_LENGTH - len(b".%d" % (slices - 1))
        return MAX_KEY_LENGTH - (len(b".%d" % slices) if slices > 1 else 0)

    def _keys(self, key: bytes) -> Iterator[bytes]:
        if not self.zero_based:
            yield key
        for number in count(0 if self.zero_based else 2):
            yield b"%b.%d" % (key, number)


def _is(kind: type, option: Any) -> bool:
    # Exactly that: True is no length, and 1 doesn't say what is meant by it.
    return type(option) is kind


def _inflated(data: bytes, room: int, number: int) -> bytes:
    """Inflate a slice.

    Args:
        data: the slice.
        room: how many bytes may come out. One more is enough to see that it is too long; nothing
            is inflated beyond that.
        number: which slice it is, counted from one.

    Raises:
        DecodeError: it isn't exactly one stream of zlib's.
    """
    inflater = zlib.decompressobj()
    try:
        value = inflater.decompress(data, min(room + 1, sys.maxsize))
    except zlib.error:
        raise DecodeError(f"slice {number} is not compressed by zlib, or damaged") from None
    if len(value) <= room and (not inflater.eof or inflater.unused_data):
        what = "goes on after" if inflater.eof else "ends before"
        raise DecodeError(f"slice {number} {what} the end of what zlib compressed")
    return value
