from __future__ import annotations

import subprocess
import sys

from tests.documents import ROOT


def run(*arguments: str) -> tuple[int, str, str]:
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout, result.stderr


def test_module_is_the_program() -> None:
    code, output, errors = run("-m", "typed_amp", "--help")
    assert (code, errors) == (0, "")
    assert output.startswith("Usage: typed-amp ")


def test_without_the_extra_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['typer'] = None; import typed_amp.__main__ as m; m.main()"
    code, output, errors = run("-c", program, "decode")
    assert (code, output) == (2, "")
    assert errors == "typed-amp: the command line is an extra: pip install 'typed_amp[cli]'\n"
