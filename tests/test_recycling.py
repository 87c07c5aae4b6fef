from __future__ import annotations

import os
import sys

import pytest

from typed_amp.recycling import Recycling, resident_memory

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="Linux says what memory there is")


def test_nothing_said_is_never() -> None:
    assert Recycling(None, None).reason(10**9, os.getpid()) is None


def test_calls() -> None:
    recycling = Recycling(5, None)
    assert recycling.reason(4, os.getpid()) is None
    assert recycling.reason(5, os.getpid()) == ("it was given 5 calls, as many as max_calls says")


@linux_only
def test_memory() -> None:
    reason = Recycling(None, 1_000).reason(1, os.getpid())
    assert reason is not None
    assert "more than the 1,000 that max_memory_bytes says" in reason
    assert Recycling(None, 10**15).reason(1, os.getpid()) is None


@linux_only
def test_a_process_that_has_ended_has_no_memory() -> None:
    assert resident_memory(os.getpid()) > 1_000_000
    assert resident_memory(2**31 - 1) == 0
