"""What the shell may complete: routers, commands and their fields.

Rule of this module: who presses a key gets suggestions or nothing, never an error.
"""

from __future__ import annotations

import contextlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import typer  # noqa: TC002 - typer itself reads the annotations

from typed_amp.named import (
    NameTrouble,
    commands_of,
    find_modules_here,
    imported,
    named_command,
    routers_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["complete_command", "complete_field", "complete_router"]


def complete_router(incomplete: str) -> list[str]:
    """Complete `package.module:router`."""
    return _complete(incomplete, routers_of)


def complete_command(incomplete: str) -> list[str]:
    """Complete `package.module:Command`."""

    def names(module: ModuleType) -> list[str]:
        return [command.__name__ for command in commands_of(module)]

    return _complete(incomplete, names)


def complete_field(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a field of the command that was named before."""
    name = context.params.get("command")
    if not isinstance(name, str) or "=" in incomplete:
        return []
    find_modules_here()
    with contextlib.suppress(NameTrouble):
        fields = named_command(name).model_fields
        return [f"{field}=" for field in fields if field.startswith(incomplete)]
    return []


def _complete(incomplete: str, names_of: Callable[[ModuleType], list[str]]) -> list[str]:
    find_modules_here()
    module, colon, start = incomplete.partition(":")
    if not colon:
        return _modules(module)
    with contextlib.suppress(NameTrouble):
        names = names_of(imported(module))
        return [f"{module}:{name}" for name in names if name.startswith(start)]
    return []


def _modules(incomplete: str) -> list[str]:
    """Give the modules here whose names begin so; of a package those within it as well.

    Nothing is imported, and what is installed elsewhere isn't shown: it is too much.
    """
    package, dot, start = incomplete.rpartition(".")
    place = Path(*package.split(".")) if package else Path()
    found: list[str] = []
    for module in pkgutil.iter_modules([str(place)]):
        if module.name.startswith(start) and not module.name.startswith("_"):
            name = f"{package}{dot}{module.name}"
            found += [f"{name}:", f"{name}."] if module.ispkg else [f"{name}:"]
    return found
