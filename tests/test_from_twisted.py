from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import pytest
from twisted.protocols import amp

from tests.documents import ROOT
from typed_amp.from_twisted import Conversion, ConversionError, convert

MODULES = [
    "tests.interop.twisted_commands",
    "tests.interop.odd_commands",
    "tests.interop.impossible_commands",
    "twisted.trial._dist.workercommands",
    "twisted.trial._dist.managercommands",
    "twisted.trial._dist.stream",
]


@pytest.fixture(scope="module")
def sources(project: Path) -> dict[str, Conversion]:
    with contextlib.chdir(project):
        return {module: convert([module]) for module in MODULES}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which typed_amp counts as the program's own, wherever it is installed."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "tests").mkdir()
    (directory / "typed_amp").mkdir()
    return directory


def class_of(source: str, name: str) -> str:
    """Give a class, with the comments before it."""
    (part,) = [part for part in source.split("\n\n\n") if f"\nclass {name}(" in f"\n{part}"]
    return part.rstrip()


@pytest.fixture
def odd(sources: dict[str, Conversion]) -> str:
    return sources["tests.interop.odd_commands"].source


@pytest.fixture
def impossible(sources: dict[str, Conversion]) -> str:
    return sources["tests.interop.impossible_commands"].source


# -- What tools say of it -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(sources: dict[str, Conversion], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("written")
    for module, conversion in sources.items():
        (directory / f"{module.replace('.', '_')}.py").write_text(conversion.source)
    return directory


def run(*arguments: str, directory: Path = ROOT) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_it_is_formatted_and_its_imports_are_sorted(written: Path) -> None:
    for file in written.iterdir():
        source = file.read_text()
        for options in (["format", "--diff"], ["check", "--select", "I,F,W,UP"]):
            result = subprocess.run(
                [sys.executable, "-m", "ruff", *options, "--stdin-filename", "made.py", "-"],
                input=source,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stdout + result.stderr


def test_mypy_accepts_it(written: Path, tmp_path: Path) -> None:
    options = "--config-file", str(ROOT / "mypy.ini"), "--cache-dir", str(tmp_path / "cache")
    run("mypy", *options, *map(str, written.iterdir()))


def test_pyright_accepts_it(written: Path) -> None:
    configuration = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(ROOT)],
        "reportUnusedClass": False,  # one begins with an underscore, as the original does
    }
    (written / "pyrightconfig.json").write_text(json.dumps(configuration))
    run("basedpyright", "--pythonpath", sys.executable, directory=written)


def test_it_is_the_same_every_time(project: Path, sources: dict[str, Conversion]) -> None:
    with contextlib.chdir(project):
        for module in MODULES:
            assert convert([module]) == sources[module]


# -- Single classes -------------------------------------------------------------------------------


def test_command_keeps_its_docstring_and_gets_an_answer(sources: dict[str, Conversion]) -> None:
    assert (
        sources["twisted.trial._dist.workercommands"].source
        == '''\
"""The AMP commands of twisted.trial._dist.workercommands, as typed_amp has them.

Made by `typed-amp from-twisted twisted.trial._dist.workercommands`.
"""

from pydantic import BaseModel

from typed_amp import Command


class RunAnswer(BaseModel):
    """The answer to Run."""

    success: bool


class Run(Command[RunAnswer]):
    """Run a test."""

    testCase: str


class StartAnswer(BaseModel):
    """The answer to Start."""

    success: bool


class Start(Command[StartAnswer]):
    """Set up the worker process, giving the running directory."""

    directory: str
'''
    )


def test_command_with_neither_fields_nor_answer_has_none(sources: dict[str, Conversion]) -> None:
    source = sources["tests.interop.twisted_commands"].source
    assert class_of(source, "Wait") == "class Wait(Command):\n    pass"


def test_name_and_missing_answer_are_class_keywords(odd: str) -> None:
    assert class_of(odd, "NoteThis") == (
        'class NoteThis(Command, name="note-this", requires_answer=False):\n    text: str'
    )


def test_docstring_is_wrapped_and_rid_of_epytext(odd: str) -> None:
    docstring = class_of(odd, "Keys").partition("    class_:")[0]
    assert (
        docstring
        == '''\
class Keys(Command[KeysAnswer]):
    """Keys that `Python` can't spell, or that pydantic has taken, "quoted" and with a \\\\ in it.

    This paragraph is longer than a line may be, so that it must be wrapped anew, as `ruff`
    has it.

      - a list stays
      - as it is
    """

'''
    )


@pytest.mark.parametrize(
    "field",
    [
        'class_: Annotated[int, Key("class")]',
        'copy_: Annotated[int, Key("copy")]',
        'model_config_: Annotated[str, Key("model_config")]',
        'field_model_dump: Annotated[str | None, Key("model_dump")] = None',
        "model_id: str",
        'private: Annotated[int, Key("_private")]',
        'two_words: Annotated[int, Key("two words")]',
        'two_words_: Annotated[int, Key("two-words")]',
        'field_1st: Annotated[int, Key("1st")]',
        "field: Annotated[bool, Key('\"')]",
        'int_: Annotated[int, Key("int")]',
        'datetime_: Annotated[datetime | None, Key("datetime")] = None',
        "id: str",
    ],
)
def test_field_has_a_name_of_its_own_and_the_key_it_had(odd: str, field: str) -> None:
    assert f"\n    {field}\n" in class_of(odd, "Keys")
    assert f"\n    {field}\n" in class_of(odd, "KeysAnswer")


def test_rows_that_are_alike_have_one_model(odd: str) -> None:
    assert (
        class_of(odd, "Rows")
        == """\
class Rows(Command[RowsAnswerModel]):
    items: list[RowsItemsRow]
    more: list[RowsItemsRow] | None = None
    floats: list[list[float]]
    nothing: list[RowsNothingRow]"""
    )
    assert "    items: list[RowsItemsRow]\n" in class_of(odd, "RowsAnswerModel")
    assert class_of(odd, "RowsItemsRow").endswith('''
    """A row of Rows.items."""

    model_config = ConfigDict(allow_inf_nan=True)

    price: Decimal
    class_: Annotated[str, Key("class")]
    bits: list[RowsItemsBitsRow]''')


def test_subclass_of_an_argument_that_changes_nothing_is_that_argument(odd: str) -> None:
    assert class_of(odd, "RowsAnswer").endswith("    shout: str")


def test_name_that_is_imported_is_given_to_nothing_else(odd: str) -> None:
    assert 'class DecimalCommand(Command[DecimalCommandAnswer], name="Decimal"):' in odd


def test_inherited_errors_are_those_of_twisteds_responders(odd: str) -> None:
    assert class_of(odd, "Inherits").startswith("""\
class Inherits(
    Command,
    errors={
        KeyError: "KEY",
        ConnectionDone: "DONE",
        Outer.InnerError: "INNER",
        Outer.OtherError: "OTHER",
    },
    fatal_errors={ShopError: "SHOP"},
):
""")
    # To Twisted an inherited fatal error is none where a subclass has fatal ones of its own.
    assert class_of(odd, "Overrides").startswith("""\
class Overrides(
    Command,
    name='over"rides',
    errors={KeyError: "KEY", ShopError: "SHOP"},
    fatal_errors={OddCommandsTimeoutError: "TIMEOUT"},
):
""")


def test_errors_are_imported_from_where_they_live(odd: str) -> None:
    for line in (
        "from twisted.internet.error import ConnectionDone",
        "from tests.interop.odd_commands import Outer, ShopError",
        "from tests.interop.odd_commands import TimeoutError as OddCommandsTimeoutError",
    ):
        assert f"\n{line}\n" in odd


# -- What can't be turned -------------------------------------------------------------------------


def test_nothing_that_can_be_turned_is_left_out(sources: dict[str, Conversion]) -> None:
    for module, conversion in sources.items():
        if module == "tests.interop.twisted_commands":
            # The arguments and the answers with long values, which have argument classes of
            # their own.
            assert conversion.left_out == 6
            assert conversion.source.count("tests.interop.twisted_large.") == 6
        elif module != "tests.interop.impossible_commands":
            assert conversion.left_out == 0
            assert "#" not in conversion.source


def test_argument_of_ones_own_is_a_comment_that_says_what_to_do(impossible: str) -> None:
    line = line_of("tests/interop/odd_commands.py", "Money")
    assert (
        class_of(impossible, "OnlyMoney")
        == f"""\
class OnlyMoney(Command):
    # amount is left out: tests.interop.odd_commands.Money (line {line}) is an argument class of its
    # own. Write a Codec that does what its fromString and toString do, and then:
    # amount: Annotated[YourType, YourCodec()]
    pass"""
    )
    assert "    # receipts: list[Annotated[YourType, YourCodec()]]\n" in impossible
    assert "    # change: Annotated[YourType, YourCodec()] | None = None" in impossible


def line_of(file: str, name: str) -> int:
    tree = ast.parse((ROOT / file).read_text())
    (line,) = [
        node.lineno for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return line


@pytest.mark.parametrize(
    "text",
    [
        "scan is left out: tests.interop.odd_commands.Big",
        "scan: Annotated[bytes, Large()]",
        "lists is left out: Twisted can't write a ListOf of an AmpList either.",
        'command is left out: the key b"_command" belongs to the protocol.',
        "field is left out: its key has 0 bytes; AMP allows 1 to 255.",
        'to_ is left out: the key b"to" stands there twice.',
        'CodedError (b"CODED") is left out of the errors: CodedError can\'t be made from its text',
        'HiddenError (b"HIDDEN") is left out of the errors: it can\'t be imported from',
        'ValueError (b"SAME") is left out of the errors: TypeError has the same code',
        'IndexError (b"\\xff") is left out of the errors: its code is not UTF-8.',
        'KeyboardInterrupt (b"INTERRUPT") is left out of the errors:',
    ],
)
def test_what_is_left_out_is_a_comment_that_says_why(impossible: str, text: str) -> None:
    assert f"# {text}" in class_of(impossible, "Pay")


def test_the_rest_of_such_a_command_is_there(impossible: str) -> None:
    assert 'class Pay(Command[PayAnswer], errors={KeyError: "KEY", TypeError: "SAME"}):' in (
        impossible
    )
    assert '\n    to: str\n    self_: Annotated[str, Key("self")]\n' in impossible


def test_commands_that_differ_as_a_whole_say_so(impossible: str) -> None:
    assert class_of(impossible, "NoAnswer").startswith(
        "# The response of NoAnswer is left out: with requiresAnswer = False none comes.\n"
    )
    assert '\n# Unnamed is left out: its name b"\\xff" can\'t be one here.\n' in impossible
    assert class_of(impossible, "Custom").startswith("# tests.interop.impossible_commands.Custom")
    assert "has makeArguments of its own" in class_of(impossible, "Custom")


def test_what_is_left_out_is_counted(sources: dict[str, Conversion]) -> None:
    conversion = sources["tests.interop.impossible_commands"]
    assert conversion.left_out == conversion.source.count(" left out") + 1  # Custom's comment


# -- Which commands -------------------------------------------------------------------------------


@pytest.fixture
def make_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(name: str, **things: Any) -> types.ModuleType:
        module = types.ModuleType(name)
        vars(module).update(things)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


def command(name: str, module: str, **attributes: Any) -> Any:
    return type(name, (amp.Command,), {"__module__": module, **attributes})


def classes_in(conversion: Conversion) -> list[str]:
    tree = ast.parse(conversion.source)
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def test_imported_commands_are_taken_if_all_names_them(make_module: Any) -> None:
    own, named, other = command("Own", "one"), command("Named", "two"), command("Other", "two")
    make_module("one", Own=own, Named=named, Other=other, __all__=["Named"], amp=amp)
    assert classes_in(convert(["one"])) == ["Own", "Named"]


def test_package_exports_what_it_takes_from_its_own_modules(make_module: Any) -> None:
    own, foreign = command("Own", "shop.commands"), command("Foreign", "shopping.commands")
    make_module("shop", Own=own, Foreign=foreign, __path__=[])
    assert classes_in(convert(["shop"])) == ["Own"]


def test_several_modules_make_one_and_no_command_is_there_twice(make_module: Any) -> None:
    first, second = command("First", "one"), command("First", "two")
    make_module("one", First=first)
    make_module("two", First=second, Again=first, __all__=["Again"])
    conversion = convert(["one", "two"])
    assert classes_in(conversion) == ["First", "FirstCommand"]
    assert 'class FirstCommand(Command, name="First"):' in conversion.source
    assert "commands of one, two, as" in conversion.source


def test_no_commands_are_an_error_that_says_where_to_look(make_module: Any) -> None:
    make_module("empty", amp=amp, Command=amp.Command)
    with pytest.raises(ConversionError) as caught:
        convert(["empty"])
    assert str(caught.value) == "no subclass of amp.Command is defined in empty"
    make_module("importing", Own=command("Own", "shop"))
    with pytest.raises(ConversionError, match=r"its imported ones come from: shop$"):
        convert(["importing"])


# -- Odd ones -------------------------------------------------------------------------------------


class Odd(amp.Argument):
    """Written as nothing else is."""

    def toString(self, inObject: Any) -> Any:
        return inObject


def test_key_that_is_no_text_is_written_as_bytes(make_module: Any) -> None:
    odd: Any = Odd(optional=True)  # type: ignore[no-untyped-call]
    arguments = [(b"\xff", amp.Integer()), (b"\xfe-", odd)]
    make_module("one", Own=command("Own", "one", arguments=arguments))
    source = convert(["one"]).source
    assert '\n    field: Annotated[int, Key(b"\\xff")]\n' in source
    suggestion = 'Annotated[Annotated[YourType, YourCodec()] | None, Key(b"\\xfe-")] = None'
    assert f"\n    # field_: {suggestion}\n" in source


def test_class_without_source_has_no_line(make_module: Any) -> None:
    argument = type("Lost", (Odd,), {"__module__": "nowhere"})()
    make_module("one", Own=command("Own", "one", arguments=[(b"a", argument)]))
    assert "# a is left out: nowhere.Lost is an argument class of its own." in (
        convert(["one"]).source
    )


def test_error_of_an_untyped_package_is_marked_for_mypy(make_module: Any) -> None:
    error = type("OldError", (Exception,), {"__module__": "old.errors"})
    directory = sysconfig.get_path("purelib")
    make_module("old", __file__=f"{directory}/old/__init__.py")
    make_module("old.errors", OldError=error)
    make_module("one", Own=command("Own", "one", errors={error: b"OLD"}))
    source = convert(["one"]).source
    assert "\nfrom old.errors import OldError  # type: ignore[import-untyped]\n" in source


# -- Beside plain commands ------------------------------------------------------------------------


@pytest.fixture
def special(make_module: Any) -> str:
    secure = type(
        "Secure", (amp.StartTLS,), {"__module__": "special", "errors": {KeyError: b"KEY"}}
    )
    telling = type(
        "Telling",
        (amp.StartTLS,),
        {"__module__": "special", "response": [*amp.StartTLS.response, (b"text", amp.Unicode())]},
    )
    upgrade = type(
        "Upgrade",
        (amp.ProtocolSwitchCommand,),
        {"__module__": "special", "arguments": [(b"name", amp.Unicode())]},
    )
    hand = command(
        "Hand",
        "special",
        arguments=[
            (b"file", amp.Descriptor()),
            (b"log-file", amp.Descriptor(optional=True)),
            (b"numbers", amp.ListOf(amp.Descriptor())),
        ],
    )
    make_module("special", Secure=secure, Telling=telling, Upgrade=upgrade, Hand=hand)
    return convert(["special"]).source


def test_tls_switches_and_descriptors_have_their_own_classes(special: str) -> None:
    assert class_of(special, "Secure") == (
        'class Secure(StartTLS, errors={KeyError: "KEY"}):\n    pass'
    )
    assert (
        class_of(special, "Telling")
        == """\
# The fields of its response are left out, since StartTLS has none: b"text".
class Telling(StartTLS):
    pass"""
    )
    assert class_of(special, "Upgrade") == "class Upgrade(SwitchProtocol):\n    name: str"
    assert (
        class_of(special, "Hand")
        == """\
class Hand(Command):
    file: Annotated[int, Descriptor()]
    log_file: Annotated[int | None, Descriptor(), Key("log-file")] = None
    numbers: list[int]"""
    )
    assert "from typed_amp import Command, Descriptor, Key, StartTLS, SwitchProtocol\n" in special


def test_tls_switches_and_descriptors_can_be_used(
    special: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = types.ModuleType("made_of_special")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(special, vars(made))
    assert made.Secure.__amp_signature__().name == b"Secure"
    assert made.Upgrade.__amp_signature__().name == b"Upgrade"
    assert made.Hand.__amp_signature__().arguments.fields[1].key == b"log-file"


def test_twisted_is_not_imported_before_it_is_needed() -> None:
    program = "import sys, typed_amp.from_twisted; print('twisted' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert printed == "False\n"
