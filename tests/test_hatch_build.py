"""Wheels of both kinds, built as an installer builds them."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from hatch_build import COMPILED_MODULES
from tests.documents import ROOT

pytestmark = pytest.mark.skipif(
    not (ROOT / "typed_amp").is_dir(), reason="what is tested is installed, not built here"
)

USE = """
import traceback
import typed_amp
print(typed_amp.COMPILED)
try:
    typed_amp.encode_box({})
except typed_amp.EncodeError:
    traceback.print_exc()
"""


@pytest.mark.parametrize("module", COMPILED_MODULES)
def test_compiled_module_has_no_coroutines(module: str) -> None:
    # Those that mypyc makes warn on Python 3.12 and later when they are cancelled.
    tree = ast.parse((ROOT / f"typed_amp/{module}.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]


def build(directory: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory), *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def wheel_in(directory: Path) -> Path:
    (wheel,) = directory.glob("*.whl")
    return wheel


def used(wheel: Path, directory: Path) -> list[str]:
    """Put a wheel where Python finds it, and say what using it prints."""
    with ZipFile(wheel) as archive:
        archive.extractall(directory)
    result = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=directory.parent,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return [*result.stdout.splitlines(), *result.stderr.splitlines()]


def assert_plain(wheel: Path, directory: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    assert used(wheel, directory)[0] == "False"
    assert not [path for path in directory.rglob("*") if path.suffix in {".so", ".pyd"}]


def test_wheel_is_plain_where_the_compiler_fails(tmp_path: Path) -> None:
    built = build(tmp_path / "dist", "--wheel", CC=shutil.which("false") or "")
    assert built.returncode == 0, built.stderr
    assert "typed_amp is not compiled, and so slower" in built.stdout + built.stderr
    assert_plain(wheel_in(tmp_path / "dist"), tmp_path / "site")


@pytest.mark.parametrize(
    "environment",
    [{"CC": "/no/such/compiler"}, {"TYPED_AMP_PURE": "1"}],
    ids=["no compiler", "told so"],
)
def test_wheel_is_plain_without_a_compiler_or_if_told_so(
    environment: dict[str, str], tmp_path: Path
) -> None:
    built = build(tmp_path / "dist", "--wheel", **environment)
    assert built.returncode == 0, built.stderr
    assert_plain(wheel_in(tmp_path / "dist"), tmp_path / "site")


def test_no_wheel_is_built_if_a_compiled_one_is_demanded_in_vain(tmp_path: Path) -> None:
    built = build(tmp_path / "dist", "--wheel", CC="/no/such/compiler", TYPED_AMP_COMPILED="1")
    assert built.returncode != 0
    assert "typed_amp can't be compiled" in built.stdout + built.stderr
    assert not list(tmp_path.glob("dist/*.whl"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_wheel_is_compiled_from_the_source_distribution(tmp_path: Path) -> None:
    built = build(tmp_path / "dist", TYPED_AMP_COMPILED="1")  # both, one from the other
    assert built.returncode == 0, built.stderr
    assert list(tmp_path.glob("dist/typed_amp-*.tar.gz"))
    wheel = wheel_in(tmp_path / "dist")
    assert not wheel.name.endswith("-any.whl")
    output = used(wheel, tmp_path / "site")
    assert output[0] == "True"
    frame = r' *File "typed_amp/box.py", line \d+, in encode_box'
    assert any(re.fullmatch(frame, line) for line in output)
    compiled = {path.name.partition(".")[0] for path in tmp_path.glob("site/typed_amp/*.*")}
    assert compiled >= {*COMPILED_MODULES}
