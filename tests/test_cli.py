from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.documents import ROOT
from typed_amp import encode_box

PROGRAM = str(Path(sys.executable).with_name("typed-amp"))

COMMANDS = """
from typing import Annotated

from pydantic import BaseModel, SecretStr

from typed_amp import Command, CommandError, Key


class Receipt(BaseModel):
    price: float


class OutOfStock(CommandError):
    sku: str


class Buy(Command[Receipt], errors={OutOfStock: "OUT_OF_STOCK"}):
    sku: str
    from_: Annotated[str, Key("from")]
    card: SecretStr | None = None


class Log(Command, requires_answer=False):
    line: str
"""

ASKS = [
    {b"_ask": b"1", b"_command": b"Buy", b"sku": b"cup\x1b[2J", b"from": b"ann", b"card": b"4711"},
    {b"_command": b"Log", b"line": b"x" * 1000},
    {b"_ask": b"2", b"_command": b"Buy", b"sku": b"\xff"},
]
ANSWERS = [
    {b"_answer": b"1", b"price": b"2.5"},
    {
        b"_error": b"2",
        b"_error_code": b"OUT_OF_STOCK",
        b"_error_description": b"none left",
        b"sku": b"cup",
    },
]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with commands, and both directions of a conversation."""
    (tmp_path / "shop.py").write_text(COMMANDS)
    (tmp_path / "asks.bin").write_bytes(b"".join(map(encode_box, ASKS)))
    (tmp_path / "answers.bin").write_bytes(b"".join(map(encode_box, ANSWERS)))
    return tmp_path


def run(
    *arguments: str, directory: Path, data: bytes = b"", environment: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run `typed-amp` to its end: its exit code, and what it printed on both outputs."""
    result = subprocess.run(
        [PROGRAM, *arguments],
        cwd=directory,
        input=data,
        capture_output=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", **(environment or {})},
    )
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def succeed(*arguments: str, directory: Path, data: bytes = b"") -> str:
    """Run it to a good end, and give what it printed."""
    code, output, errors = run(*arguments, directory=directory, data=data)
    assert (code, errors) == (0, "")
    return output


def fail(*arguments: str, directory: Path) -> str:
    """Run it, and give why it can't do what it was told."""
    code, output, errors = run(*arguments, directory=directory)
    assert (code, output) == (2, "")
    assert "Traceback" not in errors
    return errors


# -- Help -----------------------------------------------------------------------------------------


def test_help_names_the_verbs_and_each_has_its_own() -> None:
    printed = succeed("--help", directory=ROOT)
    for verb in ("serve", "call", "decode", "from-twisted"):
        assert f"\n  {verb} " in printed
        help_of_verb = succeed(verb, "-h", directory=ROOT)
        assert "Examples:\n    typed-amp " in help_of_verb
        assert re.search(r"Exit codes:\s+0 +i", help_of_verb)


def test_nothing_said_is_a_wish_for_help() -> None:
    code, output, errors = run(directory=ROOT)
    assert code == 2
    assert "Commands:\n  serve" in output + errors


def test_unknown_verbs_and_options_are_usage_errors() -> None:
    assert "No such command" in fail("encode", directory=ROOT)
    assert "No such option" in fail("decode", "--typed", directory=ROOT)


def test_shells_can_complete() -> None:
    code, output, _ = run(
        directory=ROOT,
        environment={
            "_TYPED_AMP_COMPLETE": "complete_bash",
            "COMP_WORDS": "typed-amp de",
            "COMP_CWORD": "1",
        },
    )
    assert (code, output) == (0, "decode\n")


# -- Decode ---------------------------------------------------------------------------------------


def test_capture_is_printed_box_by_box(shop: Path) -> None:
    assert (
        succeed("decode", "asks.bin", directory=shop)
        == f"""\
byte 0: ask 1, Buy
    sku = 'cup\\x1b[2J'
    from = 'ann'
    card = '4711'

byte 63: Log, which wants no answer
    line = '{"x" * 199}... (1,000 bytes)

byte 1,088: ask 2, Buy
    sku = b'\\xff'
"""
    )


def test_standard_input_is_read_without_a_file_and_for_a_dash(shop: Path) -> None:
    data = (shop / "asks.bin").read_bytes()
    expected = succeed("decode", "asks.bin", directory=shop)
    assert succeed("decode", directory=shop, data=data) == expected
    assert succeed("decode", "-", directory=shop, data=data) == expected


def test_two_directions_are_typed_by_each_other_and_secrets_stay_hidden(shop: Path) -> None:
    arguments = "decode", "--commands", "shop", "asks.bin", "answers.bin"
    printed = succeed(*arguments, directory=shop)
    assert (
        printed
        == f"""\
== asks.bin ==

byte 0: ask 1, Buy
    sku = 'cup\\x1b[2J'
    from_ = 'ann'
    card = SecretStr('**********')

byte 63: Log, which wants no answer
    line = '{"x" * 199}... (1,000 bytes)

byte 1,088: ask 2, Buy
    ! does not fit Buy: sku: not UTF-8
    sku = b'\\xff' (can't be read)

== answers.bin ==

byte 0: answer to 1, Buy
    price = 2.5

byte 26: error to 2, Buy: OUT_OF_STOCK (OutOfStock): none left
    sku = 'cup'
"""
    )
    answers = (shop / "answers.bin").read_bytes()
    piped = succeed(*arguments[:3], "asks.bin", "-", directory=shop, data=answers)
    assert piped == printed.replace("== answers.bin ==", "== - ==")


def test_one_file_is_typed_by_itself(shop: Path) -> None:
    data = (shop / "asks.bin").read_bytes() + (shop / "answers.bin").read_bytes()
    printed = succeed("decode", "--commands", "shop:Buy", directory=shop, data=data)
    assert "answer to 1, Buy\n    price = 2.5\n" in printed


def test_full_shows_long_values_to_their_ends(shop: Path) -> None:
    assert f"    line = '{'x' * 1000}'\n" in succeed("decode", "--full", "asks.bin", directory=shop)


def test_json_has_a_line_for_each_box(shop: Path) -> None:
    arguments = "decode", "--json", "--commands", "shop", "asks.bin", "answers.bin"
    lines = [json.loads(line) for line in succeed(*arguments, directory=shop).splitlines()]
    assert [(line["file"], line["offset"], line["kind"]) for line in lines] == [
        ("asks.bin", 0, "ask"),
        ("asks.bin", 63, "command"),
        ("asks.bin", 1088, "ask"),
        ("answers.bin", 0, "answer"),
        ("answers.bin", 26, "error"),
    ]
    assert lines[0]["fields"] == {"sku": "cup\x1b[2J", "from_": "ann", "card": "**********"}
    assert lines[3]["fields"] == {"price": 2.5}


def test_broken_capture_is_printed_up_to_the_byte_that_is_wrong(shop: Path) -> None:
    data = encode_box({b"_command": b"Ping"}) + b"\0\1k\0\1v\1\0"
    code, output, errors = run("decode", directory=shop, data=data)
    assert (code, errors) == (1, "")
    assert (
        output
        == """\
byte 0: Ping, which wants no answer

byte 24: a key of 256 bytes, where AMP allows 255: this is not AMP, in the box at byte 18
"""
    )
    code, output, _ = run("decode", "--json", directory=shop, data=data[:-1])
    assert code == 1
    assert json.loads(output.splitlines()[1])["missing"] == 1


def test_box_that_is_neither_ask_nor_answer_is_broken(shop: Path) -> None:
    data = encode_box({b"a": b"1"}) + encode_box({b"_command": b"Ping"})
    code, output, _ = run("decode", directory=shop, data=data)
    assert code == 1
    assert "    ! a box with none of _command, _answer and _error\n" in output
    assert output.endswith("Ping, which wants no answer\n")


def test_nothing_is_a_good_capture(shop: Path) -> None:
    assert succeed("decode", directory=shop) == ""


def test_segmented_reads_the_framing_of_the_second_version(shop: Path) -> None:
    data = b"\0\x08_command\0\1c\0\1k\xff\xff" + b"x" * 65_535 + b"\0\1y\0\0"
    printed = succeed("decode", "--segmented", "--full", directory=shop, data=data)
    assert printed.endswith(f"    k = '{'x' * 65_535}y'\n")
    code, _, _ = run("decode", directory=shop, data=data)
    assert code == 1


def test_boxes_are_printed_as_they_come(shop: Path) -> None:
    with subprocess.Popen(
        [PROGRAM, "decode"], cwd=shop, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(2):
            process.stdin.write(encode_box({b"_command": b"Ping"}))
            process.stdin.flush()
            if number:
                assert process.stdout.readline() == b"\n"
            assert process.stdout.readline().endswith(b": Ping, which wants no answer\n")
        process.stdin.close()
        assert process.wait(60) == 0


def test_it_ends_quietly_when_nobody_reads_on(shop: Path) -> None:
    (shop / "big.bin").write_bytes(encode_box({b"_command": b"Ping"}) * 100_000)
    with subprocess.Popen(
        [PROGRAM, "decode", "big.bin"], cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == -signal.SIGPIPE
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        ("<asks.bin >/dev/full", "write to standard output: No space left on device"),
        ("big.bin >/dev/full", "write to standard output: No space left on device"),
        ("asks.bin >&-", "write to standard output: it is closed"),
        ("<&-", "read standard input: it is closed"),
    ],
)
def test_streams_that_fail_are_told(shop: Path, redirection: str, message: str) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (shop / "big.bin").write_bytes(encode_box({b"_command": b"Ping"}) * 10_000)
    command = f"exec '{PROGRAM}' decode {redirection}"
    result = subprocess.run(
        ["sh", "-c", command], cwd=shop, capture_output=True, text=True, check=False
    )
    expected = (2, "", f"typed-amp: can't {message}\n")
    assert (result.returncode, result.stdout, result.stderr) == expected


def test_memory_is_bounded_by_a_box(shop: Path) -> None:
    limit = 300 * 2**20
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}));"
        " from typed_amp.__main__ import main; main()"
    )
    boxes = 20 * encode_box({b"_command": b"Put", b"data": bytes(60_000)})
    with subprocess.Popen(
        [sys.executable, "-c", program, "decode"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        for _ in range(limit // len(boxes)):
            process.stdin.write(boxes)
        process.stdin.close()
        assert process.wait(60) == 0


def test_output_that_knows_ascii_alone_gets_ascii(shop: Path) -> None:
    data = encode_box({b"_command": b"Say", b"text": "é€".encode()})
    environment = {"PYTHONIOENCODING": "ascii"}
    code, output, _ = run("decode", directory=shop, data=data, environment=environment)
    assert (code, output.splitlines()[1]) == (0, r"    text = '\xe9\u20ac'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.bin"], "can't read nowhere.bin: No such file or directory"),
        (["."], "can't read .: Is a directory"),
        (["--commands", "nothing"], "can't import 'nothing': ModuleNotFoundError: No module"),
        (["--commands", ""], "can't import '': ValueError"),
        (["--commands", "failing"], "can't import 'failing': RuntimeError: so it is ("),
        (["--commands", "json"], "json has no typed_amp commands"),
        (["--commands", "shop:Sell"], "shop has no typed_amp command Sell"),
        (["--commands", "shop:Receipt"], "shop has no typed_amp command Receipt"),
        (["--commands", "shop", "--commands", "other"], "shop:Buy and other:Sell have one name"),
        (["--commands", "unfinished:Base"], "Base can't be used yet"),
    ],
)
def test_what_can_not_be_done_is_said(shop: Path, arguments: list[str], message: str) -> None:
    (shop / "failing.py").write_text("raise RuntimeError('so it is')")
    (shop / "other.py").write_text(
        "from typed_amp import Command\nclass Sell(Command, name='Buy'): pass"
    )
    (shop / "unfinished.py").write_text(
        "from typing import Generic, TypeVar\nfrom typed_amp import Command\n"
        "from pydantic import BaseModel\nT = TypeVar('T')\n"
        "class Answer(BaseModel, Generic[T]):\n    value: T\n"
        "class Base(Command[Answer[T]], Generic[T]):\n    value: T\n"
    )
    errors = fail("decode", *arguments, directory=shop)
    assert errors.startswith(f"typed-amp: {message}")
    assert len(errors.splitlines()) == 1


def test_command_that_is_named_alone_goes_before_others_of_its_name(shop: Path) -> None:
    (shop / "other.py").write_text(
        "from typed_amp import Command\nclass Sell(Command, name='Buy'):\n    sku: bytes"
    )
    names = "--commands", "shop", "--commands", "other:Sell"
    assert "sku = b'cup" in succeed("decode", *names, "asks.bin", directory=shop)


# -- From Twisted ---------------------------------------------------------------------------------


@pytest.fixture
def twisted_shop(tmp_path: Path) -> Callable[[str], Path]:
    def write(arguments: str) -> Path:
        (tmp_path / "twisted_shop.py").write_text(
            "from twisted.protocols import amp\n\n\nclass Custom(amp.Argument):\n"
            "    def toString(self, value):\n        return value\n\n\n"
            f"class Buy(amp.Command):\n    arguments = [{arguments}]\n"
        )
        return tmp_path

    return write


BUY = '''\
"""The AMP commands of twisted_shop, as typed_amp has them.

Made by `typed-amp from-twisted twisted_shop`.
"""

from typed_amp import Command


class Buy(Command):
    sku: str
'''


def test_commands_are_printed_or_written_to_a_file(twisted_shop: Callable[[str], Path]) -> None:
    directory = twisted_shop('(b"sku", amp.Unicode())')
    assert succeed("from-twisted", "twisted_shop", directory=directory) == BUY
    arguments = "from-twisted", "twisted_shop", "-o", "commands.py"
    assert succeed(*arguments, directory=directory) == ""
    assert (directory / "commands.py").read_text() == BUY
    data = encode_box({b"_command": b"Buy", b"sku": b"cup"})
    printed = succeed("decode", "--commands", "commands", directory=directory, data=data)
    assert "sku = 'cup'" in printed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_commands_that_can_not_be_printed(twisted_shop: Callable[[str], Path]) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [PROGRAM, "from-twisted", "twisted_shop"],
            cwd=twisted_shop(""),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    message = "typed-amp: can't write to standard output: No space left on device\n"
    assert (result.returncode, result.stderr) == (2, message)


def test_what_is_left_out_is_counted_on_standard_error(
    twisted_shop: Callable[[str], Path],
) -> None:
    directory = twisted_shop('(b"sku", Custom())')
    code, output, errors = run("from-twisted", "twisted_shop", directory=directory)
    assert (code, errors) == (0, "1 thing could not be turned: see the comments\n")
    assert "    # sku is left out: twisted_shop.Custom (line 4)" in output
    directory = twisted_shop('(b"sku", Custom()), (b"", Custom())')
    _, _, errors = run("from-twisted", "twisted_shop", directory=directory)
    assert errors == "2 things could not be turned: see the comments\n"


def test_what_can_not_be_turned_at_all_is_said(twisted_shop: Callable[[str], Path]) -> None:
    directory = twisted_shop("")
    assert fail("from-twisted", "nothing", directory=directory) == (
        "typed-amp: can't import 'nothing': ModuleNotFoundError: No module named 'nothing'\n"
    )
    assert fail("from-twisted", "json", directory=directory) == (
        "typed-amp: no subclass of amp.Command is defined in json\n"
    )
    arguments = "from-twisted", "twisted_shop", "-o", "no/where.py"
    assert fail(*arguments, directory=directory) == (
        "typed-amp: can't write no/where.py: No such file or directory\n"
    )
    assert "Missing argument" in fail("from-twisted", directory=directory)


def test_without_twisted_it_says_what_to_install(twisted_shop: Callable[[str], Path]) -> None:
    program = (
        "import sys; sys.modules['twisted'] = None; from typed_amp.__main__ import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "from-twisted", "twisted_shop"],
        cwd=twisted_shop(""),
        capture_output=True,
        text=True,
        check=False,
    )
    message = "typed-amp: Twisted is not installed here: pip install twisted\n"
    assert (result.returncode, result.stdout, result.stderr) == (2, "", message)
