"""Errors with fields: made, shown, inherited, pickled, and sent to the caller."""

import copy
import pickle
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from tests.typed_values import Row, read
from typed_amp import AmpError, Command, CommandError, DefinitionError, EncodeError, Json, Key
from typed_amp.box import decode_boxes
from typed_amp.signature import error_fields


class OutOfStock(CommandError):
    sku: str
    left: int = 0


class Reserved(OutOfStock):
    until: str | None = None


class Worded(CommandError):
    sku: str

    def __init__(self, sku: str) -> None:
        super().__init__(sku=sku.upper())

    def __str__(self) -> str:
        return f"no {self.sku} left"


class Counted(CommandError):
    count: Annotated[int, Field(ge=0, le=9)] = Field(default=1)
    rows: list[Row] = Field(default_factory=list)
    details: Annotated[dict[str, int] | None, Json()] = None
    from_: Annotated[str, Key("from")] = "here"


class Hidden(CommandError):
    pin: str = Field(repr=False)
    tries: int


class MissingKey(CommandError, KeyError):
    key: str


class Fieldless(CommandError):
    pass


def pairs(error: BaseException) -> dict[bytes, bytes]:
    [box] = decode_boxes(error_fields(error) + b"\0\0")
    return box


def test_fields_are_attributes_and_have_defaults() -> None:
    error = OutOfStock(sku="A1")
    assert (error.sku, error.left) == ("A1", 0)
    assert isinstance(error, AmpError)


def test_fields_are_inherited() -> None:
    error = Reserved(sku="A1", until="noon")

    assert isinstance(error, OutOfStock)
    assert pairs(error) == {b"sku": b"A1", b"left": b"0", b"until": b"noon"}


def test_fields_of_several_bases_are_inherited() -> None:
    class Both(OutOfStock, Counted):
        pass

    error = Both(sku="A1", count=2)
    assert (error.sku, error.left, error.count, error.rows) == ("A1", 0, 2, [])


@pytest.mark.parametrize(
    ("error_type", "fields"),
    [
        (OutOfStock, {}),
        (OutOfStock, {"sku": 5}),
        (OutOfStock, {"sku": "A1", "other": 1}),
        (Counted, {"count": 10}),
        (Fieldless, {"any": 1}),
    ],
)
def test_the_constructor_checks_the_fields(error_type: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        error_type(**fields)


def test_the_constructor_takes_fields_by_name_alone() -> None:
    constructor: Any = OutOfStock
    with pytest.raises(TypeError):
        constructor("A1")


def test_defaults_are_not_shared() -> None:
    Counted().rows.append(Row(number=1))
    assert Counted().rows == []


def test_how_an_error_is_shown() -> None:
    assert str(OutOfStock(sku="A1")) == "sku='A1', left=0"
    assert repr(OutOfStock(sku="A1")) == "OutOfStock(sku='A1', left=0)"
    assert str(Fieldless()) == ""
    assert repr(Fieldless()) == "Fieldless()"
    assert str(Worded("a1")) == "no A1 left"
    assert str(MissingKey(key="a")) == "key='a'"
    assert str(Hidden(pin="1234", tries=2)) == "tries=2"
    assert repr(Hidden(pin="1234", tries=2)) == "Hidden(tries=2)"


@pytest.mark.parametrize(
    "make",
    [
        lambda: OutOfStock(sku="A1", left=2),
        lambda: Worded("a1"),
        Counted,
        lambda: MissingKey(key="a"),
    ],
)
@pytest.mark.parametrize(
    "copied",
    [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_an_error_survives_being_copied(make: Any, copied: Any) -> None:
    error = make()
    error.args = ("the peer's words",)
    error.add_note("a note")
    other = copied(error)

    assert type(other) is type(error)
    assert repr(other) == repr(error)
    assert other.args == ("the peer's words",)
    assert other.__notes__ == ["a note"]


def test_fields_travel_under_their_keys() -> None:
    error = Counted(rows=[Row(number=1)], details={"a": 1})
    assert pairs(error) == {
        b"count": b"1",
        b"rows": b"\0\6number\0\x011\0\0",
        b"details": b'{"a":1}',
        b"from": b"here",
    }


@pytest.mark.parametrize(
    "error", [OutOfStock(sku="A1"), Worded("a1"), Counted(count=0), Fieldless()], ids=repr
)
def test_fields_come_back(error: CommandError) -> None:
    decoded = type(error).__amp_fields_plan__().decode(pairs(error))
    assert type(decoded) is type(error)
    assert repr(decoded) == repr(error)


def test_a_field_that_was_spoilt_is_named() -> None:
    error = OutOfStock(sku="A1")
    error.left = "secret"  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(EncodeError, match=r"^OutOfStock\.left: .* of type str") as caught:
        error_fields(error)
    assert "secret" not in str(caught.value)

    del error.sku
    with pytest.raises(EncodeError, match=r"^OutOfStock\.sku: there is no value"):
        error_fields(error)


@pytest.mark.parametrize("name", ["args", "add_note", "with_traceback", "__cause__"])
def test_names_that_exceptions_have_already_are_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match=rf"Wrong\.{name}: .*Key\(\"{name}\"\)"):
        type("Wrong", (CommandError,), {"__annotations__": {name: str}, "__module__": __name__})


@pytest.mark.parametrize("name", ["self", "code", "description", "fields", "name", "errors"])
def test_other_names_are_the_users(name: str) -> None:
    error_type: Any = type(
        "Free", (CommandError,), {"__annotations__": {name: int}, "__module__": __name__}
    )
    error = error_type(**{name: 1})
    assert pairs(error) == {name.encode(): b"1"}
    assert getattr(error_type.__amp_fields_plan__().decode(pairs(error)), name) == 1


def test_a_field_without_a_codec_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.bad: .*Json\(\)"):

        class Wrong(CommandError):
            bad: dict[str, int]


def test_a_key_of_the_protocols_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.code: the key _error_code belongs"):

        class Wrong(CommandError):
            code: Annotated[int, Key("_error_code")]


def test_class_variables_and_methods_are_no_fields() -> None:
    class Retryable(CommandError):
        may_retry: ClassVar[bool] = True
        delay: int

        def double(self) -> int:
            return self.delay * 2

    error = Retryable(delay=2)
    assert pairs(error) == {b"delay": b"2"}
    assert error.double() == 4
    assert Retryable.may_retry


def test_validators_run() -> None:
    class Even(CommandError):
        number: int

        @field_validator("number")
        @classmethod
        def _even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("odd")
            return value

    with pytest.raises(ValidationError, match="odd"):
        Even(number=1)


def test_infinities_are_allowed_as_on_a_command() -> None:
    class Measured(CommandError):
        value: float

    assert pairs(Measured(value=float("inf"))) == {b"value": b"inf"}


class Early(CommandError):
    late: "Late"


class EarlyDerived(Early):
    more: "list[Late]" = []


class Never(CommandError):
    never: "NowhereWritten"  # type: ignore[name-defined] # noqa: F821 # pyright: ignore[reportUndefinedVariable]


class Late(BaseModel):
    number: int


def test_fields_may_be_of_a_class_that_is_written_later() -> None:
    error = EarlyDerived(late=Late(number=1), more=[Late(number=2)])
    decoded = EarlyDerived.__amp_fields_plan__().decode(pairs(error))
    assert decoded.more == [Late(number=2)]
    assert Early(late=Late(number=1)).late == Late(number=1)


def test_what_is_never_written_is_named_when_the_error_is_used() -> None:
    with pytest.raises(DefinitionError, match=r"^Never can't be used yet"):
        Never(never=1)


def test_an_error_within_a_function_may_name_what_is_written_later() -> None:
    class Local(CommandError):
        row: "LocalRow"

    class LocalRow(BaseModel):
        number: int

    class Do(Command, errors={Local: "LOCAL"}):
        pass

    error = Local(row=LocalRow(number=1))
    assert pairs(error) == {b"row": b"\0\6number\0\x011\0\0"}
    assert read(Do, {}) == Do()
