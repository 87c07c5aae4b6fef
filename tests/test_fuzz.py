"""All inputs that fuzzing has kept, and what runs the fuzzer."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from fuzz import __main__ as command
from fuzz.targets import CORPUS, TARGETS


@pytest.mark.parametrize(("name", "check"), TARGETS.items(), ids=TARGETS)
def test_inputs_that_were_kept(name: str, check: Callable[[bytes], None]) -> None:
    paths = sorted((CORPUS / name).iterdir())
    assert len(paths) > 20
    for path in paths:
        try:
            check(path.read_bytes())
        except BaseException as error:
            error.add_note(f"with fuzz/corpus/{name}/{path.name}")
            raise


@pytest.mark.parametrize(("name", "check"), TARGETS.items(), ids=TARGETS)
def test_bytes_that_are_no_input_of_anybody(name: str, check: Callable[[bytes], None]) -> None:
    for data in (b"", b"\0", b"\xff", bytes(100), os.urandom(100)):
        check(data)


def test_corpus_is_small() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000


def test_targets_are_those_that_the_command_knows() -> None:
    assert tuple(TARGETS) == command.NAMES
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
