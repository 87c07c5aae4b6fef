"""What the command line prints, and how it ends where it can't go on.

Rule of this module: whoever reads the output, or has stopped to, the program ends without a
traceback.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fail", "flush", "forget_output", "prepare_output", "show", "usable_output"]


def prepare_output() -> None:
    """Make standard output ready for whatever is shown."""
    if sys.stdout is None:
        fail("can't write to standard output: it is closed")
    # When nobody reads on, as with `| head`, the process ends without a word, as others do.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # Integers of any length are shown, also those that Python won't print.
    sys.set_int_max_str_digits(0)


def show(text: str) -> None:
    """Print a line, or several."""
    encoding = sys.stdout.encoding or "utf-8"
    with usable_output():
        print(text.encode(encoding, "backslashreplace").decode(encoding))


def flush() -> None:
    """Have all that was printed seen."""
    with usable_output():
        sys.stdout.flush()


@contextlib.contextmanager
def usable_output() -> Iterator[None]:
    """End with a message where nothing more can be printed, as on a disk that is full."""
    try:
        yield
    except OSError as error:
        _forget(sys.stdout)
        fail(f"can't write to standard output: {error.strerror}")


def forget_output() -> None:
    """End as if all were seen that was printed, also where the terminal is gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _forget(stream)


def _forget(stream: TextIO) -> None:
    # Python itself writes what is left when it ends, and would fail once more: with an exit code
    # that tells of nothing else.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(message: str, code: int = 2) -> NoReturn:
    """End, and say why.

    Args:
        message: what is wrong.
        code: the exit code: 2 if the command can't be carried out as it was given.
    """
    typer.echo(f"typed-amp: {message}", err=True)
    raise typer.Exit(code)
