"""What the demo prints, and how it looks in a terminal of 80 columns and more."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, TextIO

from typed_amp import BoxReader, ProtocolViolationError, encode_box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from typed_amp import Box

BOLD, DIM, RED, GREEN, YELLOW, CYAN, MAGENTA = "1", "2", "31", "32", "33", "36", "35"
LONGEST_VALUE = 1_000
INDENT = "    "
PEER_COLUMNS = 20


class Page:
    """Writes to standard output: in colour if that is a terminal and NO_COLOR is unset."""

    def __init__(self) -> None:
        self.out: TextIO = sys.stdout
        self.width = min(shutil.get_terminal_size().columns, 110)
        self.is_coloured = self.out.isatty() and "NO_COLOR" not in os.environ
        self.boxes = 0
        self.bytes = 0

    def line(self, text: str = "") -> None:
        try:
            print(text, file=self.out, flush=True)
        except BrokenPipeError:  # the reader has seen enough; the demo still ends properly
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())

    def paint(self, text: str, *styles: str) -> str:
        return f"\033[{';'.join(styles)}m{text}\033[0m" if self.is_coloured else text

    def title(self, text: str) -> None:
        self.line(self.paint(text, BOLD))
        self.line(self.paint("=" * min(len(text), self.width), DIM))

    def heading(self, number: int, text: str) -> None:
        self.line()
        self.line()
        rule = "-" * (min(self.width, 80) - len(f"{number:2}  {text} "))
        self.line(f"{self.paint(f'{number:2}  {text}', BOLD)} {self.paint(rule, DIM)}")

    def prose(self, text: str, indent: str = INDENT) -> None:
        for paragraph in inspect.cleandoc(text).split("\n\n"):
            self.line()
            width = min(self.width, 88)
            self.line(
                textwrap.fill(paragraph, width, initial_indent=indent, subsequent_indent=indent)
            )

    def code(self, file: str, *sources: str) -> None:
        """Show source as it stands in the file that runs."""
        self.line()
        self.line(INDENT + self.paint(f"# {file}", DIM))
        for number, source in enumerate(sources):
            if number:
                self.line()
            for line in source.splitlines():
                self.line((INDENT + self.paint(line, YELLOW)) if line else "")

    def box(self, sender: str, receiver: str, box: Box) -> None:
        """Show a box that passes."""
        self.boxes += 1
        self.bytes += len(encode_box(box))
        style = MAGENTA if sender == "server" else CYAN
        pairs = []
        for key, value in box.items():
            shown = f"{key.decode()}={show_value(value)}"
            is_failure = key.startswith(b"_error")
            pairs.append((shown, RED if is_failure else style if key.startswith(b"_") else ""))
        self._pairs(f"{sender} -> {receiver}", style, pairs)

    def byte_by_byte(self, box: Box) -> None:
        """Show how a box is written."""
        words = []
        for text in [part for pair in box.items() for part in pair]:
            words.append((f"{len(text):04x}"[:2] + " " + f"{len(text):04x}"[2:], DIM))
            words.append((text.decode(), ""))
        words.append(("00 00", DIM))
        self._pairs("byte by byte", DIM, words, gap=" ")

    def _pairs(
        self, label: str, style: str, pairs: Iterable[tuple[str, str]], gap: str = "  "
    ) -> None:
        """Lay out words behind a label, on as many lines as they need."""
        start = INDENT + label.ljust(PEER_COLUMNS)
        room = self.width - len(start)
        used = 0
        line = INDENT + self.paint(label.ljust(PEER_COLUMNS), style)
        for text, word_style in pairs:
            # A single word that is wider than a line is cut up.
            for part in textwrap.wrap(text, room, break_on_hyphens=False):
                if used and used + len(gap) + len(part) > room:
                    self.line(line)
                    line = " " * len(start)
                    used = 0
                elif used:
                    line += gap
                    used += len(gap)
                line += self.paint(part, word_style) if word_style else part
                used += len(part)
        self.line(line)

    def printed(self, text: str) -> None:
        """Show what the code printed."""
        wrapped = textwrap.wrap(text, self.width - len(INDENT) - 2) or [""]
        for line in wrapped:
            self.line(INDENT + self.paint("| ", DIM) + self.paint(line, GREEN))

    def server_log(self, text: str) -> None:
        self._pairs("the server's log", RED, [(word, RED) for word in text.split()], gap=" ")

    def captured(self) -> contextlib.AbstractContextManager[object]:
        """Let what is printed meanwhile appear by `printed`."""
        return contextlib.redirect_stdout(_Lines(self.printed))


class _Lines(io.TextIOBase):
    """A file that passes on each line that is written."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take = take
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(line)
        return len(text)


def show_value(value: bytes) -> str:
    """Show a value: text as it is, boxes and lists within it as such, anything else escaped."""
    if len(value) > LONGEST_VALUE:
        return f"{show_value(value[:20])}... ({len(value):,} bytes)"
    if value.isascii() and value.decode().isprintable():
        text = value.decode()
        return text if text and " " not in text else repr(text)
    rows = _rows(value)
    if rows is not None:
        shown = (
            " ".join(f"{key.decode()}={show_value(item)}" for key, item in row.items())
            for row in rows
        )
        return "".join(f"[{row}]" for row in shown)
    elements = _elements(value)
    if elements is not None:
        return f"[{', '.join(map(show_value, elements))}]"
    try:
        return repr(value.decode())
    except UnicodeDecodeError:
        return repr(value)


def _rows(value: bytes) -> list[Box] | None:
    reader = BoxReader()
    try:
        rows = reader.feed(value)
    except ProtocolViolationError:
        return None
    return rows if rows and not reader.pending_bytes else None


def _elements(value: bytes) -> list[bytes] | None:
    elements = []
    while value:
        length = int.from_bytes(value[:2], "big")
        if len(value) < 2 + length:
            return None
        elements.append(value[2 : 2 + length])
        value = value[2 + length :]
    return elements


def source_of(thing: Any) -> str:
    """Give the source of a class or a function."""
    return inspect.getsource(thing).rstrip()


def body_of(function: Any) -> str:
    """Give the source of a function without its first line and its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    _, _, body = source.partition('"""')
    _, _, body = body.partition('"""')
    return textwrap.dedent(body).strip("\n")
