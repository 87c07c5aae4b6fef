"""Signatures: what a command's answer and errors are on the wire, and what comes of a peer's."""

import ssl
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tests.typed_values import Page, PlainPage, PlainRow, Row, Tree
from typed_amp import (
    Box,
    Command,
    CommandError,
    DecodeError,
    DefinitionError,
    EncodeError,
    InvalidArgumentsError,
    RemoteAmpError,
    StartTLS,
    UnhandledCommandError,
    UnknownRemoteError,
)
from typed_amp.signature import error_fields, remote_error


class OutOfStock(CommandError):
    sku: str
    left: int = 0


class Choosy(Exception):
    """Made from a text, but not from every one."""

    def __init__(self, text: str) -> None:
        if text == "bad":
            raise RuntimeError("no")
        super().__init__(text)


class Receipt(BaseModel):
    number: Annotated[int, Field(ge=0)]

    @field_validator("number")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value


class Buy(
    Command[Receipt],
    errors={
        OutOfStock: "OUT_OF_STOCK",
        KeyError: "NO_SUCH_SKU",
        Choosy: "CHOOSY",
        LookupError: "LOOKUP",
    },
    fatal_errors={MemoryError: "MEMORY"},
):
    sku: str


class Ping(Command):
    pass


class GetPage(Command[Page[int]]):
    pass


class GetPlainPage(Command[PlainPage[int]]):
    pass


class GetPlain(Command[PlainRow]):
    pass


BUY = Buy.__amp_signature__()
PING = Ping.__amp_signature__()


def error_box(code: bytes, description: bytes = b"words", **fields: bytes) -> Box:
    more = {name.encode(): value for name, value in fields.items()}
    return {b"_error": b"1", b"_error_code": code, b"_error_description": description, **more}


# Answers.


def test_an_answer_stands_behind_its_head() -> None:
    assert BUY.encode_answer(Receipt(number=2), b"head") == b"head\0\6number\0\x012\0\0"
    assert PING.encode_answer(None, b"head") == b"head\0\0"


def test_an_answer_is_read_with_its_validators() -> None:
    assert BUY.decode_answer({b"_answer": b"1", b"number": b"2"}) == Receipt(number=2)
    assert PING.decode_answer({b"_answer": b"1", b"more": b"ignored"}) is None


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ({}, "the answer to Buy.number: Field required"),
        ({b"number": b"x"}, "the answer to Buy.number: not an integer"),
        ({b"number": b"1"}, "the answer to Buy.number: Value error, odd"),
        ({b"number": b"-2"}, "the answer to Buy.number: Input should be greater than or equal"),
    ],
)
def test_an_answer_that_is_not_the_declared_one_is_refused(box: Box, problem: str) -> None:
    with pytest.raises(DecodeError) as caught:
        BUY.decode_answer(box)
    assert str(caught.value).startswith(problem)


def test_an_answer_that_is_not_declared_is_not_sent() -> None:
    with pytest.raises(EncodeError, match=r"^Ping has no answer, but its responder returned a str"):
        PING.encode_answer("secret", b"")
    with pytest.raises(
        EncodeError, match=r"^Buy is answered with a Receipt, but its responder returned a NoneType"
    ):
        BUY.encode_answer(None, b"")
    with pytest.raises(EncodeError, match=r"^Buy is answered with a Receipt, .* a Tree$"):
        BUY.encode_answer(Tree(name=""), b"")


def test_an_answer_with_a_wrong_value_is_not_sent() -> None:
    with pytest.raises(EncodeError, match=r"^Receipt\.number: "):
        values: dict[str, Any] = {"number": "secret"}
        BUY.encode_answer(Receipt.model_construct(**values), b"")


def test_a_subclass_of_the_answer_is_sent_as_the_answer() -> None:
    class Long(Receipt):
        more: int = 1

    assert BUY.encode_answer(Long(number=2), b"") == b"\0\6number\0\x012\0\0"


def test_a_generic_answer_may_be_made_without_its_parameters() -> None:
    expected = b"\0\5items\0\3\0\x011\0\0"
    assert GetPage.__amp_signature__().encode_answer(Page[int](items=[1]), b"") == expected
    assert GetPlainPage.__amp_signature__().encode_answer(PlainPage([1]), b"") == expected
    # As type checkers read it, this is a Page[int] too.
    assert GetPage.__amp_signature__().encode_answer(Page(items=[1]), b"") == expected


def test_an_answer_that_forbids_unknown_keys() -> None:
    class Exact(BaseModel):
        model_config = ConfigDict(extra="forbid")

    class Get(Command[Exact]):
        pass

    signature = Get.__amp_signature__()
    assert signature.decode_answer({b"_answer": b"1", b"_details": b"x"}) == Exact()
    with pytest.raises(DecodeError, match=r"^the answer to Get\.more: no such field"):
        signature.decode_answer({b"_answer": b"1", b"more": b"1"})


def test_the_cause_of_a_refused_answer_is_kept() -> None:
    class Broken(BaseModel):
        number: int

        @field_validator("number")
        @classmethod
        def _fail(cls, value: int) -> int:
            return 1 // value

    class Get(Command[Broken]):
        pass

    with pytest.raises(DecodeError) as caught:
        Get.__amp_signature__().decode_answer({b"number": b"0"})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_dataclass_is_an_answer() -> None:
    signature = GetPlain.__amp_signature__()
    assert signature.encode_answer(PlainRow(1), b"").endswith(b"default\0\0")
    assert signature.decode_answer({b"number": b"1"}) == PlainRow(1)
    with pytest.raises(EncodeError, match="answered with a PlainRow"):
        signature.encode_answer(Row(number=1), b"")


# Errors that are sent.


class SoldOut(OutOfStock):
    pass


class Strange(SoldOut, KeyError):
    pass


@pytest.mark.parametrize(
    ("error", "code", "is_fatal"),
    [
        (OutOfStock(sku="A1"), b"OUT_OF_STOCK", False),
        (SoldOut(sku="A1"), b"OUT_OF_STOCK", False),
        (Strange(sku="A1"), b"OUT_OF_STOCK", False),
        (KeyError("A1"), b"NO_SUCH_SKU", False),
        (IndexError("A1"), b"LOOKUP", False),
        (MemoryError(), b"MEMORY", True),
    ],
    ids=repr,
)
def test_an_error_travels_as_the_nearest_of_its_classes(
    error: Exception, code: bytes, is_fatal: bool
) -> None:
    assert BUY.declared(error) == (code, is_fatal)


@pytest.mark.parametrize("error", [ValueError(), Exception(), KeyboardInterrupt()], ids=repr)
def test_other_errors_are_not_declared(error: BaseException) -> None:
    assert BUY.declared(error) is None


def test_an_error_without_fields_has_none_to_send() -> None:
    assert error_fields(KeyError("A1")) == b""
    assert error_fields(SoldOut(sku="A1")) == b"\0\3sku\0\2A1\0\4left\0\x010"


# Errors that arrive.


@pytest.mark.parametrize(
    ("code", "error_type"),
    [
        (b"UNHANDLED", UnhandledCommandError),
        (b"UNKNOWN", UnknownRemoteError),
        (b"INVALID_ARGUMENTS", InvalidArgumentsError),
        (b"OTHER", RemoteAmpError),
    ],
)
def test_a_code_that_is_not_declared_is_a_remote_error(
    code: bytes, error_type: type[RemoteAmpError]
) -> None:
    error = BUY.error_from(error_box(code))

    assert type(error) is error_type
    assert isinstance(error, RemoteAmpError)
    assert (error.code, error.description) == (code.decode(), "words")
    assert error.__cause__ is None


def test_a_declared_error_is_made_from_its_text() -> None:
    error = BUY.error_from(error_box(b"NO_SUCH_SKU", "ż".encode()))
    assert type(error) is KeyError
    assert error.args == ("ż",)


def test_a_declared_error_comes_with_its_fields() -> None:
    error = BUY.error_from(error_box(b"OUT_OF_STOCK", b"the peer's words", sku=b"A1", left=b"3"))

    assert type(error) is OutOfStock
    assert (error.sku, error.left) == ("A1", 3)
    assert str(error) == "the peer's words"
    assert repr(error) == "OutOfStock(sku='A1', left=3)"


def test_fields_with_defaults_may_be_missing() -> None:
    error = BUY.error_from(error_box(b"OUT_OF_STOCK", sku=b"A1"))
    assert isinstance(error, OutOfStock)
    assert error.left == 0


@pytest.mark.parametrize("fields", [{}, {"sku": b"\xff"}, {"sku": b"A1", "left": b"x"}])
def test_an_error_whose_fields_are_missing_or_wrong_is_a_remote_error(
    fields: dict[str, bytes],
) -> None:
    error = BUY.error_from(error_box(b"OUT_OF_STOCK", **fields))

    assert type(error) is RemoteAmpError
    assert (error.code, error.description) == ("OUT_OF_STOCK", "words")
    assert isinstance(error.__cause__, DecodeError)


def test_an_error_that_cant_be_made_is_a_remote_error() -> None:
    error = BUY.error_from(error_box(b"CHOOSY", b"bad"))

    assert type(error) is RemoteAmpError
    assert error.code == "CHOOSY"
    assert isinstance(error.__cause__, RuntimeError)


def test_code_and_description_may_be_no_text_or_missing() -> None:
    error = BUY.error_from(error_box(b"\xff", b"\xfe"))
    assert isinstance(error, RemoteAmpError)
    assert (error.code, error.description) == (r"\xff", r"\xfe")

    error = BUY.error_from({b"_error": b"1"})
    assert isinstance(error, RemoteAmpError)
    assert (error.code, error.description) == ("", "")


def test_an_error_sent_is_the_error_that_arrives() -> None:
    sent = SoldOut(sku="A1", left=2)
    fields = {b"sku": b"A1", b"left": b"2"}
    assert error_fields(sent) == OutOfStock.__amp_fields_plan__().encode(sent, b"")[:-2]

    arrived = BUY.error_from({**error_box(b"OUT_OF_STOCK", str(sent).encode()), **fields})

    assert type(arrived) is OutOfStock  # the declared class: the caller need know no other
    assert str(arrived) == str(sent)


def test_the_name_of_a_class_may_be_too_long() -> None:
    with pytest.raises(DefinitionError, match="the name must have 1 to 65,535 bytes"):
        type("N" * 65_536, (Command,), {"__module__": __name__})


def test_a_command_that_changes_what_is_spoken_is_answered_with_what_follows() -> None:
    signature = StartTLS.__amp_signature__()
    assert signature.transition is ssl.SSLContext
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert signature.encode_answer(context, b"head") == b"head\0\0"
    with pytest.raises(EncodeError, match="answered with a SSLContext"):
        signature.encode_answer(None, b"head")


def test_an_error_in_parts() -> None:
    sent = SoldOut(sku="A1", left=2)
    assert BUY.error_parts(sent) == (str(sent), error_fields(sent))
    assert BUY.error_parts(KeyError("A1")) == ("'A1'", b"")


def test_an_error_that_nobody_declares_keeps_its_pairs() -> None:
    error = remote_error({**error_box(b"ANY", b"words"), b"key": b"\xff"})
    assert (error.code, error.description, error.fields) == ("ANY", "words", {b"key": b"\xff"})
    assert remote_error({b"_error": b"1"}).fields == {}
