from __future__ import annotations

from pathlib import Path

import pytest

from typed_amp.watching import places_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_of_a_package_all_is_watched(here: Path) -> None:
    (here / "a_package" / "inner").mkdir(parents=True)
    (here / "a_package" / "__init__.py").write_text("raise SystemExit")  # nothing is imported
    assert places_of("a_package.inner.module:router") == ([here / "a_package"], True)
    (here / "no_init" / "inner").mkdir(parents=True)
    assert places_of("no_init.inner:router") == ([here / "no_init"], True)


def test_of_a_module_its_neighbours_are_watched(here: Path) -> None:
    (here / "a_module.py").touch()
    assert places_of("a_module:router") == ([here], False)


@pytest.mark.parametrize("target", ["not_there_yet:router", "sys:router", ".:router"])
def test_what_is_not_there_is_waited_for_here(here: Path, target: str) -> None:
    assert places_of(target) == ([here], False)
