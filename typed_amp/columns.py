"""Rows of one model, read field by field of all of them instead of row by row.

Rule of this module: it reads rows that are written as this library writes them: the fields in their
order, short values without null bytes. Of all others it says that they are none of its business.

One regular expression finds what may be the rows, and gives for each field its values in all rows,
and the lengths that stand before them. If these are right, and nothing is left over, the rows are
what whoever reads byte by byte would find.
"""

from __future__ import annotations

import re
from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from typed_amp.codecs import BooleanCodec, BytesCodec, FloatCodec, IntegerCodec, TextCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from typed_amp.plan import Field

__all__ = ["ColumnReader"]

_FEW: Final = 3
"""Of fewer rows than that, row by row is faster."""

_ANY: Final = b"[^\0]*+"
_FORMS: Final[dict[type, tuple[bytes, Callable[[Any], Any]]]] = {
    # int() and float() take more than what their codecs do, and that is what this says.
    IntegerCodec: (b"-?+[0-9]{1,255}+", int),
    FloatCodec: (
        rb"-?+[0-9]++(?:\.[0-9]*+)?+(?:[eE][+-]?+[0-9]++)?+|-?+(?:inf|nan)",
        float,
    ),
    BooleanCodec: (b"True|False", {b"True": True, b"False": False}.__getitem__),
    TextCodec: (_ANY, bytes.decode),
    BytesCodec: (_ANY, bytes),
}
"""What a value looks like, and what makes it of these bytes."""


class ColumnReader:
    """Reads rows.

    Args:
        fields: the fields, whose codecs are the library's own.
        make_rows: makes a dict of its fields' values for each of some tuples of them.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        make_rows: Callable[[Iterable[tuple[Any, ...]]], list[dict[str, Any]]],
    ) -> None:
        self._fields = fields
        self._make_rows = make_rows
        pattern = b""
        self._heads: list[int] = []
        self._decoders: list[Callable[[Any], Any]] = []
        for field in fields:
            form, decode = _FORMS.get(type(field.codec), (_ANY, field.codec.decode))
            head = b"\0%c%b\0" % (len(field.key), field.key)
            pair = b"%b(.)(%b)" % (re.escape(head), form)
            pattern += b"(?:%b)?+" % pair if field.optional else pair
            self._heads.append(len(head) + 1)
            self._decoders.append(decode)
        self._find = re.compile(pattern + b"\0\0", re.DOTALL).findall
        self._few_bytes = _FEW * (2 + sum(self._heads))

    def read(self, data: bytes) -> list[dict[str, Any]] | None:
        """Give the values of each row's fields by name.

        Returns:
            None if it can't tell, or if there are few rows.

        Raises:
            Exception: a value can't be read.
        """
        found = self._find(data) if len(data) >= self._few_bytes else None
        if not found:
            return None
        groups = iter(zip(*found, strict=True))
        columns: list[Iterable[Any]] = []
        missing: list[tuple[str, Sequence[bytes]]] = []
        read_bytes = 2 * len(found)
        for field, head, decode in zip(self._fields, self._heads, self._decoders, strict=True):
            announced, column = next(groups), next(groups)
            lengths = b"".join(announced)
            is_whole = len(lengths) == len(found)  # where there is no length, there is no field
            values = list(column if is_whole else compress(column, announced))
            if list(map(len, values)) != list(lengths):
                return None
            read_bytes += head * len(lengths) + sum(lengths)
            decoded = map(decode, values)
            if is_whole:
                columns.append(decoded)
            else:
                columns.append([next(decoded) if length else None for length in announced])
                if field.has_default:
                    missing.append((field.name, announced))
        if read_bytes != len(data):
            return None
        rows = self._make_rows(zip(*columns, strict=True))
        for name, lengths_of_all in missing:
            for row, length in zip(rows, lengths_of_all, strict=True):
                if not length:
                    del row[name]
        return rows
