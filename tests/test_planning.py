"""From a class to its plan: fields, keys, names written later, and classes that can't work."""

import _thread
import dataclasses
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Optional, TypeVar

import pytest
from pydantic import BaseModel, Field, RootModel, create_model
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.dataclasses import rebuild_dataclass

from tests.typed_values import Page, PlainPage, PlainRow, Row, Tree, carrier, read, write
from typed_amp import Command, DefinitionError, Json, Key
from typed_amp.box import RESERVED_KEYS
from typed_amp.planning import UnresolvedError, is_model, local_names, plan_for, substitute

T = TypeVar("T")
U = TypeVar("U")


def keys(model: Any) -> list[bytes]:
    return [field.key for field in plan_for(model).fields]


# Keys.


def test_a_key_is_the_fields_name_or_what_key_says() -> None:
    class Move(Command):
        from_: Annotated[int, Key("from")]
        to: Annotated[int, Field(ge=0), Key(b"\xff\0")]
        größe: int  # noqa: PLC2401
        step: Annotated[Optional[Annotated[int, Json()]], Key("outer")] = None  # noqa: UP045
        count: Annotated[Optional[Annotated[int, Key("n")]], Json()] = None  # noqa: UP045

    assert keys(Move) == [b"from", b"\xff\0", "größe".encode(), b"outer", b"n"]


def test_a_key_of_a_dataclasss_field() -> None:
    @dataclass
    class Move:
        from_: Annotated[int, Key("from")]

    assert write(Move(1)) == {b"from": b"1"}
    assert read(Move, {b"from": b"1"}) == Move(1)


@pytest.mark.parametrize("key", [b"k", b"k" * 255, b"_private", b"_errors", "ż" * 127])
def test_a_key_has_1_to_255_bytes(key: Any) -> None:
    model = carrier(Annotated[int, Key(key)])
    assert read(model, write(model(value=1))).value == 1


@pytest.mark.parametrize("key", ["", b"", "k" * 256, b"k" * 256, "ż" * 128], ids=len)
def test_a_key_of_another_length_is_refused(key: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Carrier\.value: its key has (0|256) bytes.*Key\("):
        carrier(Annotated[int, Key(key)])


@pytest.mark.parametrize("key", ["\ud800", 5])
def test_a_key_that_is_no_text_and_no_bytes_is_refused(key: Any) -> None:
    with pytest.raises(DefinitionError):
        carrier(Annotated[int, Key(key)])


def test_the_name_of_a_field_may_be_too_long_for_a_key() -> None:
    name = "n" * 256
    with pytest.raises(DefinitionError, match=rf"Long\.{name}: its key has 256 bytes"):
        fields: dict[str, Any] = {name: (int, 1)}
        create_model("Long", __base__=Command, **fields)


@pytest.mark.parametrize("key", sorted(RESERVED_KEYS))
def test_a_key_of_the_protocols_is_refused(key: bytes) -> None:
    with pytest.raises(DefinitionError, match=rf"Carrier\.value: the key {key.decode()} belongs"):
        carrier(Annotated[int, Key(key)])


def test_one_key_of_two_fields_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Twice\.b and \S*Twice\.a have one key .*, a\. "):

        class Twice(Command):
            a: int
            b: Annotated[int, Key("a")]


def test_an_inherited_key_is_taken_too() -> None:
    class Base(Command):
        a: int

    with pytest.raises(DefinitionError, match=r"Derived\.b and \S*Derived\.a have one key"):

        class Derived(Base):
            b: Annotated[int, Key("a")]


def test_two_keys_of_one_field_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Carrier\.value: Key and Key stand .*; keep one"):
        carrier(Annotated[int, Key("a"), Key("b")])
    with pytest.raises(DefinitionError, match="Key and Key"):
        carrier(Annotated[Optional[Annotated[int, Key("inner")]], Key("outer")])  # noqa: UP045
    key = Key("a")
    carrier(Annotated[int, key, key])


def test_a_key_shows_itself() -> None:
    assert repr(Key("from")) == "Key('from')"
    assert repr(Key(b"\n")) == r"Key('\\n')"


# Defaults.


@pytest.mark.parametrize("default", [1, Field(default=1), Field(default_factory=int)])
def test_none_with_another_default_is_refused(default: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Carrier\.value: None is sent by leaving"):
        carrier(int | None, default)


def test_none_with_a_default_factory_of_a_dataclass_is_refused() -> None:
    @dataclass
    class Numbers:
        numbers: list[int] | None = field(default_factory=list)

    with pytest.raises(DefinitionError, match=r"Numbers\.numbers: None is sent by leaving"):
        carrier(Numbers)


@pytest.mark.parametrize("default", [..., None, Field(default=None)])
def test_none_with_no_default_or_with_none_is_fine(default: Any) -> None:
    assert read(carrier(int | None, default), {}).value is None


# Models.


@pytest.mark.parametrize(
    ("annotation", "answer"),
    [
        (Row, True),
        (PlainRow, True),
        (PlainPage[int], True),
        (Page[int], True),
        (int, False),
        (None, False),
        (list[Row], False),
        (Row | None, False),
        (PlainRow(1), False),
    ],
)
def test_models_and_dataclasses_are_models(annotation: Any, answer: bool) -> None:
    assert is_model(annotation) is answer


def test_a_plan_is_made_once() -> None:
    assert plan_for(Row) is plan_for(Row)
    assert plan_for(PlainPage[int]) is plan_for(PlainPage[int])
    assert plan_for(PlainPage[int]) is not plan_for(PlainPage[str])


def test_a_subclass_has_a_plan_of_its_own() -> None:
    class Wide(Row):
        more: int = 0

    @dataclass
    class WidePlain(PlainRow):
        more: int = 0

    plan_for(Row)
    plan_for(PlainRow)
    assert keys(Wide) == keys(WidePlain) == [b"number", b"text", b"more"]


def test_a_row_that_cant_work_is_named() -> None:
    class Bad(BaseModel):
        fine: int
        bad: dict[str, int]

    @dataclass
    class BadPlain:
        bad: object

    with pytest.raises(DefinitionError, match=r"Bad\.bad: dict\[str, int\] has no codec"):
        carrier(list[Bad])
    with pytest.raises(DefinitionError, match=r"BadPlain\.bad: object has no codec"):
        carrier(BadPlain)
    with pytest.raises(DefinitionError, match=r"Bad\.bad"):  # and it stays that way
        carrier(list[Bad])


def test_a_root_model_is_no_row() -> None:
    class Numbers(RootModel[list[int]]):
        pass

    with pytest.raises(DefinitionError, match=r"Carrier\.value: \S*Numbers is a RootModel.*Json"):
        carrier(list[Numbers])


def test_what_a_dataclass_makes_itself_stays_here() -> None:
    @dataclass
    class Rectangle:
        kind: ClassVar[str] = "rectangle"
        a: int
        b: int = dataclasses.field(kw_only=True, default=2)
        area: int = field(init=False)

        def __post_init__(self) -> None:
            self.area = self.a * self.b

    assert write(Rectangle(3)) == {b"a": b"3", b"b": b"2"}
    assert read(Rectangle, {b"a": b"3"}).area == 6


def test_a_dataclass_that_can_never_be_read_is_refused() -> None:
    @dataclass
    class Opened:
        name: str
        mode: InitVar[str]

    with pytest.raises(DefinitionError, match=r"Opened\.mode"):
        carrier(Opened)


def test_a_dataclass_may_have_a_field_named_model_config() -> None:
    @dataclass
    class Car:
        model_config: str = "basic"

    assert read(Car, {b"model_config": b"rich"}) == Car("rich")


def test_a_pydantic_dataclass_has_keys_and_constraints() -> None:
    @pydantic_dataclass
    class Move:
        from_: Annotated[int, Key("from"), Field(ge=0)]
        to: int = Field(default_factory=lambda: 7)

    assert write(Move(1)) == {b"from": b"1", b"to": b"7"}
    assert read(Move, {b"from": b"1"}) == Move(1)


# Names that are written later.


class Before(BaseModel):
    after: "After | None" = None
    texts: "list[str]" = []


@dataclass
class BeforePlain:
    rows: "list[AfterPlain]"


def test_a_name_that_is_not_written_yet_waits() -> None:
    class Waiting(BaseModel):
        missing: "NotYet"

    @dataclass
    class WaitingPlain:
        missing: "NotYet"

    for model in (Waiting, WaitingPlain):
        with pytest.raises(UnresolvedError):
            plan_for(model)

    class NotYet(BaseModel):
        number: int = 0

    assert keys_of_later(WaitingPlain, {"NotYet": NotYet}) == [b"missing"]


def keys_of_later(model: Any, namespace: dict[str, Any]) -> list[bytes]:
    return [field.key for field in plan_for(model, namespace).fields]


class After(BaseModel):
    before: "Before | None" = None


@dataclass
class AfterPlain:
    number: int = 0


def test_models_may_hold_each_other() -> None:
    value = Before(after=After(before=Before(texts=["a"])))
    assert read(Before, write(value)) == value
    assert read(After, write(After(before=value))) == After(before=value)


def test_dataclasses_may_name_what_is_written_later() -> None:
    assert read(BeforePlain, write(BeforePlain([AfterPlain(1)]))) == BeforePlain([AfterPlain(1)])


@dataclass
class PlainTree:
    name: str
    children: "list[PlainTree]" = field(default_factory=list)


@pydantic_dataclass
class CheckedTree:
    name: str
    children: "list[CheckedTree]" = Field(default_factory=list)


@pytest.mark.parametrize("tree", [Tree, PlainTree, CheckedTree])
def test_a_class_may_hold_itself(tree: Any) -> None:
    value = tree(name="a", children=[tree(name="b", children=[tree(name="c")]), tree(name="d")])
    assert read(tree, write(value)) == value


def test_classes_within_a_function_may_hold_each_other() -> None:
    class Parent(BaseModel):
        children: "list[Child]" = []

    class Child(BaseModel):
        parent: "Parent | None" = None

    class Adopt(Command):
        child: "Child"

    command = Adopt(child=Child(parent=Parent(children=[Child()])))
    assert read(Adopt, write(command)) == command


def test_dataclasses_within_a_function_may_be_named_as_text() -> None:
    @dataclass
    class Inner:
        number: int

    @dataclass
    class Outer:
        inners: "list[Inner]"

    class Carry(Command):
        outer: "Outer"

    command = Carry(outer=Outer([Inner(1)]))
    assert read(Carry, write(command)) == command


def test_a_pydantic_dataclass_of_a_function_is_whole_outside_of_it() -> None:
    def define() -> tuple[Any, Any]:
        class Inner(BaseModel):
            number: int

        @pydantic_dataclass
        class Outer:
            inners: "list[Inner]"

        rebuild_dataclass(Outer)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        return Outer, Inner

    outer, inner = define()
    value = outer([inner(number=1)])
    assert read(outer, write(value)) == value


def test_json_of_a_class_that_holds_itself() -> None:
    class Note(Command):
        trees: Annotated["list[Tree]", Json()]

    command = Note(trees=[Tree(name="a", children=[Tree(name="b")])])
    assert read(Note, write(command)) == command


# Generic classes.


@dataclass
class Couple(Generic[T, U]):
    one: T
    other: list[U]


@dataclass
class IntegersAnd(Couple[int, T]):
    extra: Page[T]


@dataclass
class Numbers(Couple[int, int]):
    pass


def test_a_generic_model_needs_its_parameters() -> None:
    for model in (Page, PlainPage, Couple):
        with pytest.raises(UnresolvedError, match="type parameter"):
            plan_for(model)


def test_type_parameters_are_filled_in() -> None:
    value = Couple(1, ["a"])
    model = Couple[int, str]
    assert read(model, write(value, model)) == value


def test_a_generic_dataclass_may_be_derived_from() -> None:
    assert read(Numbers, write(Numbers(1, [2]))) == Numbers(1, [2])


t: Any = T
u: Any = U


@pytest.mark.parametrize(
    ("annotation", "substituted"),
    [
        (t, int),
        (u, u),
        (list[t], list[int]),
        (dict[u, t], dict[u, int]),
        (Page[t], Page[int]),
        (Page[str], Page[str]),
        (str, str),
        (None, None),
        (PlainPage, PlainPage),
    ],
)
def test_types_in_the_place_of_type_parameters(annotation: Any, substituted: Any) -> None:
    assert substitute(annotation, {T: int}) == substituted


# Local names.


def test_local_names_are_those_of_the_function() -> None:
    local = object()
    names = local_names()
    assert names is not None
    assert names["local"] is local


def test_a_modules_own_names_are_not_local() -> None:
    namespace = {"__name__": "a_module", "local_names": local_names}
    exec("names = local_names()", namespace)
    assert namespace["names"] is None


def test_local_names_are_looked_for_no_further_than_the_thread() -> None:
    found: list[Any] = []
    done = _thread.allocate_lock()
    done.acquire()
    namespace: dict[str, Any] = {"__name__": "typed_amp.within", "local_names": local_names}
    exec("def look(found, done): found.append(local_names()); done.release()", namespace)

    _thread.start_new_thread(namespace["look"], (found, done))
    assert done.acquire(timeout=60)

    assert set(found[0]) == {"found", "done"}
