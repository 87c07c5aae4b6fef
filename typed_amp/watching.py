"""Watching the files of a program: which of them have changed.

Rule of this module: nothing of what is watched is imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["changes_of", "places_of"]


def places_of(target: str) -> tuple[list[Path], bool]:
    """Say where the source of a module is, and that of its neighbours.

    Args:
        target: a module, or something in one, as `package.module:name`.

    Returns:
        The directories, and whether those within them belong to it too: so it is for a package. A
        module that is in none may be in a directory with much else.
    """
    package = target.partition(":")[0].partition(".")[0]
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        return [Path(place) for place in spec.submodule_search_locations], True
    if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
        return [Path(spec.origin).parent], False
    return [Path.cwd()], False


async def changes_of(target: str) -> AsyncIterator[str]:
    """Give the name of a Python file of a program whenever some have changed.

    Args:
        target: as for `places_of`.
    """
    from watchfiles import PythonFilter, awatch

    places, is_package = places_of(target)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # the caller says what has changed
    async for changes in awatch(*places, watch_filter=PythonFilter(), recursive=is_package):
        yield min(_shown(Path(path)) for _, path in changes)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
