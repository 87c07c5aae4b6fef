"""Commands: class keywords, answers, inheritance, and classes that can't work."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, ForwardRef, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, create_model

from tests.typed_values import (
    LaterAnswer,
    LaterAnswered,
    Page,
    PlainPage,
    PlainRow,
    Row,
    Tree,
    carrier,
    read,
    write,
)
from typed_amp import Command, CommandError, DefinitionError, Key

if TYPE_CHECKING:
    from typed_amp.signature import Signature

T = TypeVar("T")
U = TypeVar("U")


class OutOfStock(CommandError):
    sku: str


class TooMuch(Exception):
    pass


class TwoTexts(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one, other)


class NoText(Exception):
    def __init__(self) -> None:
        super().__init__()


class NamedText(Exception):
    def __init__(self, *, text: str) -> None:
        super().__init__(text)


def signature(command: type[Command[Any]]) -> Signature[Any, Any]:
    return command.__amp_signature__()


def codes(command: type[Command[Any]]) -> dict[type[Exception], bytes]:
    return {error: declared.code for error, declared in signature(command).errors.items()}


def answer_model(command: type[Command[Any]]) -> type | None:
    answer = signature(command).answer
    return None if answer is None else answer.model


# Names.


def test_the_name_is_the_classs_or_the_given_one() -> None:
    class Plain(Command):
        pass

    class Named(Command, name="other-näme"):
        pass

    assert signature(Plain).name == b"Plain"
    assert signature(Named).name == "other-näme".encode()
    assert signature(Named).title == r"other-n\xe4me"
    assert signature(Named).head == b"\0\x08_command\0\x0bother-n\xc3\xa4me"


def test_the_name_is_not_inherited() -> None:
    class Base(Command, name="base"):
        pass

    class Derived(Base):
        pass

    assert signature(Derived).name == b"Derived"


def test_each_parametrization_has_a_name() -> None:
    class Get(Command[Page[T]], Generic[T]):
        pass

    class Named(Command[Page[T]], Generic[T], name="get"):
        pass

    assert signature(Get[int]).name == b"Get[int]"
    assert signature(Get[Row]).name == b"Get[Row]"
    assert signature(Named[int]).name == b"get"


@pytest.mark.parametrize("name", ["", "n" * 65_536, "ż" * 32_768, b"bytes", 5, "\ud800"], ids=type)
def test_a_name_that_amp_cant_carry_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Carrier: the name must (be a str|have 1 to|be)"):
        carrier(int, name=name)


def test_a_name_of_65_535_bytes_is_fine() -> None:
    assert len(signature(carrier(int, name="n" * 65_535)).name) == 65_535


@pytest.mark.parametrize("keyword", ["nme", "error", "code"])
def test_an_unknown_class_keyword_is_refused(keyword: str) -> None:
    with pytest.raises(DefinitionError, match=f"Carrier: .*'?{keyword}'?"):
        carrier(int, **{keyword: "value"})


def test_class_keywords_of_pydantic_are_passed_on() -> None:
    class Exact(Command, extra="forbid", name="exact", title="A title"):
        pass

    assert Exact.model_config.get("extra") == "forbid"
    assert Exact.model_config.get("title") == "A title"
    assert signature(Exact).name == b"exact"


# Fields.


def test_every_field_name_is_the_users() -> None:
    class Greedy(Command):
        name: int
        errors: int
        fatal_errors: int
        requires_answer: int
        timeout: int
        signature: int
        code: int
        args: int
        key: int
        state: int
        command: int
        connection: int
        # Names that the plan uses within.
        at: int
        box: int
        data: int
        error: int
        failure: int
        fields: int
        head: int
        model: int
        plan: int
        values: int
        v0: int
        n0: int
        encode_0: int
        decode_0: int

    names = list(Greedy.model_fields)
    command = Greedy(**{name: index for index, name in enumerate(names)})

    assert write(command) == {name.encode(): b"%d" % i for i, name in enumerate(names)}
    assert read(Greedy, write(command)) == command


def test_a_field_may_have_a_name_that_python_cant_spell() -> None:
    model = create_model("Odd", __base__=Command, **{"from": (int, ...), "a-b 'c'": (int, 1)})  # type: ignore[call-overload]
    command = model(**{"from": 1})

    assert write(command) == {b"from": b"1", b"a-b 'c'": b"1"}
    assert read(model, write(command)) == command


def test_fields_are_inherited_and_may_be_overridden() -> None:
    class Base(Command):
        number: int
        text: str = "a"

    class Derived(Base):
        text: str = "b"
        more: int = 0

    assert write(Derived(number=1)) == {b"number": b"1", b"text": b"b", b"more": b"0"}


def test_a_command_is_a_pydantic_model() -> None:
    class Repeat(Command):
        times: Annotated[int, Field(ge=0)] = 1

    assert Repeat.model_validate_json('{"times": 2}') == Repeat(times=2)
    assert Repeat(times=2).model_dump() == {"times": 2}


def test_what_is_missing_or_no_such_value_is_refused_where_the_command_is_made() -> None:
    class Sum(Command):
        numbers: list[int]

    unchecked: Any = Sum
    for fields in ({}, {"numbers": None}, {"numbers": ["x"]}, {"number": [1]}):
        with pytest.raises(ValidationError, match="numbers"):
            unchecked(**fields)


def test_another_argument_is_refused_where_the_command_says_so() -> None:
    class Exact(Command, extra="forbid"):
        from_: Annotated[str, Key("from")] = ""

    for name in ("bogus", "from"):
        with pytest.raises(ValidationError, match=rf"{name}\n  Extra inputs are not permitted"):
            Exact(**{name: "a"})


def test_values_become_what_is_declared_or_are_refused() -> None:
    class Measure(Command):
        price: Decimal = Decimal(0)
        weight: float = 0.0

    class Strict(Measure, strict=True):
        pass

    lax: Any = Measure
    strict: Any = Strict
    assert write(lax(price="1.5", weight="1.5")) == {b"price": b"1.5", b"weight": b"1.5"}
    for fields in ({"price": "1.5"}, {"price": 1.5}, {"price": 1}, {"weight": "1.5"}):
        with pytest.raises(ValidationError, match="Input should be"):
            strict(**fields)
    assert write(strict(weight=1)) == {b"price": b"0", b"weight": b"1.0"}


class Picklable(Command[Row]):
    number: int


def test_a_command_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Picklable(number=1))) == Picklable(number=1)


# Answers.


def test_what_may_be_an_answer() -> None:
    class Alone(Command):
        pass

    class Nothing(Command[None]):
        pass

    class Model(Command[Row]):
        pass

    class Plain(Command[PlainRow]):
        pass

    class Generic_(Command[Page[int]]):
        pass

    class GenericPlain(Command[PlainPage[int]]):
        pass

    class AnotherCommand(Command[Picklable]):
        pass

    commands: list[Any] = [Alone, Nothing, Model, Plain, Generic_, GenericPlain, AnotherCommand]
    assert [answer_model(command) for command in commands] == [
        None,
        None,
        Row,
        PlainRow,
        Page[int],
        PlainPage,
        Picklable,
    ]


class Numbers(RootModel[list[int]]):
    pass


@pytest.mark.parametrize(
    "answer", [int, str, list[Row], dict[str, int], tuple[int, str], Row | None, Any], ids=str
)
def test_another_answer_is_refused(answer: Any) -> None:
    base: Any = Command
    with pytest.raises(DefinitionError, match=r"^Wrong: the answer is .*pydantic model"):
        create_model("Wrong", __base__=base[answer])


def test_an_answer_that_cant_work_is_refused() -> None:
    class Bad(BaseModel):
        bad: dict[str, int]

    base: Any = Command
    with pytest.raises(DefinitionError, match=r"Bad\.bad: .*Json\(\)"):
        create_model("Wrong", __base__=base[Bad])
    with pytest.raises(DefinitionError, match=r"Numbers is a RootModel"):
        create_model("Wrong", __base__=base[Numbers])


def test_the_answer_is_inherited() -> None:
    class Base(Command[Row]):
        pass

    class Derived(Base):
        pass

    class Further(Derived):
        pass

    assert answer_model(Further) is Row


class Paged(BaseModel):
    """Fields that several commands share."""

    page: int = 0


class Mixin:
    """Methods that several commands share."""


class GetPaged(Paged, Command[Row], errors={KeyError: "KEY"}):
    pass


class GetMixed(Mixin, GetPaged):
    pass


@pytest.mark.parametrize("command", [GetPaged, GetMixed])
def test_a_class_that_is_no_command_may_stand_before_it(command: type[Command[Any]]) -> None:
    assert answer_model(command) is Row
    assert codes(command) == {KeyError: b"KEY"}
    assert write(command()) == {b"page": b"0"}


def test_whether_an_answer_is_asked_for_is_inherited() -> None:
    class Log(Command, requires_answer=False):
        pass

    class Derived(Log):
        pass

    class Again(Derived, requires_answer=True):
        pass

    asked = [signature(command).requires_answer for command in (Picklable, Log, Derived, Again)]
    assert asked == [True, False, False, True]


def test_whether_an_answer_is_asked_for_is_yes_or_no() -> None:
    with pytest.raises(DefinitionError, match=r"^Carrier: requires_answer= is True or False"):
        carrier(int, requires_answer="no")


def test_whether_it_is_idempotent_is_inherited() -> None:
    class Note(Command, requires_answer=False, idempotent=True):
        pass

    class Derived(Note):
        pass

    class Once(Derived, idempotent=False):
        pass

    commands = (Picklable, Note, Derived, Once)
    assert [signature(command).idempotent for command in commands] == [False, True, True, False]
    assert not signature(Derived).requires_answer


def test_whether_it_is_idempotent_is_yes_or_no() -> None:
    with pytest.raises(DefinitionError, match=r"^Carrier: idempotent= is True or False"):
        carrier(int, idempotent=1)


def test_that_it_is_idempotent_changes_nothing_on_the_wire() -> None:
    class Note(Command):
        idempotent: int

    class Again(Note, name="Note", idempotent=True):
        pass

    assert write(Again(idempotent=1)) == write(Note(idempotent=1)) == {b"idempotent": b"1"}


@pytest.mark.parametrize("answer", [Row, PlainPage[int]], ids=str)
def test_an_answer_that_nobody_waits_for_is_refused(answer: Any) -> None:
    base: Any = Command
    with pytest.raises(DefinitionError, match=r"^Wrong: with requires_answer=False no answer"):
        create_model("Wrong", __base__=base[answer], __cls_kwargs__={"requires_answer": False})


# Errors.


def test_errors_are_inherited_and_may_be_declared_anew() -> None:
    class Base(Command, errors={KeyError: "KEY", TooMuch: "MUCH"}):
        pass

    class Mixin(Command, fatal_errors={OSError: "OS"}):
        pass

    class Derived(Base, Mixin, errors={OutOfStock: "STOCK"}, fatal_errors={TooMuch: "TOO_MUCH"}):
        pass

    assert codes(Base) == {KeyError: b"KEY", TooMuch: b"MUCH"}
    assert codes(Derived) == {
        KeyError: b"KEY",
        TooMuch: b"TOO_MUCH",
        OSError: b"OS",
        OutOfStock: b"STOCK",
    }
    fatal = {error for error, declared in signature(Derived).errors.items() if declared.is_fatal}
    assert fatal == {OSError, TooMuch}


def test_the_nearest_parent_counts() -> None:
    class Far(Command, errors={KeyError: "FAR"}):
        pass

    class Near(Far, errors={KeyError: "NEAR"}):
        pass

    class Derived(Near):
        pass

    assert codes(Derived) == {KeyError: b"NEAR"}


def test_errors_of_a_generic_command_are_those_of_its_parametrizations() -> None:
    class Get(Command[Page[T]], Generic[T], errors={KeyError: "KEY"}):
        pass

    class GetRows(Get[Row]):
        pass

    assert codes(Get[int]) == codes(GetRows) == {KeyError: b"KEY"}


@pytest.mark.parametrize(
    ("errors", "why"),
    [
        ({KeyError("an instance"): "A"}, "is no subclass of Exception"),
        ({int: "A"}, "is no subclass of Exception"),
        ({BaseException: "A"}, "is no subclass of Exception"),
        ({"KeyError": "A"}, "is no subclass of Exception"),
        ({KeyError: ""}, "the code of KeyError must have 1 to 65,535 bytes"),
        ({KeyError: "a" * 65_536}, "the code of KeyError must have 1 to 65,535 bytes"),
        ({KeyError: b"A"}, "the code of KeyError must be a str, not bytes"),
        ({KeyError: None}, "the code of KeyError must be a str, not NoneType"),
        ({KeyError: "\ud800"}, "the code of KeyError"),
        ({KeyError: "A", IndexError: "A"}, "KeyError and IndexError .* have one code, 'A'"),
        ({TwoTexts: "A"}, "TwoTexts can't be made from its text alone.*CommandError"),
        ({NoText: "A"}, "NoText can't be made from its text alone"),
        ({NamedText: "A"}, "NamedText can't be made from its text alone"),
        ({UnicodeDecodeError: "A"}, "UnicodeDecodeError can't be made from its text alone"),
        ({ExceptionGroup: "A"}, "ExceptionGroup can't be made from its text alone"),
        ([KeyError], "errors"),
    ],
)
@pytest.mark.parametrize("keyword", ["errors", "fatal_errors"])
def test_errors_that_cant_travel_are_refused(errors: Any, why: str, keyword: str) -> None:
    with pytest.raises(DefinitionError, match=f"^Carrier: .*{why}"):
        carrier(int, **{keyword: errors})


def test_one_code_for_two_errors_is_refused_across_both_keywords() -> None:
    with pytest.raises(DefinitionError, match="KeyError and IndexError"):
        carrier(int, errors={KeyError: "A"}, fatal_errors={IndexError: "A"})
    with pytest.raises(DefinitionError, match="KeyError and KeyError"):
        carrier(int, errors={KeyError: "A"}, fatal_errors={KeyError: "B"})


# Generic commands.


class Fetch(Command[Page[T]], Generic[T]):
    key: T


class FetchTwo(Command[Page[U]], Generic[T, U]):
    one: T
    other: U


class FetchHalf(FetchTwo[int, U], Generic[U]):
    pass


class FetchText(Fetch[str]):
    pass


class FetchPlain(Command[PlainPage[T]], Generic[T]):
    pass


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (Fetch[int], Page[int]),
        (FetchText, Page[str]),
        (FetchTwo[int, str], Page[str]),
        (FetchHalf[bool], Page[bool]),
        (FetchPlain[int], PlainPage),
    ],
)
def test_type_parameters_of_the_answer_are_filled_in(command: Any, answer: Any) -> None:
    assert answer_model(command) is answer


def test_type_parameters_of_the_fields_are_filled_in() -> None:
    command = FetchHalf[bool](one=1, other=True)
    assert write(command) == {b"one": b"1", b"other": b"True"}
    assert read(FetchHalf[bool], write(command)) == command


@pytest.mark.parametrize("command", [Fetch, FetchTwo, FetchHalf, FetchPlain])
def test_a_command_without_its_type_parameters_cant_be_used(command: Any) -> None:
    with pytest.raises(DefinitionError, match=r"can't be used yet.*give its type parameters"):
        signature(command)


def test_the_whole_answer_may_be_a_type_parameter() -> None:
    class FetchAny(Command[T], Generic[T]):
        pass

    given: Any = int

    assert answer_model(FetchAny[Row]) is Row
    assert answer_model(FetchAny[Page[int]]) is Page[int]
    with pytest.raises(DefinitionError, match="the answer is"):
        signature(FetchAny[given])
    with pytest.raises(DefinitionError, match="give its type parameters"):
        signature(FetchAny)


# Names that are written later.


class Early(Command["Late"]):
    row: LateRow


class EarlyDerived(Early):
    more: int = 0


class EarlyOfNone(Command["None"]):
    pass


class EarlyGeneric(Command["Page[LateRow]"]):
    pass


class EarlyPlain(Command["LatePlain"]):
    pass


_late: Any = ForwardRef("Late")


class EarlyForward(Command[_late]):
    pass


class Late(BaseModel):
    tree: Tree


class LateRow(BaseModel):
    number: int


@dataclass
class LatePlain:
    rows: list[LateRow]


class NeverComplete(Command["NowhereWritten"]):  # type: ignore[name-defined] # pyright: ignore[reportUndefinedVariable]
    pass


class NeverCompleteField(Command):
    field: NowhereWritten  # type: ignore[name-defined] # noqa: F821 # pyright: ignore[reportUndefinedVariable]


def test_an_answer_may_be_written_later() -> None:
    commands: list[type[Command[Any]]] = [EarlyDerived, Early, EarlyForward, EarlyOfNone]
    assert [answer_model(command) for command in commands] == [Late, Late, Late, None]
    assert answer_model(EarlyPlain) is LatePlain
    assert answer_model(EarlyGeneric) is Page[LateRow]


def test_fields_may_be_of_a_class_that_is_written_later() -> None:
    command = EarlyDerived(row=LateRow(number=1))
    assert read(EarlyDerived, write(command)) == command


@pytest.mark.parametrize("command", [NeverComplete, NeverCompleteField])
def test_what_is_never_written_is_named_when_the_command_is_used(command: Any) -> None:
    for _ in range(2):
        with pytest.raises(DefinitionError, match=rf"{command.__name__} can't be used yet: "):
            signature(command)


def test_a_late_answer_belongs_to_the_module_that_names_it() -> None:
    class Derived(LaterAnswered):
        """The name of its answer means nothing in this module."""

        number: int = 0

    assert answer_model(Derived) is LaterAnswer
    assert answer_model(LaterAnswered) is LaterAnswer

    class DerivedAfterwards(LaterAnswered):
        pass

    assert answer_model(DerivedAfterwards) is LaterAnswer


def test_all_may_be_written_within_a_function() -> None:
    class Ask(Command["Told"], errors={KeyError: "KEY"}):
        row: Inner

    class Derived(Ask):
        other: Inner | None = None

    class Inner(BaseModel):
        number: int

    class Told(BaseModel):
        inner: Inner

    # Names are looked up in the function where the command is used.
    derived = Derived.__amp_signature__()
    base = Ask.__amp_signature__()
    assert derived.answer is base.answer
    assert derived.answer is not None
    assert derived.answer.model is Told
    command = Derived(row=Inner(number=1))
    assert read(Derived, write(command)) == command


def test_a_class_of_a_function_is_found_after_the_function_is_over() -> None:
    def define() -> type[Command[Any]]:
        @dataclass
        class Told:
            number: int

        class Ask(Command["Told"]):
            pass

        return Ask

    answer = answer_model(define())
    assert answer is not None
    assert answer.__name__ == "Told"


def test_a_late_answer_may_have_type_parameters() -> None:
    class Ask(Command["Page[T]"], Generic[T]):
        pass

    assert answer_model(Ask[int]) is Page[int]


# What pydantic's configuration does.


def test_infinities_are_allowed_unless_the_command_says_otherwise() -> None:
    class Finite(Command):
        model_config = ConfigDict(allow_inf_nan=False)

        number: float

    assert Command.model_config.get("allow_inf_nan") is True
    assert Finite.model_config.get("allow_inf_nan") is False
