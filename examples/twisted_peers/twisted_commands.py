"""The commands as Twisted writes them."""

# Twisted reads these lists from the class, and is only partly annotated.
# ruff: noqa: RUF012
# mypy: disable-error-code="no-untyped-call"

from twisted.protocols import amp


class Sum(amp.Command):
    arguments = [(b"a", amp.Integer()), (b"b", amp.Integer())]
    response = [(b"total", amp.Integer())]


class Divide(amp.Command):
    arguments = [(b"numerator", amp.Integer()), (b"denominator", amp.Integer())]
    response = [(b"result", amp.Float())]
    errors = {ZeroDivisionError: b"ZERO_DIVISION"}
