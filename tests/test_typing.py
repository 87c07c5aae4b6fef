"""What type checkers make of programs that use typed_amp.

The programs are `tests/typing/accepted.py` and `tests/typing/rejected.py`. Both checkers are told
to report an ignore that nothing needs, so they fail on a use that should be an error and is none.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import typed_amp

PROJECT = Path(__file__).parents[1]
ACCEPTED = Path("tests/typing/accepted.py")
REJECTED = Path("tests/typing/rejected.py")

IGNORES = re.compile(r"  # type: ignore\[[a-z, -]+\]  # pyright: ignore\[[A-Za-z, ]+\]$")

checkers = pytest.mark.parametrize("checker", ["mypy", "basedpyright"])


def run(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    # The checkers look for a package beside the Python that is first in PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=directory,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def check(checker: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return run(checker, str(ACCEPTED), str(REJECTED), directory=directory)


def lines_of(file: Path) -> list[str]:
    return (PROJECT / file).read_text().splitlines()


@checkers
def test_uses_are_accepted_and_rejected_as_they_say(checker: str) -> None:
    result = check(checker, PROJECT)
    assert result.returncode == 0, result.stdout + result.stderr


@checkers
def test_a_use_that_is_not_as_it_says_fails(checker: str, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "mypy.ini"):
        shutil.copy(PROJECT / name, tmp_path)
    shutil.copytree(PROJECT / "tests/typing", tmp_path / "tests/typing")
    (tmp_path / "typed_amp").symlink_to(PROJECT / "typed_amp")

    def change(file: Path, line: str, changed: str) -> tuple[str, int]:
        lines = (tmp_path / file).read_text().splitlines()
        index = lines.index(line)
        lines[index] = changed
        (tmp_path / file).write_text("\n".join(lines))
        return file.name, index + 1

    use = next(line for line in lines_of(ACCEPTED) if line.endswith(".call(Ping()), None)"))
    wrong_type = change(ACCEPTED, use, use.replace("None)", "int)"))
    use = next(line for line in lines_of(REJECTED) if "Repeat(text=b" in line)
    no_ignores = change(REJECTED, use, IGNORES.sub("", use))
    use = next(line for line in lines_of(REJECTED) if "OutOfStock(sku=1)" in line)
    no_error = change(REJECTED, use, use.replace("sku=1", "sku='1'"))

    result = check(checker, tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    errors = re.findall(r"(\w+\.py):(\d+):(?:\d+ -)? error:", result.stdout)
    assert {(file, int(line)) for file, line in errors} == {wrong_type, no_ignores, no_error}


def test_there_are_enough_uses() -> None:
    accepted = [
        line for line in lines_of(ACCEPTED) if re.search(r"assert_type\(|# accepted$", line)
    ]
    rejected = [line for line in lines_of(REJECTED) if IGNORES.search(line)]
    assert len(accepted) >= 40
    assert len(rejected) >= 40


def test_every_ignore_is_for_both_checkers() -> None:
    ignored = [line for line in lines_of(REJECTED) if "ignore[" in line]
    assert [line for line in ignored if not IGNORES.search(line)] == []
    assert [line for line in lines_of(ACCEPTED) if "ignore" in line] == []


@pytest.mark.parametrize("file", [ACCEPTED, REJECTED], ids=lambda file: file.stem)
def test_the_programs_can_be_imported(file: Path) -> None:
    importlib.import_module(".".join(file.with_suffix("").parts))


def test_every_public_name_has_a_known_type() -> None:
    result = run(
        "basedpyright",
        "--verifytypes",
        "typed_amp",
        "--ignoreexternal",
        "--outputjson",
        directory=PROJECT,
    )
    report = json.loads(result.stdout)["typeCompleteness"]
    unknown = [
        (symbol["name"], [diagnostic["message"] for diagnostic in symbol["diagnostics"]])
        for symbol in report["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
    ]
    assert unknown == []
    assert report["completenessScore"] == 1
    assert result.returncode == 0, result.stderr
    assert Path(report["packageRootDirectory"]) == Path(typed_amp.__file__).parent
