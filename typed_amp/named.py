"""Things in modules that a user names: `package.module:router`, `package.module:Command`.

Rule of this module: what goes wrong with a name is told in one line, with its place.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from typed_amp.command import Command
from typed_amp.errors import DefinitionError
from typed_amp.router import Router

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "NameTrouble",
    "commands_of",
    "find_modules_here",
    "imported",
    "is_command",
    "named_command",
    "named_router",
    "routers_of",
]


class NameTrouble(Exception):  # noqa: N818 - it is the user's, not the program's
    """Something can't be found under its name; the text says what and why."""


def find_modules_here() -> None:
    """Have modules found in the directory where one is, as `python -m` does."""
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))


def imported(name: str) -> ModuleType:
    """Import a module.

    Raises:
        NameTrouble: it can't be imported.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = ""
        if frames and not isinstance(error, ModuleNotFoundError):
            place = f" ({frames[-1].filename}, line {frames[-1].lineno})"
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise NameTrouble(f"can't import {name!r}: {told}{place}") from error


def named_router(name: str) -> Router[Any]:
    """Give a router by its name, `package.module:router`.

    Raises:
        NameTrouble: there is none of this name.
    """
    module, attribute = _module_and_attribute(name, "router")
    found = getattr(module, attribute, None)
    if isinstance(found, Router):
        return found
    raise NameTrouble(_missing(module, "router", attribute, routers_of(module)))


def named_command(name: str) -> type[Command[Any]]:
    """Give a command by its name, `package.module:Command`.

    Raises:
        NameTrouble: there is none of this name, or it can't be used.
    """
    module, attribute = _module_and_attribute(name, "Command")
    found = getattr(module, attribute, None)
    if not is_command(found):
        names = [command.__name__ for command in commands_of(module)]
        raise NameTrouble(_missing(module, "typed_amp command", attribute, names))
    try:
        found.__amp_signature__()
    except DefinitionError as error:
        raise NameTrouble(str(error)) from error
    return found


def _module_and_attribute(name: str, example: str) -> tuple[ModuleType, str]:
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        raise NameTrouble(f"{name!r} names a module or nothing; say package.module:{example}")
    return imported(module_name), attribute


def _missing(module: ModuleType, kind: str, name: str, others: list[str]) -> str:
    there = f"; it has {', '.join(others)}" if others else ""
    return f"{module.__name__} has no {kind} {name}{there}"


def routers_of(module: ModuleType) -> list[str]:
    """Give the names of all routers of a module."""
    return [name for name, thing in vars(module).items() if isinstance(thing, Router)]


def is_command(thing: object) -> TypeGuard[type[Command[Any]]]:
    """Say whether something is the class of a command."""
    return isinstance(thing, type) and issubclass(thing, Command)


def commands_of(module: ModuleType) -> list[type[Command[Any]]]:
    """Give all commands of a module that can be used."""
    commands: list[type[Command[Any]]] = []
    for name, thing in vars(module).items():
        # pydantic puts Command[Answer] there too, under just that name.
        if name.isidentifier() and is_command(thing) and thing is not Command:
            # One that isn't given its type parameters is a base of others, and no command.
            with contextlib.suppress(DefinitionError):
                thing.__amp_signature__()
                commands.append(thing)
    return commands
