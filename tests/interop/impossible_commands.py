"""Commands of Twisted's of which something can't be turned."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any, cast

from twisted.protocols import amp

from tests.interop.odd_commands import Big, CodedError, HiddenError, Money


class Pay(amp.Command):
    """Pay."""

    arguments = [
        (b"to", amp.Unicode()),
        (b"self", amp.Unicode()),
        (b"amount", Money()),
        (b"receipts", amp.ListOf(Money())),
        (b"scan", Big()),
        (b"lists", amp.ListOf(amp.AmpList([]))),
        (b"_command", amp.Unicode()),
        (b"", amp.Unicode()),
        (b"to", amp.Integer()),
    ]
    response = [(b"change", Money(optional=True))]
    errors = {
        CodedError: b"CODED",
        HiddenError: b"HIDDEN",
        KeyError: b"KEY",
        ValueError: b"SAME",
        TypeError: b"SAME",
        IndexError: b"\xff",
        cast("type[Exception]", KeyboardInterrupt): b"INTERRUPT",
    }


class OnlyMoney(amp.Command):
    arguments = [(b"amount", Money())]


class NoAnswer(amp.Command):
    response = [(b"value", amp.Integer())]
    requiresAnswer = False


class Unnamed(amp.Command):
    commandName = b"\xff"


class Custom(amp.Command):
    @classmethod
    def makeArguments(cls, objects: Any, proto: Any) -> Any:
        return amp.Box(x=b"y")
