"""Any bytes, read as a value of any type.

Only `DecodeError` may come out of reading. What can be read can be written, and is then read as the
same value.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

from tests.typed_values import JSON, SCALARS, Everything, Tree, carrier, read, same, write
from typed_amp import Box, DecodeError, Json, Large

__all__ = ["ANNOTATIONS", "check"]


ANNOTATIONS: Final[Sequence[Any]] = [
    *(annotation for annotation, _ in SCALARS),
    *(annotation for annotation, _ in JSON),
    *(field.rebuild_annotation() for field in Everything.model_fields.values()),
    list[float],
    frozenset[Decimal],
    list[Tree],
    list[list[bytes]],
    tuple[tuple[int, ...], ...],
    Annotated[bytes, Large()],
    Annotated[str, Large(zero_based=True)],
    Annotated[list[int], Large(compressed=True, max_bytes=10_000)],
    Annotated[dict[str, float], Json(), Large()],
]
"""New ones go to the end: the first byte of an input is an index."""

_MODELS: Final = [carrier(annotation) for annotation in ANNOTATIONS]


def check(data: bytes) -> None:
    """Read the bytes behind the first, which says as what."""
    model = _MODELS[(data[0] if data else 0) % len(_MODELS)]
    box: Box = {b"value": data[1:], b"value.0": data[1:]}
    try:
        command = read(model, box)
    except DecodeError as error:
        assert str(error)
        return
    written = write(command, model)
    again = read(model, written)
    assert same(again, command), (command, again)
    assert write(again, model).keys() == written.keys()
