"""Twisted's own tests of its AMP, `twisted/test/test_amp.py`, as they are installed."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import unittest
import warnings
from collections.abc import Iterator
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it makes itself a key in a way that is deprecated by now
    from twisted.test import test_amp

__all__ = ["LISTS", "twisted_tests"]

LISTS: list[Any] = test_amp.ListOfTestsMixin.__subclasses__()
"""Its test cases of `ListOf`, with values in `objects` and their bytes in `strings`."""


def twisted_tests() -> list[tuple[str, str]]:
    """Give the class and the name of each of its tests, as a test runner finds them."""

    def flat(suite: unittest.TestSuite) -> Iterator[Any]:
        for test in suite:
            if isinstance(test, unittest.TestSuite):
                yield from flat(test)
            else:
                yield test

    found = [
        (type(test).__name__, test._testMethodName)
        for test in flat(unittest.defaultTestLoader.loadTestsFromModule(test_amp))
        if type(test).__module__ == test_amp.__name__  # and not what it imports
    ]
    assert len(found) == len(set(found))
    return sorted(found)
