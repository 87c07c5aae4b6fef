"""The page on Twisted's own tests names each of them, and tests of ours that are there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import twisted

from tests.documents import ROOT, read
from tests.twisted_tests import twisted_tests

PAGE = Path("docs/conformance.md")
TESTS = ROOT / "tests"
VERDICTS = ["same", "different", "not applicable"]
REFERENCE = re.compile(r"`((?:interop/)?test_\w+\.py)::([\w:]+)`")


class Row(NamedTuple):
    """What the page says of one test of Twisted's."""

    case: str
    test: str
    about: str
    verdict: str
    ours: str


def rows() -> list[Row]:
    found: list[Row] = []
    case = ""
    for line in read(PAGE).splitlines():
        if line.startswith("## "):
            case = line[3:]
        elif line.startswith("| `"):
            test, about, verdict, ours = (cell.strip() for cell in line.strip("|").split(" | "))
            found.append(Row(case, test.strip("` "), about, verdict, ours))
    return found


@cache
def names_in(file: str) -> frozenset[str]:
    """Give the names of the tests in a file of ours, those of classes with the class before."""
    found: set[str] = set()
    for node in ast.parse((TESTS / file).read_text()).body:
        within = node.body if isinstance(node, ast.ClassDef) else [node]
        before = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {
            before + function.name
            for function in within
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            and function.name.startswith("test_")
        }
    return frozenset(found)


def test_each_test_of_twisteds_has_its_row() -> None:
    named = re.search(r"Twisted (\d[\d.]*\d)", read(PAGE))
    assert named is not None
    if twisted.__version__ != named[1]:
        pytest.skip(f"the page is about Twisted {named[1]}; {twisted.__version__} is installed")
    assert sorted((row.case, row.test) for row in rows()) == twisted_tests()


def test_rows_are_counted() -> None:
    counts = Counter(row.verdict for row in rows())
    assert set(counts) <= set(VERDICTS)
    same, different, not_applicable = (counts[verdict] for verdict in VERDICTS)
    text = " ".join(read(PAGE).split())
    assert f"all {len(rows())}, and says" in text
    assert (
        f"{same} are the same, {different} are deliberately different,"
        f" {not_applicable} do not apply." in text
    )


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.case}.{row.test}")
def test_row_names_tests_that_are_there(row: Row) -> None:
    assert row.about
    named: list[tuple[str, str]] = REFERENCE.findall(row.ours)
    assert len(named) == row.ours.count("::") - sum(test.count("::") for _, test in named)
    for file, test in named:
        assert test in names_in(file), f"{file}::{test}"
    if row.verdict == "same":
        assert named, "what shows it?"
    else:
        assert REFERENCE.sub("", row.ours).strip(" ,."), "and why?"
