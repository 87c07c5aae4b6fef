"""The documentation, taken apart: blocks of code and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)

_FENCE = re.compile(r"^ *(`{3,}|~{3,})\s*(.*)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass
class Block:
    """A fenced block.

    Attributes:
        language: what stands behind the opening fence.
        line: the number of its first line of code.
        text: the code.
    """

    language: str
    line: int
    text: str

    @property
    def file_name(self) -> str | None:
        """Which file the block is, if its first line says so."""
        named = re.fullmatch(r"# (\w+\.py)", self.text.partition("\n")[0])
        return named[1] if named else None

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of a console block, each with the lines that it prints."""
        commands: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line)
        return commands


def read(document: Path) -> str:
    return (ROOT / document).read_text()


def blocks(document: Path) -> list[Block]:
    """Give all blocks of a document in their order."""
    found: list[Block] = []
    fence = ""
    lines: list[str] = []
    language = ""
    start = 0
    for number, line in enumerate(read(document).splitlines(), start=1):
        match = _FENCE.match(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2]:
                found.append(Block(language, start, "\n".join(lines) + "\n"))
                fence = ""
            else:
                lines.append(line)
        elif match:
            fence, language, start, lines = match[1], match[2].strip(), number + 1, []
    assert not fence, f"{document}: the block at line {start} has no end"
    return found


def links(document: Path) -> list[str]:
    """Give the targets of all links, but of those in code."""
    text = "".join(re.split(r"(?ms)^ *```.*?^ *```", read(document)))
    return _LINK.findall(re.sub(r"`[^`]*`", "", text))


def anchors(document: Path) -> set[str]:
    """Give the names by which a document's headings can be linked to."""
    code_lines = {
        block.line + offset
        for block in blocks(document)
        for offset in range(block.text.count("\n"))
    }
    return {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for number, line in enumerate(read(document).splitlines(), start=1)
        if line.startswith("#") and number not in code_lines
    }
