"""Builds wheels: compiled where there is a compiler, plain where there is none.

Rule of this module: what can't be compiled still works. Whatever goes wrong leaves a wheel of the
same files for Python to interpret, with a tag that says so.

Two environment variables decide otherwise, where they are `1`: with `TYPED_AMP_PURE` nothing is
compiled, and with `TYPED_AMP_COMPILED` it is an error if that can't be done.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["COMPILED_MODULES", "CompilingHook"]

COMPILED_MODULES = (
    "alarms",
    "box",
    "calls",
    "dialogue",
    "elements",
    "extensions",
    "integers",
    "link",
    "refusals",
    "responses",
    "settings",
    "writer",
)
"""Those for which it pays, measured one by one.

None with coroutines: mypyc's pass an exception on in a way that Python 3.12 and later warn of, and
a task whose outermost coroutine is one of them can't show where it is.
"""

_COMPILER = ["mypy[mypyc]>=1.20", "setuptools>=77", "pydantic>=2.11", "typing-extensions>=4.13"]
"""What makes C of them, and what it takes the types from."""


class CompilingHook(BuildHookInterface[Any]):
    """Adds to a wheel what mypyc makes of some modules. Their sources are in it all the same."""

    _directory: TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        return _COMPILER if _is_worth_trying() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return  # edits are to count
        if not _is_worth_trying():
            if _is_demanded():
                raise RuntimeError(
                    "typed_amp can't be compiled: no C compiler for CPython was found"
                )
            return
        self._directory = TemporaryDirectory(prefix="typed_amp-")
        try:
            libraries = compile_modules(Path(self.root), Path(self._directory.name))
        except (Exception, SystemExit) as error:  # mypyc exits
            if _is_demanded():
                raise RuntimeError("typed_amp can't be compiled") from error
            self.app.display_warning(f"typed_amp is not compiled, and so slower: {error!r}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update(libraries)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._directory is not None:
            self._directory.cleanup()


def _is_demanded() -> bool:
    return os.environ.get("TYPED_AMP_COMPILED") == "1"


def _is_worth_trying() -> bool:
    """Say whether there may be a compiler: mypyc is not even fetched where there is none."""
    if os.environ.get("TYPED_AMP_PURE") == "1":
        return False
    if platform.python_implementation() != "CPython":
        return False
    if sysconfig.get_config_var("Py_GIL_DISABLED") and not _is_demanded():
        return False  # what mypyc makes would bring the lock back
    if sys.platform == "win32":
        return True  # where no path leads to a compiler
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    return shutil.which(command[0]) is not None


def compile_modules(root: Path, directory: Path) -> dict[str, str]:
    """Compile the modules.

    Args:
        root: where the package is.
        directory: where to put what is made.

    Returns:
        The files that were made, and the place of each in the wheel.

    Raises:
        Exception: it can't be done.
        SystemExit: likewise.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    # Tracebacks show the paths, and so those from here.
    with contextlib.chdir(root):
        extensions = mypycify(
            [
                "--config-file=",
                "--follow-imports=silent",
                f"--cache-dir={os.devnull}",
                *(f"typed_amp/{module}.py" for module in COMPILED_MODULES),
            ],
            target_dir=str(directory / "c"),
            group_name="typed_amp._core",
            debug_level="0",
        )
        if sys.platform != "win32":
            for extension in extensions:  # another compiler's warnings are nobody's errors
                extension.extra_compile_args.append("-Wno-error")
        build = build_ext(Distribution({"ext_modules": extensions}))
        build.build_lib = str(directory / "lib")
        build.build_temp = str(directory / "objects")
        build.ensure_finalized()
        build.run()
    made = [path for path in (directory / "lib").rglob("*") if path.is_file()]
    return {str(path): str(path.relative_to(directory / "lib")) for path in made}
