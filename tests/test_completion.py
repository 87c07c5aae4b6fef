from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.supervised_programs import SHOP
from tests.test_cli import PROGRAM


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "shops" / "inner").mkdir(parents=True)
    (tmp_path / "shops" / "__init__.py").write_text("raise RuntimeError")
    (tmp_path / "shops" / "inner" / "__init__.py").touch()
    (tmp_path / "shops" / "far.py").touch()
    return tmp_path


def completed(directory: Path, *words: str) -> list[str]:
    """Ask for completion as bash does; gives the suggestions."""
    result = subprocess.run(
        [PROGRAM],
        cwd=directory,
        env={
            **os.environ,
            "_TYPED_AMP_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["typed-amp", *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in result.stderr
    return result.stdout.split()


def test_verbs_are_completed(shop: Path) -> None:
    assert completed(shop, "se") == ["serve"]


def test_routers_and_commands_are_completed(shop: Path) -> None:
    assert completed(shop, "serve", "sho") == ["shop:", "shops:", "shops."]
    assert completed(shop, "serve", "shops.") == ["shops.far:", "shops.inner:", "shops.inner."]
    assert completed(shop, "serve", "shop:") == ["shop:router"]
    assert completed(shop, "call", "localhost:80", "shop:L") == ["shop:Look", "shop:Log"]


def test_fields_are_completed(shop: Path) -> None:
    assert completed(shop, "call", "localhost:80", "shop:Look", "s") == ["seconds="]
    assert completed(shop, "call", "localhost:80", "shop:Look", "seconds=1") == []


def test_what_can_not_be_imported_has_no_suggestions(shop: Path) -> None:
    assert completed(shop, "serve", "shops:") == []
    assert completed(shop, "call", "localhost:80", "shops:Look", "s") == []
    assert completed(shop, "serve", "nowhere.") == []
