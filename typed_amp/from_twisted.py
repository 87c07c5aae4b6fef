"""From Twisted's commands to typed_amp's: classes in, source out.

Rule of this module: the commands that it writes and the original ones are the same on the wire.
What it can't turn it says, in place; it never guesses. Twisted is imported only when it is used.

What a command inherits is written out with it: Twisted inherits errors, and takes over fields
whole, where a Python class adds to those of its base.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from typed_amp.errors import AmpError, DefinitionError
from typed_amp.python_source import (
    bytes_literal,
    class_lines,
    identifier,
    text_literal,
)
from typed_amp.signature import Options
from typed_amp.twisted_fields import CantTurnError, FieldWriter, Sheet, differs, place_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType

__all__ = [
    "Conversion",
    "ConversionError",
    "check_twisted",
    "convert",
]


class ConversionError(AmpError):
    """There is nothing to write: no Twisted, or no commands."""


class Conversion(NamedTuple):
    """What came of it.

    Attributes:
        source: the source of a module.
        left_out: how many things are comments in it, since they could not be turned.
    """

    source: str
    left_out: int


def check_twisted() -> None:
    """See that Twisted is there.

    Raises:
        ConversionError: it isn't.
    """
    if importlib.util.find_spec("twisted") is None:
        raise ConversionError("Twisted is not installed here: pip install twisted")


def convert(names: Sequence[str]) -> Conversion:
    """Write the commands of Twisted modules as the source of one module.

    Args:
        names: the modules; they are imported. Of each are taken the commands that it defines,
            those that its `__all__` names, and those that the `__init__` of a package takes from
            the package's own modules.

    Raises:
        ConversionError: Twisted is missing, or there is no command.
        Exception: whatever the import of a module raises.
    """
    check_twisted()
    from twisted.protocols import amp

    modules = [importlib.import_module(name) for name in names]
    commands = [command for module in modules for command in _commands_of(module, amp)]
    if not commands:
        raise ConversionError(_no_commands(modules, amp))
    return _Writer(amp, names).write(dict.fromkeys(commands))


def _all_commands(module: ModuleType, amp: Any) -> Iterator[tuple[str, Any]]:
    for name, thing in vars(module).items():
        is_command = isinstance(thing, type) and issubclass(thing, amp.Command)
        if is_command and thing.__module__ != amp.__name__:
            yield name, thing


def _commands_of(module: ModuleType, amp: Any) -> Iterator[Any]:
    exported = getattr(module, "__all__", ())
    within = f"{module.__name__}." if hasattr(module, "__path__") else None
    for name, command in _all_commands(module, amp):
        owner = f"{command.__module__}."
        if (
            command.__module__ == module.__name__
            or name in exported
            or (within and not exported and owner.startswith(within))
        ):
            yield command


def _no_commands(modules: Iterable[ModuleType], amp: Any) -> str:
    names = ", ".join(module.__name__ for module in modules)
    others = sorted(
        {command.__module__ for module in modules for _, command in _all_commands(module, amp)}
    )
    message = f"no subclass of amp.Command is defined in {names}"
    if others:
        message += f"; name the modules that its imported ones come from: {', '.join(others)}"
    return message


_COMMAND_METHODS: Final = (
    "makeArguments", "parseArguments", "makeResponse", "parseResponse", "_doCommand",
)  # fmt: skip
"""What says how a command is written as a whole."""


class _Writer:
    """Writes one module."""

    def __init__(self, amp: Any, modules: Sequence[str]) -> None:
        self._amp = amp
        self._modules = modules
        self._sheet = Sheet()
        self._field_writer = FieldWriter(amp, self._sheet)
        self._error_names: dict[tuple[str, str], str] = {}

    def write(self, commands: Iterable[Any]) -> Conversion:
        names = {
            command: self._sheet.names.claim(command.__name__, f"{command.__name__}Command")
            for command in commands
        }
        for command, name in names.items():
            self._write_command(command, name)
        origin = ", ".join(self._modules)
        head = [
            f'"""The AMP commands of {origin}, as typed_amp has them.',
            "",
            f"Made by `typed-amp from-twisted {' '.join(self._modules)}`.",
            '"""',
        ]
        imports = self._sheet.imports.lines()
        parts = ["\n".join([*head, "", *imports])]
        parts += ["\n".join(lines) for lines in self._sheet.classes]
        return Conversion("\n\n\n".join(parts) + "\n", self._sheet.left_out)

    # -- Commands ----------------------------------------------------------------------------

    def _write_command(self, command: Any, name: str) -> None:
        amp = self._amp
        try:
            wire_name = command.commandName.decode()
            Options.merged(
                "", (), name=wire_name, errors=None, fatal_errors=None, requires_answer=None
            )
        except (UnicodeDecodeError, DefinitionError):
            shown = bytes_literal(command.commandName)
            self._sheet.classes.append(
                self._sheet.comment(f"{name} is left out: its name {shown} can't be one here.", "")
            )
            return
        comments: list[str] = []
        fields = self._field_writer.fields(command.arguments, name, name)
        kind = next(
            kind
            for kind in (amp.StartTLS, amp.ProtocolSwitchCommand, amp.Command)
            if issubclass(command, kind)
        )
        base = self._base(command, kind, name, comments)
        keywords: list[tuple[str, str | Sequence[str]]] = []
        if wire_name != name:
            keywords.append(("name", text_literal(wire_name)))
        keywords += self._errors(command, comments)
        if not command.requiresAnswer and kind is amp.Command:
            keywords.append(("requires_answer", "False"))
        changed = [method for method in _COMMAND_METHODS if differs(command, kind, method)]
        if changed:
            comments += self._sheet.comment(
                f"{place_of(command)} has {', '.join(changed)} of its own, and may put other things"
                " on the wire than are declared: compare.",
                "",
            )
        head = class_lines(name, [base], keywords)
        self._sheet.add_class([*comments, *head], _description(command), fields)

    def _base(self, command: Any, kind: Any, name: str, comments: list[str]) -> str:
        """Write what the command derives from, and its answer before it."""
        amp = self._amp
        if kind is amp.ProtocolSwitchCommand:  # answered with a box that has no fields
            self._sheet.imports.add("typed_amp", "SwitchProtocol")
            return "SwitchProtocol"
        response = [pair for pair in command.response if not self._field_writer.is_local(pair[1])]
        if kind is amp.StartTLS:
            self._sheet.imports.add("typed_amp", "StartTLS")
            if response:
                keys = ", ".join(bytes_literal(key) for key, _ in response)
                comments += self._sheet.comment(
                    f"The fields of its response are left out, since StartTLS has none: {keys}.",
                    "",
                )
            return "StartTLS"
        self._sheet.imports.add("typed_amp", "Command")
        if not response:
            return "Command"
        if not command.requiresAnswer:
            comments += self._sheet.comment(
                f"The response of {name} is left out: with requiresAnswer = False none comes.", ""
            )
            return "Command"
        answer = self._sheet.names.claim(f"{name}Answer", f"{name}AnswerModel")
        fields = self._field_writer.fields(response, answer, answer)
        self._sheet.add_model(answer, f"The answer to {name}.", fields)
        return f"Command[{answer}]"

    def _errors(
        self, command: Any, comments: list[str]
    ) -> Iterator[tuple[str, str | Sequence[str]]]:
        """Write the errors. Fatal are those that Twisted's responders take for it."""
        items: dict[str, list[str]] = {"errors": [], "fatal_errors": []}
        for error_type, code in command.allErrors.items():
            try:
                name = self._error(command, error_type, code)
            except CantTurnError as reason:
                comments += self._sheet.comment(
                    f"{error_type.__name__} ({bytes_literal(code)}) is left out of the errors:"
                    f" {reason}.",
                    "",
                )
                continue
            keyword = "fatal_errors" if error_type in command.fatalErrors else "errors"
            items[keyword].append(f"{name}: {text_literal(code.decode())}")
        for keyword, written in items.items():
            if written:
                yield keyword, written

    def _error(self, command: Any, error_type: Any, code: bytes) -> str:
        """Give the name of an exception in the source, which imports it."""
        if command.reverseErrors[code] is not error_type:
            raise CantTurnError(
                f"{command.reverseErrors[code].__name__} has the same code, which callers get"
            )
        try:
            text = code.decode()
            Options.merged(
                command.__name__,
                (),
                name=None,
                errors={error_type: text},
                fatal_errors=None,
                requires_answer=None,
            )
        except UnicodeDecodeError:
            raise CantTurnError("its code is not UTF-8") from None
        except DefinitionError as error:
            raise CantTurnError(str(error).removeprefix(f"{command.__name__}: ")) from None
        module, outer, inner = _whereabouts(error_type)
        if module == "builtins":
            return outer
        if (module, outer) in self._error_names:
            return ".".join([self._error_names[module, outer], *inner])
        alias = self._sheet.names.claim(
            outer, f"{identifier(module.rpartition('.')[2]).title().replace('_', '')}{outer}"
        )
        self._sheet.imports.add(module, outer, alias if alias != outer else "")
        if _is_untyped(module):
            self._sheet.imports.remark(module, "type: ignore[import-untyped]")
        self._error_names[module, outer] = alias
        return ".".join([alias, *inner])


def _whereabouts(error_type: type) -> tuple[str, str, list[str]]:
    """Say from where an exception is imported: the module, a name in it, and the way from there.

    Raises:
        CantTurnError: nowhere is it found.
    """
    module = error_type.__module__
    outer, *inner = error_type.__qualname__.split(".")
    found: Any = sys.modules.get(module)
    for name in (outer, *inner):
        found = getattr(found, name, None)
    if found is not error_type or module == "__main__":
        raise CantTurnError(f"it can't be imported from {module}")
    return module, outer, inner


def _description(command: type) -> str:
    """Give what a command's own docstring says, without the fields of epytext or Sphinx."""
    text = inspect.cleandoc(vars(command).get("__doc__") or "")
    text = re.split(r"^(?:@|:)\w", text, maxsplit=1, flags=re.MULTILINE)[0].strip()
    return re.sub(r"\b[A-Z]\{([^{}]*)\}", r"`\1`", text)


def _is_untyped(module: str) -> bool:
    """Whether mypy takes a module for one without types: installed, and not marked as typed."""
    top = module.partition(".")[0]
    file = Path(getattr(sys.modules.get(top), "__file__", None) or "/")
    for kind in ("purelib", "platlib"):
        directory = Path(sysconfig.get_path(kind))
        if file.is_relative_to(directory):
            marks = (file.parent / "py.typed", directory / f"{top}-stubs")
            return not any(mark.exists() for mark in marks)
    return False
