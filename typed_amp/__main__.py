"""`python -m typed_amp`, and the script `typed-amp`.

Rule of this module: it starts the command line, or says what is missing to do so.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, and end the process."""
    try:
        import typer as _  # noqa: F401 - is it there?
    except ModuleNotFoundError:
        sys.exit(_without_extra())
    from typed_amp.cli import run

    run()


def _without_extra() -> int:
    message = "typed-amp: the command line is an extra: pip install 'typed_amp[cli]'"
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
