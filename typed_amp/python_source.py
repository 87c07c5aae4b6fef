"""Python source, as the formatters write it: names, literals, imports, classes, comments.

Rule of this module: it knows how Python is spelled and laid out, and nothing of AMP. What it
writes, `ruff format` at 100 characters leaves as it is.
"""

from __future__ import annotations

import inspect
import keyword
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = [
    "WIDTH",
    "Imports",
    "Names",
    "bytes_literal",
    "class_lines",
    "comment_lines",
    "docstring_lines",
    "field_lines",
    "identifier",
    "text_literal",
]

WIDTH: Final = 100
INDENT: Final = "    "


class Names:
    """Names that are taken, so that each thing gets one of its own.

    Args:
        taken: those that are taken from the start.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def claim(self, *wanted: str) -> str:
        """Take the first of these names that is free; a number goes behind the last."""
        candidates = [*wanted, *(f"{wanted[-1]}{number}" for number in range(2, 10_000))]
        name = next(name for name in candidates if name not in self._taken)
        self._taken.add(name)
        return name


def identifier(text: str) -> str:
    """Make a name of a text, which may hold anything; keywords get an underscore."""
    name = re.sub(r"\W", "_", text).strip("_")
    name += "_" * text.endswith("_")
    if not name.strip("_"):
        name = "field"
    if not name.isidentifier():
        name = f"field_{name}"
    if not name.isidentifier():  # what counts as a word may still be no letter
        name = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"{name}_" if keyword.iskeyword(name) or keyword.issoftkeyword(name) else name


def text_literal(text: str) -> str:
    """Write a text in the quotes that need fewer escapes, double ones if both do."""
    return _quoted(repr(f"{text}'\"")[1:-4].replace("\\'", "'"), text)


def bytes_literal(data: bytes) -> str:
    """Write bytes, likewise."""
    body = repr(data + b"'\"")[2:-4].replace("\\'", "'")
    return "b" + _quoted(body, data.decode("latin-1"))


def _quoted(body: str, text: str) -> str:
    quote = "'" if text.count('"') > text.count("'") else '"'
    return f"{quote}{body.replace(quote, chr(92) + quote)}{quote}"


class Imports:
    """The imports of a module.

    Args:
        roots: the directories whose modules are the program's own, and have a section of theirs.
    """

    def __init__(self, roots: Sequence[Path] = ()) -> None:
        self._roots = roots
        self._names: dict[str, set[tuple[str, str]]] = {}
        self._remarks: dict[str, str] = {}

    def add(self, module: str, name: str, alias: str = "") -> None:
        """Import a name, perhaps as another."""
        self._names.setdefault(module, set()).add((name, alias))

    def remark(self, module: str, text: str) -> None:
        """Put a comment beside the imports from a module."""
        self._remarks[module] = f"  # {text}"

    def lines(self) -> list[str]:
        """Write them, in sections, sorted as isort does."""
        sections: list[list[str]] = [[], [], []]
        for module in sorted(self._names, key=lambda module: (_natural(module), module)):
            top = module.partition(".")[0]
            section = 0 if top in sys.stdlib_module_names else 2 if self._is_own(top) else 1
            sections[section] += self._module_lines(module)
        lines: list[str] = []
        for section_lines in filter(None, sections):
            lines += [""] * bool(lines) + section_lines
        return lines

    def _is_own(self, top: str) -> bool:
        return any((root / top).is_dir() or (root / f"{top}.py").is_file() for root in self._roots)

    def _module_lines(self, module: str) -> list[str]:
        names = self._names[module]
        remark = self._remarks.get(module, "")
        lines: list[str] = []
        plain = sorted((name for name, alias in names if not alias), key=_member_order)
        if plain:
            line = f"from {module} import {', '.join(plain)}"
            if len(line) <= WIDTH:
                lines.append(line + remark)
            else:
                lines += [
                    f"from {module} import ({remark}",
                    *(f"{INDENT}{name}," for name in plain),
                    ")",
                ]
        for name, alias in sorted(names):
            if alias:
                lines.append(f"from {module} import {name} as {alias}{remark}")
        return lines


def _member_order(name: str) -> tuple[object, ...]:
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, _natural(name), name


def _natural(text: str) -> list[tuple[int, str]]:
    """Order numbers in a text by their size."""
    parts = re.findall(r"\d+|\D+", text)
    return [(int(part), "") if part.isdecimal() else (sys.maxsize, part) for part in parts]


def comment_lines(text: str, indent: str = "") -> list[str]:
    """Write a comment, wrapped."""
    prefix = f"{indent}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix,
        break_long_words=False,
        break_on_hyphens=False,
    )


def docstring_lines(text: str, indent: str = INDENT) -> list[str]:
    """Write a docstring: paragraphs are wrapped; lists and what is indented stay as they are."""
    paragraphs = re.split(r"\n[ \t]*\n", inspect.cleandoc(text).strip())
    lines: list[str] = []
    for paragraph in paragraphs:
        lines += [""] * bool(lines) + _paragraph_lines(paragraph, WIDTH - len(indent) - 6)
    if not any(lines):
        return []
    if len(lines) == 1:
        line = lines[0]
        # A quote at an end would be one more of those around it.
        text = _escaped(line[:-1]) + '\\"' if line.endswith('"') else _escaped(line)
        return [f'{indent}"""{" " * text.startswith(chr(34))}{text}"""']
    first, *others = [_escaped(line) for line in lines]
    return [
        f'{indent}"""{" " * first.startswith(chr(34))}{first}',
        *(f"{indent}{line}" if line else "" for line in others),
        f'{indent}"""',
    ]


def _escaped(line: str) -> str:
    line = line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line
    )


def _paragraph_lines(paragraph: str, width: int) -> list[str]:
    lines = [line.rstrip() for line in paragraph.splitlines()]
    if any(re.match(r"\s|[-*+] |\d+[.)] ", line) for line in lines):
        return lines
    return textwrap.wrap(
        " ".join(lines), width, break_long_words=False, break_on_hyphens=False
    ) or [""]


def class_lines(
    name: str, bases: Sequence[str], keywords: Sequence[tuple[str, str | Sequence[str]]]
) -> list[str]:
    """Write the head of a class.

    Args:
        name: its name.
        bases: its bases.
        keywords: its class keywords, each with its value; where that is a series it is the items
            of a dict.
    """
    arguments = [*bases, *(f"{key}={_flat(value)}" for key, value in keywords)]
    line = f"class {name}({', '.join(arguments)}):"
    if len(line) <= WIDTH:
        return [line]
    inner = f"{INDENT}{', '.join(arguments)}"
    if len(inner) <= WIDTH:
        return [f"class {name}(", inner, "):"]
    lines = [f"class {name}(", *(f"{INDENT}{base}," for base in bases)]
    for key, value in keywords:
        line = f"{INDENT}{key}={_flat(value)},"
        if len(line) <= WIDTH or isinstance(value, str):
            lines.append(line)
        else:
            items = (f"{INDENT}{INDENT}{item}," for item in value)
            lines += [f"{INDENT}{key}={{", *items, f"{INDENT}}},"]
    return [*lines, "):"]


def _flat(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else f"{{{', '.join(value)}}}"


def field_lines(name: str, annotation: str, marks: Sequence[str], default: str = "") -> list[str]:
    """Write a field of a class.

    Args:
        name: its name.
        annotation: its type.
        marks: what stands beside the type in `Annotated`.
        default: its default, if it has one.
    """
    parts = [annotation, *marks]
    line = f"{INDENT}{name}: " + (f"Annotated[{', '.join(parts)}]" if marks else annotation)
    end = f" = {default}" if default else ""
    if len(line + end) <= WIDTH:
        return [line + end]
    if default and len(f"{line} = (") <= WIDTH:
        return [f"{line} = (", f"{INDENT}{INDENT}{default}", f"{INDENT})"]
    if not marks:
        return [line + end]
    inner = f"{INDENT}{INDENT}{', '.join(parts)}"
    inner_lines = [inner] if len(inner) <= WIDTH else [*map(_part_lines, parts)]
    return [f"{INDENT}{name}: Annotated[", *inner_lines, f"{INDENT}]{end}"]


def _part_lines(part: str) -> str:
    line = f"{INDENT}{INDENT}{part},"
    called = re.fullmatch(r"(\w+\()(.+)(\))", part)
    if len(line) <= WIDTH or not called:
        return line
    head, argument, tail = called.groups()
    return f"{INDENT}{INDENT}{head}\n{INDENT}{INDENT}{INDENT}{argument}\n{INDENT}{INDENT}{tail},"
