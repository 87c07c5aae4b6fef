"""Plans: a model becomes a box, and a box a model, or an error that says which field and why."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from tests.strategies import rows
from tests.typed_values import (
    Access,
    Chain,
    CheckedRow,
    Colour,
    Everything,
    FrozenRow,
    Level,
    Page,
    PlainPage,
    PlainRow,
    Row,
    SlottedRow,
    Tree,
    any_bytes,
    commands,
    list_of,
    read,
    same,
    unchecked,
    write,
)
from typed_amp import Codec, Command, DecodeError, EncodeError, Json, Key, TooLongError, encode_box
from typed_amp.box import MAX_VALUE_LENGTH
from typed_amp.planning import plan_for

SECRET = "correct horse battery staple"


class Order(Command):
    sku: str
    count: int = 1
    note: str | None = None
    from_: Annotated[str, Key("from")] = "here"


def test_required_fields_and_defaults_are_written_and_none_is_left_out() -> None:
    assert write(Order(sku="A1")) == {b"sku": b"A1", b"count": b"1", b"from": b"here"}


def test_keys_are_in_the_order_of_the_fields_behind_the_head() -> None:
    data = plan_for(Order).encode(Order(sku="A1", note=""), b"head")
    assert data == b"head" + encode_box(
        {b"sku": b"A1", b"count": b"1", b"note": b"", b"from": b"here"}
    )


def test_missing_keys_become_defaults_and_none() -> None:
    assert read(Order, {b"sku": b"A1"}) == Order(sku="A1")


def test_a_missing_required_key_is_named() -> None:
    with pytest.raises(DecodeError, match=r"^sku: Field required$") as caught:
        read(Order, {b"count": b"1"})
    assert caught.value.location == ("sku",)


def test_unknown_keys_are_ignored() -> None:
    assert read(Order, {b"sku": b"A1", b"colour": b"red", b"_ask": b"1"}) == Order(sku="A1")


def test_a_percent_sign_in_a_key_is_a_percent_sign() -> None:
    class Discount(Command):
        rate: Annotated[int, Key("%")]
        limit: Annotated[int | None, Key("%b")] = None

    command = Discount(rate=1, limit=2)

    assert write(command) == {b"%": b"1", b"%b": b"2"}
    assert read(Discount, write(command)) == command


def test_a_model_without_fields_is_an_empty_box() -> None:
    class Ping(Command):
        pass

    assert plan_for(Ping).encode(Ping(), b"") == b"\0\0"
    assert read(Ping, {}) == Ping()


@given(command=commands())
def test_every_command_comes_back(command: Command) -> None:
    box = write(command)
    decoded = read(type(command), box)

    assert decoded == command
    assert write(decoded) == box


@given(data=st.data())
def test_any_box_is_a_command_or_a_decode_error(data: st.DataObject) -> None:
    keys = [field.key for field in plan_for(Everything).fields]
    box = data.draw(
        st.dictionaries(st.sampled_from(keys), any_bytes | row_values, max_size=3) | rows
    )
    try:
        command = read(Everything, box)
    except DecodeError:
        return
    assert same(read(Everything, write(command)), command)


def _row(box: dict[bytes, bytes]) -> bytes:
    return encode_box(box) if box else b"\0\0"


row_values = rows.map(_row).filter(lambda data: len(data) <= MAX_VALUE_LENGTH)


@pytest.mark.parametrize("key", [field.key.decode() for field in plan_for(Everything).fields])
@given(data=any_bytes)
def test_any_bytes_are_a_value_of_the_field_or_a_decode_error(key: str, data: bytes) -> None:
    try:
        command = read(Everything, {key.encode(): data})
    except DecodeError as error:
        refused = error
    else:
        assert same(read(Everything, write(command)), command)
        return
    assert refused.location[0] == key


@pytest.mark.parametrize("name", ["child", "children"])
def test_rows_nested_too_deeply_are_a_decode_error(name: str) -> None:
    class Node(BaseModel):
        child: "Node | None" = None
        children: "list[Node]" = []

    data = b"\0\0"
    while len(data) < 65_000:
        data = encode_box({name.encode(): data})

    with pytest.raises(DecodeError, match=f"^{name}.*: nested too deeply$"):
        read(Node, {name.encode(): data})


def test_a_wide_tree_comes_back() -> None:
    tree = Tree(name="root", children=[Tree(name="leaf")] * 1_000)
    assert read(Tree, write(tree)) == tree


def test_a_model_that_holds_itself_is_an_encode_error() -> None:
    chain = Chain()
    chain.next = chain
    with pytest.raises(EncodeError, match=r"^Chain\.next: "):
        write(chain)


# What is refused, and what the refusal says.


class Account(Command):
    name: str
    age: int = 1
    level: Level = Level.LOW
    born: date | None = None
    tags: list[int] = []
    rows: list[Row] = []
    limits: Annotated[dict[str, int], Json()] = {}
    choice: Literal["a", "b"] = "a"
    balance: Annotated[Decimal, Field(ge=0)] = Decimal(0)


@pytest.mark.parametrize(
    ("key", "data", "location"),
    [
        (b"name", SECRET.encode() + b"\xff", "name"),
        (b"age", SECRET.encode(), "age"),
        (b"age", b"9" * 4_000 + b"x", "age"),
        (b"level", b"12345", "level"),
        (b"born", SECRET.encode(), "born"),
        (b"tags", list_of(b"1", SECRET.encode()), "tags.1"),
        (b"rows", encode_box({b"number": b"1"}) + encode_box({b"number": b"x"}), "rows.1.number"),
        (b"rows", encode_box({b"text": SECRET.encode()}), "rows.0.number"),
        (b"limits", f'{{"a":"{SECRET}"}}'.encode(), "limits.a"),
        (b"choice", SECRET.encode(), "choice"),
        (b"balance", b"-12345", "balance"),
        (b"balance", b"sNaN", "balance"),
    ],
)
def test_a_refused_value_is_located_and_not_told(key: bytes, data: bytes, location: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read(Account, {b"name": b"", key: data})

    message = str(caught.value)
    assert message.startswith(f"{location}: ")
    assert SECRET not in message
    assert "12345" not in message
    assert caught.value.__cause__ is None


def test_all_that_the_model_refuses_is_told() -> None:
    class Pair(Command):
        low: Annotated[int, Field(ge=0)]
        high: Annotated[int, Field(ge=0)]

    with pytest.raises(DecodeError) as caught:
        read(Pair, {b"low": b"-1", b"high": b"-2"})

    problem = "Input should be greater than or equal to 0"
    assert str(caught.value) == f"low: {problem}; high: {problem}"


@pytest.mark.parametrize(
    ("values", "field_name", "type_name"),
    [
        ({"age": SECRET}, "age", "str"),
        ({"age": None}, "age", "NoneType"),
        ({"name": b"octets"}, "name", "bytes"),
        ({"level": object()}, "level", "object"),
        ({"born": SECRET}, "born", "str"),
        ({"tags": 5}, "tags", "int"),
        ({"limits": {"a": SECRET}}, "limits", "dict"),
        ({"rows": [SECRET]}, "rows", "str"),
        ({"rows": SECRET}, "rows", "str"),
        ({"balance": SECRET}, "balance", "str"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_and_not_told(
    values: dict[str, Any], field_name: str, type_name: str
) -> None:
    complete = vars(Account(name="")) | values
    with pytest.raises(EncodeError) as caught:
        write(unchecked(Account, **complete))

    message = str(caught.value)
    assert message.startswith(f"Account.{field_name}: ")
    assert type_name in message
    assert SECRET not in message


def test_a_missing_value_is_named() -> None:
    with pytest.raises(EncodeError, match=r"^Account\.name: there is no value"):
        write(unchecked(Account))


def test_the_field_that_is_wrong_is_blamed_and_not_a_later_one() -> None:
    class Two(Command):
        octets: bytes
        number: int

    with pytest.raises(EncodeError, match=r"Two\.octets: .* of type str"):
        write(unchecked(Two, octets="text", number=1))


def test_a_codec_that_gives_no_bytes_is_blamed() -> None:
    class Lying(Codec[int]):
        def encode(self, value: int) -> bytes:
            return str(value)  # type: ignore[return-value] # pyright: ignore[reportReturnType]

        def decode(self, data: bytes) -> int:
            return int(data)

    class Lie(Command):
        lie: Annotated[int, Lying()]
        truth: int = 1

    with pytest.raises(EncodeError, match=r"Lie\.lie: Lying"):
        write(Lie(lie=1))


@pytest.mark.parametrize("error_type", [OverflowError, RuntimeError, KeyError])
def test_whatever_a_codec_raises_is_the_cause(error_type: type[Exception]) -> None:
    class Failing(Codec[int]):
        def encode(self, value: int) -> bytes:
            raise error_type(SECRET)

        def decode(self, data: bytes) -> int:
            raise error_type(SECRET)

    class Fail(Command):
        number: Annotated[int, Failing()]

    with pytest.raises(EncodeError, match=r"Fail\.number: Failing can't write") as encoding:
        write(Fail(number=1))
    with pytest.raises(DecodeError, match=f"^number: {error_type.__name__}") as decoding:
        read(Fail, {b"number": b"1"})

    assert isinstance(encoding.value.__cause__, error_type)
    assert isinstance(decoding.value.__cause__, error_type)
    assert SECRET not in str(encoding.value) + str(decoding.value)


def test_a_text_with_surrogates_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"^Account\.name: a text with surrogates"):
        write(Account(name="").model_copy(update={"name": "\ud800"}))


@pytest.mark.parametrize(
    ("values", "what", "length"),
    [
        ({"sku": "ż" * 32_768}, "Order.sku", 65_536),
        ({"sku": "", "note": "a" * 70_000}, "Order.note", 70_000),
        ({"sku": "", "count": 10**65_535}, "Order.count", 65_536),
    ],
)
def test_a_value_that_is_too_long_is_named(values: Any, what: str, length: int) -> None:
    with pytest.raises(TooLongError) as caught:
        write(Order(**values))

    error = caught.value
    assert (error.what, error.length, error.limit) == (what, length, 65_535)
    assert str(error) == (
        f"{what} is {length:,} bytes long; AMP carries at most 65,535 in one value."
        " Mark the field with Large() on both sides to send it in slices"
    )


def test_a_value_of_65_535_bytes_is_carried() -> None:
    order = Order(sku="a" * 65_535, count=-(10**65_533))
    assert read(Order, write(order)) == order


class Texts(Command):
    texts: list[str] = []
    trees: list[Tree] = []


def test_elements_and_rows_that_are_too_long_are_named() -> None:
    with pytest.raises(TooLongError) as element:
        write(Texts(texts=["", "a" * 65_536]))
    with pytest.raises(TooLongError) as row:
        write(Texts(trees=[Tree(name="", children=[Tree(name="a" * 65_536)])]))
    with pytest.raises(TooLongError) as rows_together:
        write(Texts(trees=[Tree(name="a" * 40_000)] * 2))

    assert element.value.what == "Texts.texts: element 1"
    assert "no element of it: put Json() beside it" in str(element.value)
    assert row.value.what == "Texts.trees: Tree.children: Tree.name"
    assert "Mark the field with Large()" in str(row.value)
    assert rows_together.value.what == "Texts.trees"


def test_another_model_than_the_plans_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"^a Tree is no Row$"):
        write(Tree(name=""), Row)
    with pytest.raises(EncodeError, match=r"^a str is no PlainRow$"):
        write("text", PlainRow)


def test_a_row_of_another_model_is_refused() -> None:
    class Rows(Command):
        rows: list[Row] = []
        row: Row | None = None

    wrong = Tree(name="")
    with pytest.raises(EncodeError, match=r"Rows\.rows: a Tree where Row is declared"):
        write(unchecked(Rows, rows=[wrong], row=None))
    with pytest.raises(EncodeError, match=r"Rows\.row: a Tree where Row is declared"):
        write(unchecked(Rows, rows=[], row=wrong))


@pytest.fixture
def low_int_digits_limit() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.usefixtures("low_int_digits_limit")
@pytest.mark.parametrize("digits", [640, 641, 3_999, 4_000, 60_000])
def test_an_integer_has_any_number_of_digits(digits: int) -> None:
    order = Order(sku="", count=10 ** (digits - 1))
    assert read(Order, write(order)).count == order.count


# What the model's own configuration asks for.


def test_extra_forbid_refuses_unknown_keys_but_for_those_of_extensions() -> None:
    class Exact(Command, extra="forbid"):
        number: Annotated[int, Key("n")] = 0

    assert read(Exact, {b"n": b"1", b"_ask": b"2", b"_trace": b"x"}) == Exact(number=1)
    with pytest.raises(DecodeError, match=r"^number: no such field$"):
        read(Exact, {b"number": b"1"})
    with pytest.raises(DecodeError, match=r"^a\\nb: no such field$"):
        read(Exact, {b"a\nb": b"1"})


def test_extra_forbid_of_a_dataclass_counts() -> None:
    @pydantic_dataclass(config=ConfigDict(extra="forbid"))
    class Exact:
        number: int = 0

    with pytest.raises(DecodeError, match=r"^other: no such field$"):
        read(Exact, {b"other": b"1"})


def test_extra_allow_sends_what_is_declared() -> None:
    class Open(Command, extra="allow"):
        number: int

    command = Open.model_validate({"number": 1, "other": 2})

    assert write(command) == {b"number": b"1"}
    assert read(Open, {b"number": b"1", b"other": b"2"}) == Open(number=1)


def test_a_strict_model_takes_every_value_as_it_was_read() -> None:
    class Strict(Everything, strict=True):
        pass

    command = Everything(
        integer=1,
        octets=b"\0",
        number=1.0,
        decimal=Decimal("1.5"),
        path=Path("a"),
        integers=[1],
        decimals={Decimal(1)},
        texts=frozenset("ab"),
        nested=[[(True,)]],
        rows=[Row(number=1)],
        plain_rows=(PlainRow(1),),
        frozen_rows=frozenset({FrozenRow(number=1)}),
        row=Row(number=1),
        checked_row=CheckedRow(1),
        tree=Tree(name="a", children=[Tree(name="b")]),
        colour=Colour.RED,
        level=Level.HIGH,
        access=Access.READ,
        choice="a",
        day=date(2012, 1, 23),
        json_dict={"a": [1]},
        digest=b"\xff",
    )

    assert vars(read(Strict, write(command))) == vars(command)


def test_a_strict_dataclass_is_read() -> None:
    @pydantic_dataclass(config=ConfigDict(strict=True))
    class Strict:
        numbers: tuple[int, ...]

    assert read(Strict, write(Strict((1, 2)))) == Strict((1, 2))


class Aliased(BaseModel):
    number: int = Field(alias="Number")
    text: str = Field(default="", alias="Text", serialization_alias="TEXT")


@pydantic_dataclass
class AliasedDataclass:
    number: int = Field(alias="Number")


def test_an_alias_is_the_constructors_and_the_key_is_the_fields_name() -> None:
    assert write(Aliased(Number=1, Text="a")) == {b"number": b"1", b"text": b"a"}
    assert read(Aliased, {b"number": b"1", b"text": b"a"}) == Aliased(Number=1, Text="a")
    assert read(AliasedDataclass, {b"number": b"1"}) == AliasedDataclass(Number=1)
    with pytest.raises(DecodeError, match=r"^number: Field required$"):
        read(Aliased, {b"Number": b"1"})


def test_a_frozen_model_comes_back_frozen_and_hashable() -> None:
    class Frozen(Command):
        model_config = ConfigDict(frozen=True)

        number: int

    assert hash(read(Frozen, write(Frozen(number=1)))) == hash(Frozen(number=1))


def test_validators_run_on_what_was_read() -> None:
    class Range(Command):
        low: int
        high: int

        @field_validator("low")
        @classmethod
        def _positive(cls, value: int) -> int:
            if value < 0:
                raise ValueError("must not be negative")
            return value

        @model_validator(mode="after")
        def _ordered(self) -> "Range":
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    assert read(Range, {b"low": b"1", b"high": b"2"}) == Range(low=1, high=2)
    with pytest.raises(DecodeError, match=r"^low: Value error, must not be negative$"):
        read(Range, {b"low": b"-1", b"high": b"2"})
    with pytest.raises(DecodeError, match=r"^Value error, low is above high$"):
        read(Range, {b"low": b"3", b"high": b"2"})


def test_a_validator_that_fails_otherwise_is_the_cause() -> None:
    class Broken(Command):
        number: int

        @field_validator("number")
        @classmethod
        def _fail(cls, value: int) -> int:
            return 1 // value

    with pytest.raises(DecodeError, match=r"^ZeroDivisionError while reading it$") as caught:
        read(Broken, {b"number": b"0"})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_infinities_and_nan_are_decimals_on_a_command() -> None:
    class Amount(Command):
        amount: Decimal

    for text in ("NaN", "sNaN", "Infinity", "-Infinity"):
        assert same(read(Amount, {b"amount": text.encode()}).amount, Decimal(text))


def test_default_factories_fill_in_missing_keys() -> None:
    @dataclass
    class Numbers:
        numbers: list[int] = field(default_factory=lambda: [1, 2])

    class Texts(Command):
        texts: list[str] = Field(default_factory=lambda: ["a"])

    assert read(Numbers, {}) == Numbers([1, 2])
    assert read(Texts, {}) == Texts(texts=["a"])


def test_computed_and_private_attributes_stay_here() -> None:
    class Box(Command):
        side: int
        _note: str = "private"

        @computed_field
        def area(self) -> int:
            return self.side**2

    assert write(Box(side=2)) == {b"side": b"2"}


@pytest.mark.parametrize(
    "value",
    [
        Row(number=1),
        PlainRow(1, "a"),
        SlottedRow(1, "a"),
        CheckedRow(1, "a"),
        Page[int](items=[1]),
        Page[Page[str]](items=[Page[str](items=["a"])]),
        Tree(name="a", children=[Tree(name="b"), Tree(name="c")]),
        Chain(next=Chain(next=Chain())),
    ],
    ids=lambda value: type(value).__name__,
)
def test_models_and_dataclasses_come_back(value: Any) -> None:
    assert read(type(value), write(value)) == value


def test_a_generic_dataclass_comes_back() -> None:
    page = PlainPage([PlainPage([1]), PlainPage([])])
    model = PlainPage[PlainPage[int]]
    assert read(model, write(page, model)) == page


def test_a_number_of_a_dataclass_may_be_an_int_as_type_checkers_allow() -> None:
    @dataclass
    class Point:
        x: float

    assert read(Point, write(Point(x=1))) == Point(1.0)


def test_a_subclass_of_a_row_is_written_as_the_row() -> None:
    class Wide(Row):
        more: int = 5

    assert write(Wide(number=1), Row) == {b"number": b"1"}
