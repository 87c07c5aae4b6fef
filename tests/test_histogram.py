from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from typed_amp.histogram import Histogram

times = st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=200)


def histogram_of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(times, st.floats(0.01, 100))
def test_percentiles_are_never_too_short_and_hardly_too_long(
    values: list[float], percent: float
) -> None:
    exact = sorted(values)[math.ceil(percent / 100 * len(values)) - 1]
    found = histogram_of(values).percentile(percent)
    assert exact * (1 - 1e-9) <= found <= exact * 1.015


@given(times)
def test_the_longest_the_sum_and_the_count_are_exact(values: list[float]) -> None:
    histogram = histogram_of(values)
    assert histogram.maximum == histogram.percentile(100) == max(values)
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))


@given(times, st.integers(1, 20))
def test_bars_hold_all_and_join(values: list[float], most: int) -> None:
    bars = histogram_of(values).bars(most)
    assert 1 <= len(bars) <= most
    assert sum(count for _, _, count in bars) == len(values)
    for (_, end, _), (begin, _, _) in pairwise(bars):
        assert end == begin
    assert bars[0][0] <= min(values) * (1 + 1e-9)
    assert max(values) * (1 - 1e-9) <= bars[-1][1]
    assert bars[0][2] > 0
    assert bars[-1][2] > 0


def test_of_nothing_there_is_nothing() -> None:
    assert Histogram().bars(5) == []
    with pytest.raises(ValueError, match="no percentile 50 of 0 times"):
        Histogram().percentile(50)
    with pytest.raises(ValueError, match="no percentile 101 of 1 times"):
        histogram_of([1]).percentile(101)


def test_no_time_at_all_counts_as_a_nanosecond() -> None:
    histogram = histogram_of([0.0, 0.0])
    assert histogram.percentile(50) == 0.0
    assert histogram.bars(3)[0][2] == 2
