"""Models as boxes, one after the other, in one value.

Rule of this module: the plan of the model says how a row is written and read. What is here is that
there are many, and which of them an error is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from typed_amp.box import Box, decode_boxes
from typed_amp.codecs import Codec
from typed_amp.descriptors import refuse_to_attach, refuse_to_claim
from typed_amp.errors import DecodeError, EncodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typed_amp.plan import Plan

__all__ = ["RowsCodec"]


class RowsCodec(Codec[Any]):
    """Models as boxes, one after the other (Twisted's `AmpList`).

    Args:
        plan: the plan of the model. May be completed later: models can hold themselves.
        collection_type: list, tuple, set or frozenset; or None for a single model, which is
            exactly one box.
    """

    def __init__(self, plan: Plan, collection_type: Callable[[Iterable[Any]], Any] | None) -> None:
        self.plan: Plan = plan
        self._collection_type = collection_type

    def models(self, value: Any) -> Iterable[Any]:
        """Give the models in a value: itself, or its elements."""
        return [value] if self._collection_type is None else value

    def encode(self, value: Any, attach: Callable[[int], int] = refuse_to_attach) -> bytes:
        models = list(self.models(value))
        accepted = self.plan.accepted
        if not all(issubclass(kind, accepted) for kind in set(map(type, models))):
            for model in models:
                if not isinstance(model, accepted):
                    raise EncodeError(
                        f"a {type(model).__name__} where {self.plan.model.__qualname__} is declared"
                    )
        encode_rows = self.plan.encode_rows
        if encode_rows is not None:
            rows = encode_rows(models)
        else:
            encode = self.plan.encode
            rows = [encode(model, b"", attach) for model in models]
        if self._collection_type in (set, frozenset):
            rows.sort()
        return b"".join(rows)

    def decode(self, data: bytes, claim: Callable[[int], int] = refuse_to_claim) -> Any:
        decode = self.plan.decode
        if self._collection_type is None:
            boxes = decode_boxes(data)
            if len(boxes) != 1:
                raise DecodeError(f"{len(boxes)} boxes where one is due")
            return decode(boxes[0], claim)
        rows: list[Any] = []
        read_rows = self.plan.read_rows
        if read_rows is not None:
            validate = self.plan.validate
            try:
                values = read_rows(data)
                if values is not None:
                    rows.extend(map(validate, values))  # up to the first that is refused
                    return self._collection_type(rows)
            except Exception:  # noqa: S110  # it is met again below, which says where
                pass
        boxes = decode_boxes(data)
        for index in range(len(rows), len(boxes)):
            try:
                rows.append(decode(boxes[index], claim))
            except DecodeError as error:
                failure = error.within(index)
                if claim is refuse_to_claim:  # else what follows would take descriptors
                    self._note_others(failure, boxes, index + 1)
                raise failure from None
        return self._collection_type(rows)

    def _note_others(self, failure: DecodeError, boxes: list[Box], begin: int) -> None:
        """Have an error about one row tell of those behind it as well."""
        for index in range(begin, len(boxes)):
            if len(failure.errors) >= _MOST_ERRORS:
                return
            try:
                self.plan.decode(boxes[index])
            except DecodeError as error:
                failure.errors += error.within(index).errors


_MOST_ERRORS: Final = 20
"""Of how many errors in rows an error tells: a few help, and all of them cost time."""
