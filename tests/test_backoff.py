from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from typed_amp import Backoff
from typed_amp.backoff import Attempts

chances = st.floats(0, 1)
counts = st.integers(1, 10_000)


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    first = draw(st.floats(1e-6, 1e3))
    return Backoff(
        first=first,
        factor=draw(st.floats(1, 1e6)),
        maximum=first * draw(st.floats(1, 1e6)),
        jitter=draw(chances),
    )


def test_it_grows_to_its_maximum() -> None:
    backoff = Backoff(first=1, factor=3, maximum=20, jitter=0)
    assert [backoff.delay(failures, 0.5) for failures in range(1, 6)] == [1, 3, 9, 20, 20]


def test_all_of_it_is_left_to_chance_unless_told_otherwise() -> None:
    backoff = Backoff(first=8, factor=2, maximum=100)
    assert [backoff.delay(1, chance) for chance in (0, 0.25, 1)] == [8, 6, 0]
    half = Backoff(first=8, factor=2, maximum=100, jitter=0.5)
    assert [half.delay(1, chance) for chance in (0, 0.5, 1)] == [8, 6, 4]


@given(backoffs(), counts, chances)
def test_no_wait_is_longer_than_the_rule_says(
    backoff: Backoff, failures: int, chance: float
) -> None:
    most = backoff.delay(failures, 0)
    assert backoff.first <= most <= backoff.maximum
    assert backoff.delay(failures + 1, 0) >= most
    least = most * (1 - backoff.jitter)
    assert least * (1 - 1e-9) <= backoff.delay(failures, chance) <= most


@pytest.mark.parametrize(
    "numbers",
    [
        {"first": 0},
        {"first": -1},
        {"first": math.nan},
        {"factor": 0.5},
        {"factor": math.inf},
        {"first": 2, "maximum": 1},
        {"maximum": math.inf},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"reset_after": -1},
    ],
    ids=str,
)
def test_numbers_that_make_no_sense(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^Backoff\.{list(numbers)[-1]} must"):
        Backoff(**numbers)


def test_it_can_not_be_changed() -> None:
    backoff: Any = Backoff()
    with pytest.raises(AttributeError):
        backoff.first = 3
    assert backoff == Backoff()


def test_each_address_has_its_turn_before_the_wait() -> None:
    attempts = Attempts("abc", Backoff(first=1, factor=2, maximum=100, jitter=0))
    tried = [(attempts.address, attempts.failed(0)) for _ in range(9)]
    assert tried == [
        *[("a", 0), ("b", 0), ("c", 1)],
        *[("a", 0), ("b", 0), ("c", 2)],
        *[("a", 0), ("b", 0), ("c", 4)],
    ]
    assert attempts.failures == 9


def test_a_connection_that_lived_long_begins_the_count_anew() -> None:
    backoff = Backoff(first=1, factor=2, maximum=100, jitter=0, reset_after=10)
    attempts = Attempts(["a"], backoff)
    assert [attempts.failed(0) for _ in range(3)] == [1, 2, 4]
    attempts.lived(9.9)
    assert attempts.failed(0) == 8
    attempts.lived(10)
    assert attempts.failures == 0
    assert attempts.failed(0) == 1


@given(st.integers(1, 5), st.lists(st.one_of(st.none(), st.floats(0, 20)), max_size=50))
def test_a_server_that_drops_its_clients_is_not_stormed(
    addresses: int, lives: list[float | None]
) -> None:
    # None: it can't be reached; else the seconds that a connection to it lived.
    attempts = Attempts(range(addresses), Backoff(jitter=0))
    in_a_row = 0
    for life in lives:
        if life is not None:
            attempts.lived(life)
            if life >= 10:
                in_a_row = 0
        in_a_row += 1
        delay = attempts.failed(0)
        assert attempts.failures == in_a_row
        assert (delay == 0) == (in_a_row % addresses != 0)
