"""What captured boxes mean: which is an ask, which its answer, and the values in them.

Rule of this module: what doesn't fit is told and shown, never left out; but what a model hides
stays hidden.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    ForwardRef,
    Literal,
    TypeAlias,
    get_args,
    get_origin,
)

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from typed_amp.annotations import split_annotated
from typed_amp.box import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    printable,
)
from typed_amp.command_error import CommandError
from typed_amp.descriptors import DescriptorCodec
from typed_amp.errors import DecodeError, RemoteAmpError
from typed_amp.planning import is_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from typed_amp.box import Box
    from typed_amp.capture import CapturedBox
    from typed_amp.plan import Plan
    from typed_amp.signature import Signature

__all__ = [
    "HIDDEN",
    "Asks",
    "Entry",
    "Hidden",
    "Kind",
    "Meaning",
    "Transcript",
]

Kind: TypeAlias = Literal["ask", "command", "answer", "error", "unknown"]
"""What a box is: a command that wants an answer or one that wants none, an answer, an error; or
none of them."""


class Hidden:
    """Stands for a value that is not shown."""

    def __repr__(self) -> str:
        return "**********"


HIDDEN: Final = Hidden()


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A value in a box, or what a model puts in the place of one.

    Attributes:
        name: the field; where the value is not typed, the key.
        value: the value as the model has it, or its bytes, or `HIDDEN`.
        is_typed: whether it is the model's.
        length: how many bytes it has on the wire; None where it is not in the box.
        offset: where in the capture its pair begins; likewise.
        note: what there is to say of it.
    """

    name: str
    value: Any
    is_typed: bool
    length: int | None = None
    offset: int | None = None
    note: str = ""


@dataclasses.dataclass(slots=True)
class Meaning:
    """What one box means.

    Attributes:
        offset: where in the capture it begins.
        length: how many bytes it has.
        kind: what it is.
        tag: what connects an ask and its answer.
        command: the command; of an answer the one it belongs to, if its ask is known.
        code: of an error, its `_error_code`.
        description: of an error, its `_error_description`.
        error_type: of an error that the command declares, its class; whether it is fatal.
        entries: the values.
        problem: what is wrong with the box.
        is_violation: whether a peer would close the connection for it.
    """

    offset: int
    length: int
    kind: Kind
    tag: bytes | None = None
    command: bytes | None = None
    code: bytes | None = None
    description: bytes | None = None
    error_type: str | None = None
    entries: list[Entry] = dataclasses.field(default_factory=list)
    problem: str | None = None
    is_violation: bool = False


_ANSWERED_KEPT: Final = 1_000
"""How many asks are remembered when they are answered, for answers that come twice."""


class Asks:
    """Which command is asked for under which tag.

    Peers may use a tag again once it is answered, so that there is a series of commands for each.
    """

    def __init__(self) -> None:
        self._names: dict[bytes, deque[bytes]] = {}
        self._answered: dict[bytes, bytes] = {}

    def note(self, box: Box) -> None:
        """Remember a box, if it is an ask."""
        if ASK in box and COMMAND in box and ANSWER not in box and ERROR not in box:
            self._names.setdefault(box[ASK], deque()).append(box[COMMAND])

    def take(self, tag: bytes) -> bytes | None:
        """Give the command that an answer belongs to, and forget its ask."""
        names = self._names.get(tag)
        if names is None:
            return None
        name = names.popleft()
        if not names:
            del self._names[tag]
        self._answered.pop(tag, None)
        self._answered[tag] = name
        if len(self._answered) > _ANSWERED_KEPT:
            del self._answered[next(iter(self._answered))]
        return name

    def answered(self, tag: bytes) -> bytes | None:
        """Give the command that was last answered under a tag, if that was not long ago."""
        return self._answered.get(tag)


class Transcript:
    """Says what the boxes of one capture mean, one after the other.

    Args:
        signatures: the commands that are known, by their names on the wire.
        others: the asks of the other captures of the same conversation.
        own: the asks of this capture, if they are known beforehand; otherwise they are noted as
            they come.
    """

    def __init__(
        self,
        signatures: Mapping[bytes, Signature[Any, Any]],
        others: Sequence[Asks] = (),
        own: Asks | None = None,
    ) -> None:
        self._signatures = signatures
        self._notes_asks = own is None
        self._own = Asks() if own is None else own
        self._others = others

    def meaning(self, captured: CapturedBox) -> Meaning:
        """Say what a box means. Boxes are to be given in their order."""
        box = captured.box
        if self._notes_asks:
            self._own.note(box)
        meaning = Meaning(captured.offset, captured.length, "unknown")
        is_first = True
        if ANSWER in box:
            meaning.kind, meaning.tag = "answer", box[ANSWER]
            meaning.command, is_first = self._asked(box[ANSWER])
        elif ERROR in box:
            meaning.kind, meaning.tag = "error", box[ERROR]
            meaning.command, is_first = self._asked(box[ERROR])
            meaning.code = box.get(ERROR_CODE)
            meaning.description = box.get(ERROR_DESCRIPTION)
        elif COMMAND in box:
            meaning.tag = box.get(ASK)
            meaning.kind = "command" if meaning.tag is None else "ask"
            meaning.command = box[COMMAND]
        else:
            meaning.problem = "a box with none of _command, _answer and _error"
            meaning.is_violation = True
        signature = self._signatures.get(meaning.command or b"")
        if signature is not None:
            _type(meaning, captured, signature)
        else:
            _show_pairs(meaning, captured)
        if not is_first:
            reasons = ["this ask was answered already", meaning.problem]
            meaning.problem = "; ".join(filter(None, reasons))
        return meaning

    def _asked(self, tag: bytes) -> tuple[bytes | None, bool]:
        """Give the command that an answer belongs to, and whether it is the first answer."""
        # Its own asks are the other side's to answer, unless it has both directions.
        for tables in (self._others, [self._own]):
            for asks in tables:
                if (name := asks.take(tag)) is not None:
                    return name, True
            for asks in tables:
                if (name := asks.answered(tag)) is not None:
                    return name, False
        return None, True


_PROTOCOL_KEYS: Final[Mapping[Kind, tuple[bytes, ...]]] = {
    "ask": (ASK, COMMAND),
    "command": (COMMAND,),
    "answer": (ANSWER,),
    "error": (ERROR, ERROR_CODE, ERROR_DESCRIPTION),
    "unknown": (),
}
"""The keys that say what a box is, which are told before its values."""


def _show_pairs(
    meaning: Meaning, captured: CapturedBox, known: Iterable[bytes] = (), note: str = ""
) -> None:
    told = {*_PROTOCOL_KEYS[meaning.kind], *known}
    meaning.entries += [
        Entry(printable(key), value, False, len(value), captured.offsets[key], note)
        for key, value in captured.box.items()
        if key not in told
    ]


def _type(meaning: Meaning, captured: CapturedBox, signature: Signature[Any, Any]) -> None:
    box = captured.box
    plan: Plan | None = None
    model: Any = None
    problem: BaseException | None = None
    try:
        if meaning.kind == "answer":
            plan = signature.answer
            model = signature.decode_answer(box, _number)
        elif meaning.kind == "error":
            plan, model, problem = _error(meaning, box, signature)
        else:
            plan = signature.arguments
            model = plan.decode(box, _number)
    except DecodeError as error:
        problem = error
    if problem is not None:
        meaning.problem = f"does not fit {signature.title}: {_one_line(problem)}"
    if plan is not None:
        meaning.entries += _fields(plan, model, captured)
    known = [key for field in plan.fields for key in field.keys_in(box)] if plan else []
    _show_pairs(meaning, captured, known, note="not declared")


def _number(number: int) -> int:
    """Stand for a descriptor: a capture has its number alone."""
    return number


def _error(
    meaning: Meaning, box: Box, signature: Signature[Any, Any]
) -> tuple[Plan | None, Any, BaseException | None]:
    error_type = signature.error_types.get(meaning.code or b"")
    if error_type is None:
        return None, None, None  # the protocol's own, or one that is not declared
    fatal = ", fatal" * signature.errors[error_type].is_fatal
    meaning.error_type = f"{error_type.__name__}{fatal}"
    error = signature.error_from(box)
    problem = error.__cause__ if isinstance(error, RemoteAmpError) else None
    if not issubclass(error_type, CommandError):
        return None, None, problem
    return error_type.__amp_fields_plan__(), error if problem is None else None, problem


def _fields(plan: Plan, model: Any, captured: CapturedBox) -> Iterable[Entry]:
    """Give the values of a model; where the box as a whole doesn't fit it, what can be read."""
    for field in plan.fields:
        keys = field.keys_in(captured.box)
        length = sum(len(captured.box[key]) for key in keys) if keys else None
        offset = captured.offsets[keys[0]] if keys else None
        note = "" if keys else "left out"
        if keys and isinstance(field.codec, DescriptorCodec):
            note = "the number of a descriptor"
        is_typed = True
        if model is not None:
            value = getattr(model, field.name)
        elif not keys:
            continue
        else:
            try:
                value = field.value_in(captured.box)
            except Exception:
                value, is_typed = b"".join(captured.box[key] for key in keys), False
                note = "can't be read"
                if _may_hide(_annotation(plan.model, field.name)):
                    value = HIDDEN
        if not _is_shown(plan.model, field.name):
            value = HIDDEN
        yield Entry(field.name, value, is_typed, length, offset, note)


def _pydantic_model(model: type) -> Any:
    return model.__amp_model__ if issubclass(model, CommandError) else model


def _is_shown(model: type, name: str) -> bool:
    """Whether a field is in the model's own `repr`."""
    if dataclasses.is_dataclass(model):
        return model.__dataclass_fields__[name].repr
    shown: bool = _pydantic_model(model).model_fields[name].repr
    return shown


def _annotation(model: type, name: str) -> Any:
    if dataclasses.is_dataclass(model):
        return model.__dataclass_fields__[name].type
    return _pydantic_model(model).model_fields[name].annotation


def _may_hide(annotation: Any, seen: frozenset[Any] = frozenset()) -> bool:
    """Whether a value of this type may hold what is not to be shown."""
    annotation, _, _ = split_annotated(annotation)
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return False
    if isinstance(annotation, (str, ForwardRef)):
        return True  # a name, which may stand for anything
    if isinstance(origin, type) and issubclass(origin, (Secret, SecretStr, SecretBytes)):
        return True
    parts = [*get_args(annotation)]
    if is_model(annotation) and annotation not in seen:
        seen |= {annotation}
        names = [
            *getattr(origin, "__dataclass_fields__", {}),
            *(origin.model_fields if issubclass(origin, BaseModel) else ()),
        ]
        if not all(_is_shown(origin, name) for name in names):
            return True
        parts += [_annotation(origin, name) for name in names]
    return any(_may_hide(part, seen) for part in parts)


def _one_line(problem: BaseException) -> str:
    text = str(problem) or type(problem).__name__
    return printable(text.encode("utf-8", "backslashreplace"))
