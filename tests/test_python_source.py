from __future__ import annotations

import ast
import keyword
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from typed_amp.python_source import (
    WIDTH,
    Imports,
    Names,
    bytes_literal,
    class_lines,
    comment_lines,
    docstring_lines,
    field_lines,
    identifier,
    text_literal,
)


def formatted(source: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--line-length", str(WIDTH)]
    return subprocess.run(
        [*command, "--isolated", "--stdin-filename", "made.py", "-"],
        input=source,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@given(st.text())
def test_any_text_makes_an_identifier(text: str) -> None:
    name = identifier(text)
    assert name.isidentifier()
    assert not keyword.iskeyword(name)
    assert not name.startswith("_")


@pytest.mark.parametrize(
    ("text", "name"),
    [("a", "a"), ("a-b", "a_b"), ("from", "from_"), ("_a", "a"), ("a_", "a_"), ("2", "field_2")],
)
def test_identifier_stays_near_its_text(text: str, name: str) -> None:
    assert identifier(text) == name


@given(st.text())
def test_text_literal_is_that_text(text: str) -> None:
    assert ast.literal_eval(text_literal(text)) == text


@given(st.binary())
def test_bytes_literal_is_those_bytes(data: bytes) -> None:
    assert ast.literal_eval(bytes_literal(data)) == data


@pytest.mark.parametrize("text", ["", "a", "'", '"', "\"'", "''\"", "\\", "\n\0é", "\\'", '\\"'])
def test_literals_have_the_quotes_that_formatters_use(text: str) -> None:
    source = f"text = {text_literal(text)}\ndata = {bytes_literal(text.encode())}\n"
    assert formatted(source) == source


def test_names_are_given_once() -> None:
    names = Names(["taken"])
    assert [names.claim("free"), names.claim("free", "other")] == ["free", "other"]
    assert [names.claim("taken"), names.claim("taken")] == ["taken2", "taken3"]


def test_imports_are_sorted_in_sections(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "till.py").touch()
    imports = Imports([tmp_path])
    for name in ("b10", "b2", "B", "AB", "a", "Ba"):
        imports.add("zlib", name)
    imports.add("shop.errors", "TimeoutError", "ShopTimeoutError")
    imports.add("till", "Till")
    imports.add("decimal", "Decimal")
    imports.add("pydantic", "BaseModel")
    imports.add("old", "Old")
    imports.remark("old", "type: ignore[import-untyped]")
    assert imports.lines() == [
        "from decimal import Decimal",
        "from zlib import AB, B, Ba, a, b2, b10",
        "",
        "from old import Old  # type: ignore[import-untyped]",
        "from pydantic import BaseModel",
        "",
        "from shop.errors import TimeoutError as ShopTimeoutError",
        "from till import Till",
    ]


def test_long_imports_have_a_line_for_each_name() -> None:
    imports = Imports()
    for letter in "abc":
        imports.add("zlib", letter * 40)
    imports.remark("zlib", "so")
    assert imports.lines() == [
        "from zlib import (  # so",
        *(f"    {letter * 40}," for letter in "abc"),
        ")",
    ]


@pytest.mark.parametrize("width", range(60, 110, 3))
def test_classes_of_any_width_are_laid_out_as_formatters_do(width: int) -> None:
    bases = ["Command[Answer]"]
    name = f'"{"n" * (width - 40)}"'
    errors = [f'KeyError: "{"k" * (width // 2)}"', 'ValueError: "VALUE"']
    for keywords in ([("name", name)], [("name", name), ("errors", errors)], [("errors", errors)]):
        source = "\n".join([*class_lines("Name", bases, keywords), "    pass", ""])
        assert formatted(source) == source


@pytest.mark.parametrize("width", range(20, 120, 3))
@pytest.mark.parametrize("default", ["", "None"])
def test_fields_with_keys_of_any_width_are_laid_out_so_too(width: int, default: str) -> None:
    key = f'Key("{"k" * width}")'
    for marks in ([], [key], ["Descriptor()", key]):
        lines = ["class Name:", *field_lines("n" * 20, "int | None", marks, default), ""]
        source = "\n".join(lines)
        assert formatted(source) == source


@example('"""')
@example('\\"')
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\\"' \n")))
def test_any_text_makes_a_docstring(text: str) -> None:
    source = "\n".join(["class Name:", *docstring_lines(text), "    pass"])
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    documentation = ast.get_docstring(node) or ""
    assert "".join(documentation.split()) == "".join(text.split())


def test_docstring_keeps_paragraphs_and_lists() -> None:
    text = f"First.\n\n{'word ' * 40}\n\n- a\n- b"
    assert docstring_lines(text) == [
        '    """First.',
        "",
        f"    {('word ' * 18).strip()}",
        f"    {('word ' * 18).strip()}",
        "    word word word word",
        "",
        "    - a",
        "    - b",
        '    """',
    ]


@pytest.mark.parametrize("text", ['"Quoted" first.', 'Last "quoted"', "\\", '"', "a\n\n b"])
def test_docstrings_are_written_as_formatters_do(text: str) -> None:
    source = "\n".join(["class Name:", *docstring_lines(text), ""])
    assert formatted(source) == source


def test_docstring_of_nothing_is_none() -> None:
    assert docstring_lines(" \n ") == []


def test_comments_are_wrapped() -> None:
    assert comment_lines("word " * 20, "  ") == [f"  # {('word ' * 19).strip()}", "  # word"]
