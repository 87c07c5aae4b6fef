from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from typed_amp.named import NameTrouble, named_command, named_router

SOURCE = """
from typing import Generic, TypeVar
from pydantic import BaseModel
from typed_amp import Command, Router
T = TypeVar("T")
class Ping(Command):
    pass
class Base(Command[T], Generic[T]):
    pass
class Later(Command["Unwritten"]):
    pass
router = Router()
public = Router()
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "named_here.py").write_text(SOURCE)
    (tmp_path / "broken_here.py").write_text("x = 1\nraise ValueError('first\\nsecond')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("named_here", None)


def test_names_lead_to_what_they_name() -> None:
    router = named_router("named_here:public")
    assert router is sys.modules["named_here"].public
    assert named_command("named_here:Ping") is sys.modules["named_here"].Ping


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("named_here", "'named_here' names a module or nothing; say package.module:router"),
        (":router", "':router' names a module or nothing"),
        ("named_here:roter", "named_here has no router roter; it has router, public"),
        ("named_here:Ping", "named_here has no router Ping"),
        ("not_here:router", "can't import 'not_here': ModuleNotFoundError: No module named"),
        ("broken_here:router", r"ValueError: first second \(.*broken_here\.py, line 2\)$"),
    ],
)
def test_a_router_that_is_not_there_is_told_in_a_line(name: str, told: str) -> None:
    with pytest.raises(NameTrouble, match=told) as caught:
        named_router(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("named_here:Pong", "named_here has no typed_amp command Pong; it has Ping"),
        ("named_here:router", "named_here has no typed_amp command router"),
        ("named_here:Base", "can't be used yet"),
        ("named_here:Later", "can't be used yet"),
    ],
)
def test_a_command_that_is_not_there_is_told(name: str, told: str) -> None:
    with pytest.raises(NameTrouble, match=told):
        named_command(name)
