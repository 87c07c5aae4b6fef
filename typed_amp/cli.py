"""The command line: `typed-amp`, its verbs, their help and their exit codes.

Rule of this module: it reads arguments, opens files and prints. What the verbs do is done by
modules that know no command line.

Exit codes: 0 is good, 1 says that what was looked at is broken, 2 that the command can't be carried
out as it was given. Verbs with more of them say so.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from typed_amp.capture import Fault, read_capture
from typed_amp.cli_call import CALL_HELP, call
from typed_amp.cli_serve import SERVE_HELP, serve
from typed_amp.from_twisted import ConversionError, check_twisted, convert
from typed_amp.named import NameTrouble, commands_of, find_modules_here, imported, named_command
from typed_amp.rendering import fault_as_json, meaning_as_json, meaning_as_text
from typed_amp.terminal import fail, flush, prepare_output, show
from typed_amp.transcript import Asks, Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from typed_amp.command import Command
    from typed_amp.signature import Signature

__all__ = ["app", "decode", "from_twisted", "program", "run"]

_CHUNK = 65_536

_DECODE_HELP = """
Print captured boxes.

A capture is what went over the wire in one direction, or in both if it is one: the bytes of a TCP
stream, as tcpflow or Wireshark's "Follow TCP Stream" (as raw data) saves them. Each box is printed
with the byte at which it begins, what it is, and its values.

Where a capture is broken, or ends inside a box, the boxes before that are printed, then the byte
that is wrong, and why.

An answer says only to which ask it belongs, not to which command. Give both directions as two
files, and the asks are looked up in the other file; with one file, in itself.

\b
Examples:
  typed-amp decode capture.bin
  typed-amp decode --commands shop.commands from-client.bin from-server.bin
  typed-amp decode --json capture.bin | jq .command

Exit codes: 0 if all boxes are complete, 1 if a capture is broken, 2 if the options are wrong, a
file can't be read or nothing can be printed.
"""

_FROM_TWISTED_HELP = """
Print Twisted's commands as typed_amp source.

The modules are imported, so Twisted must be installed, and what they need. Printed are the
commands that a module defines, those that its __all__ names, and those that a package's __init__
takes from the package's own modules. Twisted's own base classes are no commands.

On the wire nothing changes: fields, keys, names and error codes stay what they are, and the
commands printed talk to the original ones. What can't be turned, such as an argument class of
one's own, is a comment in its place that says why and what to do.

\b
Examples:
  typed-amp from-twisted shop.twisted_commands
  typed-amp from-twisted shop.twisted_commands -o shop/commands.py

Exit codes: 0 if source was printed, even if it has comments in place of commands; 2 if there was
nothing to print, a module can't be imported or nothing can be printed.
"""

app: typer.Typer = typer.Typer(
    name="typed-amp",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """Run the command line on the arguments of the process, and end it."""
    find_modules_here()
    app(prog_name="typed-amp")


@app.callback()
def program() -> None:
    """Tools for AMP, the Asynchronous Messaging Protocol."""


app.command(help=SERVE_HELP)(serve)
app.command(help=CALL_HELP)(call)


@app.command(help=_DECODE_HELP)
def decode(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE",
            help="Captured bytes. With none, and for -, they come from standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    commands: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE[:CLASS]",
            help="Show the values of these typed_amp commands as their models have them. A module"
            " stands for all commands in it. May be given several times.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, for other programs.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Show long values to their ends.")] = False,
    segmented: Annotated[
        bool,
        typer.Option(
            "--segmented",
            help="Read AMPv2's framing, where a value of 65,535 bytes goes on in another.",
        ),
    ] = False,
) -> None:
    """Print captured boxes; see its help."""
    signatures = _signatures(commands or [])
    prepare_output()
    with contextlib.ExitStack() as stack:
        captures = [_opened(str(file), stack) for file in files or [Path("-")]]
        tables: list[Asks] = []
        if len(captures) > 1:
            captures = [(name, _rereadable(file, stack)) for name, file in captures]
            tables = [_asks_of(file, segmented=segmented) for _, file in captures]
        is_good = True
        for index, (name, file) in enumerate(captures):
            others = [table for table in tables if table is not tables[index]]
            transcript = Transcript(signatures, others, tables[index] if tables else None)
            if tables and not as_json:
                show(f"{chr(10) * bool(index)}== {name} ==\n")
            is_first = True
            for item in read_capture(_chunks(file), segmented=segmented):
                if isinstance(item, Fault):
                    is_good = False
                    text = fault_as_json(item, name) if as_json else str(item)
                else:
                    meaning = transcript.meaning(item)
                    is_good = is_good and not meaning.is_violation
                    text = (
                        meaning_as_json(meaning, name)
                        if as_json
                        else meaning_as_text(meaning, full=full)
                    )
                show(text if is_first or as_json else f"\n{text}")
                is_first = False
    flush()
    raise typer.Exit(0 if is_good else 1)


@app.command("from-twisted", help=_FROM_TWISTED_HELP)
def from_twisted(
    modules: Annotated[
        list[str],
        typer.Argument(metavar="MODULE", help="Modules, as one would import them."),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            dir_okay=False,
            help="Write the source to this file.",
            show_default="standard output",
        ),
    ] = None,
) -> None:
    """Print Twisted's commands as typed_amp source; see its help."""
    try:
        check_twisted()
        for name in modules:
            _imported(name)
        conversion = convert(modules)
    except ConversionError as error:
        fail(str(error))
    if output is None:
        prepare_output()
        show(conversion.source.removesuffix("\n"))
        flush()
    else:
        try:
            output.write_text(conversion.source, encoding="utf-8")
        except OSError as error:
            fail(f"can't write {output}: {error.strerror}")
    if conversion.left_out:
        count = conversion.left_out
        things = "1 thing could" if count == 1 else f"{count} things could"
        typer.echo(f"{things} not be turned: see the comments", err=True)


# -- Commands --------------------------------------------------------------------------------


def _imported(name: str) -> ModuleType:
    try:
        return imported(name)
    except NameTrouble as trouble:
        fail(str(trouble))


def _signatures(names: list[str]) -> dict[bytes, Signature[Any, Any]]:
    """Find the commands that `--commands` names, by their names on the wire.

    A class that is named itself goes before those that a module happens to have.
    """
    chosen: dict[bytes, type[Command[Any]]] = {}
    others: list[type[Command[Any]]] = []
    for name in names:
        if ":" in name:
            try:
                command = named_command(name)
            except NameTrouble as trouble:
                fail(str(trouble))
            chosen[command.__amp_signature__().name] = command
            continue
        commands = commands_of(_imported(name))
        if not commands:
            fail(f"{name} has no typed_amp commands")
        others += commands
    found: dict[bytes, type[Command[Any]]] = {}
    for command in others:
        other = found.setdefault(command.__amp_signature__().name, command)
        if other is not command and command.__amp_signature__().name not in chosen:
            fail(
                f"{other.__module__}:{other.__name__} and {command.__module__}:{command.__name__}"
                " have one name on the wire; name the one you mean too, as MODULE:CLASS"
            )
    return {name: command.__amp_signature__() for name, command in {**found, **chosen}.items()}


# -- Files -----------------------------------------------------------------------------------


def _opened(name: str, stack: contextlib.ExitStack) -> tuple[str, BinaryIO]:
    if name == "-":
        if sys.stdin is None:
            fail("can't read standard input: it is closed")
        return "-", sys.stdin.buffer
    try:
        return name, stack.enter_context(Path(name).open("rb"))
    except OSError as error:
        fail(f"can't read {name}: {error.strerror}")


def _rereadable(file: BinaryIO, stack: contextlib.ExitStack) -> BinaryIO:
    """Give a file that can be read twice: a copy, if this one comes through a pipe."""
    if file.seekable():
        return file
    copy: BinaryIO = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


def _asks_of(file: BinaryIO, *, segmented: bool) -> Asks:
    start = file.tell()
    asks = Asks()
    for item in read_capture(_chunks(file), segmented=segmented):
        if not isinstance(item, Fault):
            asks.note(item.box)
    file.seek(start)
    return asks


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """Read what is there, as it comes; what was printed before is seen meanwhile."""
    read = getattr(file, "read1", file.read)
    while True:
        flush()
        try:
            chunk: bytes = read(_CHUNK)
        except OSError as error:
            fail(f"can't read {getattr(file, 'name', 'the capture')}: {error.strerror}")
        if not chunk:
            return
        yield chunk
