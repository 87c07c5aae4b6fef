from __future__ import annotations

import os
from pathlib import Path

import typed_amp
from typed_amp import box


def test_compiled_says_what_was_imported() -> None:
    assert typed_amp.COMPILED is (Path(box.__file__).suffix != ".py")


def test_what_is_tested_is_what_was_asked_for() -> None:
    if os.environ.get("TYPED_AMP_COMPILED") == "1":
        assert typed_amp.COMPILED
