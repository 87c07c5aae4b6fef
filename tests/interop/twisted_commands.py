"""The commands of these tests, as Twisted has them; `commands` has typed_amp's."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from twisted.protocols import amp

from tests.interop.twisted_large import Compressed, FromOne, FromZero

PART: list[tuple[bytes, amp.Argument]] = [
    (b"code", amp.String()),
    (b"weights", amp.ListOf(amp.Float())),
]
ROW: list[tuple[bytes, amp.Argument]] = [
    (b"name", amp.Unicode()),
    (b"count", amp.Integer()),
    (b"when", amp.DateTime(optional=True)),
    (b"tags", amp.ListOf(amp.Unicode())),
    (b"parts", amp.AmpList(PART)),
]


class EchoInteger(amp.Command):
    arguments = response = [(b"value", amp.Integer())]


class EchoString(amp.Command):
    arguments = response = [(b"value", amp.String())]


class EchoUnicode(amp.Command):
    arguments = response = [(b"value", amp.Unicode())]


class EchoFloat(amp.Command):
    arguments = response = [(b"value", amp.Float())]


class EchoBoolean(amp.Command):
    arguments = response = [(b"value", amp.Boolean())]


class EchoDecimal(amp.Command):
    arguments = response = [(b"value", amp.Decimal())]


class EchoDateTime(amp.Command):
    arguments = response = [(b"value", amp.DateTime())]


class EchoPath(amp.Command):
    arguments = response = [(b"value", amp.Path())]


class EchoIntegers(amp.Command):
    arguments = response = [(b"value", amp.ListOf(amp.Integer()))]


class EchoStrings(amp.Command):
    arguments = response = [(b"value", amp.ListOf(amp.String()))]


class EchoDateTimes(amp.Command):
    arguments = response = [(b"value", amp.ListOf(amp.DateTime()))]


class EchoPaths(amp.Command):
    arguments = response = [(b"value", amp.ListOf(amp.Path()))]


class EchoNested(amp.Command):
    arguments = response = [(b"value", amp.ListOf(amp.ListOf(amp.ListOf(amp.Unicode()))))]


class EchoRows(amp.Command):
    arguments = response = [(b"value", amp.AmpList(ROW))]


class EchoRow(amp.Command):
    arguments = response = [(b"value", amp.AmpList(ROW))]


class EchoLargeBytes(amp.Command):
    arguments = response = [(b"value", FromOne(amp.String()))]


class EchoLargeText(amp.Command):
    arguments = response = [(b"value", FromZero(amp.Unicode()))]


class EchoCompressedBytes(amp.Command):
    arguments = response = [(b"value", Compressed(amp.String()))]


class EchoOptionals(amp.Command):
    arguments = response = [
        (b"number", amp.Integer(optional=True)),
        (b"text", amp.Unicode(optional=True)),
        (b"flag", amp.Boolean(optional=True)),
        (b"numbers", amp.ListOf(amp.Integer(), optional=True)),
        (b"rows", amp.AmpList(ROW, optional=True)),
    ]


class EchoLetter(amp.Command):
    arguments = response = [(b"from", amp.Unicode()), (b"message-id", amp.Integer())]


class Ping(amp.Command):
    commandName = "typed-amp/ping é".encode()


class OutOfStockError(Exception):
    pass


class SoldOutError(Exception):
    pass


class RefusedError(Exception):
    pass


class BrokenError(Exception):
    pass


class TwistedAloneError(Exception):
    """Declared here, and not at our side."""


class Fail(amp.Command):
    arguments = [(b"error", amp.Unicode())]
    errors = {
        OutOfStockError: b"OUT_OF_STOCK",
        SoldOutError: b"SOLD_OUT",
        RefusedError: b"REFUSED",
        KeyError: b"NO_SUCH_KEY",
        TwistedAloneError: b"TWISTED_ALONE",
    }
    fatalErrors = {BrokenError: b"BROKEN"}


class Wait(amp.Command):
    pass


class Strict(amp.Command):
    arguments = response = [(b"value", amp.Integer())]


class Demanding(amp.Command):
    arguments = [(b"value", amp.Integer())]


class Unheard(amp.Command):
    pass


class UnheardNote(amp.Command):
    requiresAnswer = False


class Note(amp.Command):
    arguments = [(b"line", amp.Unicode())]
    requiresAnswer = False


class Notes(amp.Command):
    response = [(b"value", amp.ListOf(amp.Unicode()))]


class Gather(amp.Command):
    arguments = [(b"number", amp.Integer()), (b"total", amp.Integer())]
    response = [(b"value", amp.Integer())]


class Bounce(amp.Command):
    arguments = [(b"left", amp.Integer())]
    response = [(b"value", amp.Integer())]


class WhoAmI(amp.Command):
    response = [(b"value", amp.Unicode())]


class Subscribe(amp.Command):
    arguments = [(b"lines", amp.Integer())]


class PrepareTLS(amp.Command):
    arguments = [(b"certificate", amp.Unicode()), (b"authority", amp.Unicode())]


class BeginTLS(amp.Command):
    arguments = [(b"certificate", amp.Unicode()), (b"authority", amp.Unicode())]


class SwitchToShouting(amp.ProtocolSwitchCommand):
    arguments = [(b"outcome", amp.Unicode())]
    errors = {RefusedError: b"REFUSED"}


class Introduce(amp.Command):
    response = [(b"value", amp.Unicode())]


class OpenFile(amp.Command):
    arguments = [(b"path", amp.Path())]
    response = [(b"descriptor", amp.Descriptor())]


class WriteTo(amp.Command):
    arguments = [(b"descriptor", amp.Descriptor()), (b"text", amp.Unicode())]


class WriteToAll(amp.Command):
    arguments = [
        (b"rows", amp.AmpList([(b"descriptor", amp.Descriptor()), (b"text", amp.Unicode())])),
        (b"last", amp.Descriptor(optional=True)),
    ]
