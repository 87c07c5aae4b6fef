"""Commands of Twisted's with all that is odd: keys, names, errors, arguments, inheritance."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.protocols import amp
from twisted.trial._dist.workercommands import Run  # noqa: F401 - imported, and not exported

ITEM: list[tuple[bytes, amp.Argument]] = [
    (b"price", amp.Decimal()),
    (b"class", amp.Unicode()),
    (b"bits", amp.AmpList([(b"bit", amp.Boolean()), (b"at", amp.DateTime(optional=True))])),
]


class Shout(amp.Unicode):
    """Written as its base is."""


class Money(amp.Argument):
    """Written as nothing else is."""

    def fromString(self, inString: bytes) -> Any:
        return int(inString, 16)

    def toString(self, inObject: Any) -> Any:
        return b"%x" % inObject


class Big(amp.Argument):
    """Written under keys of its own."""

    def fromBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        objects[name.decode()] = b"".join(strings[b"%b.%d" % (name, n)] for n in range(2))

    def toBox(self, name: bytes, strings: Any, objects: Any, proto: Any) -> None:
        for n in range(2):
            strings[b"%b.%d" % (name, n)] = objects[name.decode()][n::2]


class ShopError(Exception):
    pass


class TimeoutError(Exception):
    """Has a builtin's name."""


class CodedError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)


class Outer:
    class InnerError(Exception):
        pass

    class OtherError(Exception):
        pass


def hidden_error() -> type[Exception]:
    class HiddenError(Exception):
        pass

    return HiddenError


HiddenError = hidden_error()


class Keys(amp.Command):
    r"""Keys that L{Python} can't spell, or that pydantic has taken, "quoted" and with a \ in it.

    This paragraph is longer than a line may be, so that it must be wrapped anew, as
    C{ruff} has it.

      - a list stays
      - as it is

    @param nothing: is said here.
    """

    arguments = [
        (b"class", amp.Integer()),
        (b"copy", amp.Integer()),
        (b"model_config", amp.Unicode()),
        (b"model_dump", amp.Unicode(optional=True)),
        (b"model_id", amp.Unicode()),
        (b"json", amp.String()),
        (b"_private", amp.Integer()),
        (b"two words", amp.Integer()),
        (b"two-words", amp.Integer()),
        (b"1st", amp.Integer()),
        (b'"', amp.Boolean()),
        (b"int", amp.Integer()),
        (b"datetime", amp.DateTime(optional=True)),
        (b"match", amp.Unicode()),
        (b"id", amp.Unicode()),
        (b"list", amp.ListOf(amp.Integer())),
        (b"n" * 120, amp.Integer()),
        (b"n" * 70 + b"-" + b"m" * 40, amp.ListOf(amp.Path(), optional=True)),
    ]
    response = arguments


class Rows(amp.Command):
    arguments = [
        (b"items", amp.AmpList(ITEM)),
        (b"more", amp.AmpList(ITEM, optional=True)),
        (b"floats", amp.ListOf(amp.ListOf(amp.Float()))),
        (b"nothing", amp.AmpList([])),
    ]
    response = [(b"items", amp.AmpList(ITEM)), (b"paths", amp.ListOf(amp.Path()))]


class RowsAnswer(amp.Command):
    """Has the name that the answer of another would have."""

    arguments = [(b"shout", Shout())]


class Decimal(amp.Command):
    """Has the name of something that is imported."""

    arguments = [(b"value", amp.Decimal())]
    response = [(b"value", amp.Decimal())]


class Base(amp.Command):
    arguments = [(b"a", amp.Integer())]
    errors = {KeyError: b"KEY"}
    fatalErrors = {ShopError: b"SHOP"}


class Inherits(Base):
    """Its name is its own."""

    arguments = [*Base.arguments, (b"b", amp.Unicode())]
    errors = {ConnectionDone: b"DONE", Outer.InnerError: b"INNER", Outer.OtherError: b"OTHER"}


class Overrides(Base):
    commandName = b'over"rides'
    fatalErrors = {TimeoutError: b"TIMEOUT"}


class ManyErrors(amp.Command):
    errors = {
        ZeroDivisionError: b"ZERO_DIVISION_IS_NOT_ALLOWED_HERE",
        NotImplementedError: b"NOT_IMPLEMENTED_YET_BUT_SOON",
        PermissionError: b"PERMISSION",
    }
    fatalErrors = {MemoryError: b"MEMORY"}


class NoteThis(amp.Command):
    commandName = b"note-this"
    arguments = [(b"text", amp.Unicode())]
    requiresAnswer = False


class EmptyLines(amp.Command):
    arguments = [(b"value", amp.Integer(optional=True))]


class _Hidden(amp.Command):
    pass


Alias = EmptyLines
