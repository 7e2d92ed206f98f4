from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from comity.core.secagg.quantize import WEIGHT_STEPS
from comity.core.secagg.tail import (
    Tail,
    checks_hold,
    checksums,
    decoded,
    encoded,
    mean_metrics,
    tail_words,
    weighted_metric,
)
from comity.errors import DataError

MOST = 100 * WEIGHT_STEPS
METRICS = [0.0, 1.0, -1.0, 0.1, -1e-12, 123456.789, -(2.0**61), 2.0**61, 1e-300, 7]


def test_metrics_of_every_kind_come_back_as_their_weighted_mean() -> None:
    weights = (1, 50, 99)
    total = np.zeros(tail_words(len(METRICS)), np.uint64)
    for weight in weights:
        steps = weight * WEIGHT_STEPS
        metrics = tuple(weighted_metric(value, steps, MOST) for value in METRICS)
        total += encoded(Tail(steps, 0, 1, (1, 2, 3, 4), metrics), len(METRICS))
    tail = decoded(total, len(METRICS), len(weights))
    assert (tail.weight_steps, tail.clipped) == (150 * WEIGHT_STEPS, 3)
    assert tail.checks == (3, 6, 9, 12)
    for found, value in zip(mean_metrics(tail, MOST), METRICS, strict=True):
        assert found == pytest.approx(value, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("value", [math.nextafter(2.0**62, 0), -math.nextafter(2.0**62, 0)])
@pytest.mark.parametrize("sites", [1, 1024])
def test_the_largest_metrics_of_the_largest_cohort_do_not_wrap(value: float, sites: int) -> None:
    metric = weighted_metric(value, MOST, MOST)
    one = encoded(Tail(MOST, 0, 0, (0,) * 4, (metric,)), 1)
    total = one * np.uint64(sites)
    tail = decoded(total, 1, sites)
    assert tail.metrics == (metric * sites,)
    assert mean_metrics(tail, MOST) == [value]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**62, -(2.0**62)])
def test_a_metric_that_the_tail_does_not_hold_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="a metric is"):
        weighted_metric(value, 1, MOST)


def test_a_contribution_without_weight_brings_no_metric() -> None:
    assert weighted_metric(123.0, 0, MOST) == 0


def test_room_that_is_not_used_holds_zeros() -> None:
    words = encoded(Tail(1, 0, 0, (0,) * 4, (5,)), 3)
    assert len(words) == tail_words(3)
    assert not words[-8:].any()


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 1001])
def test_checksums_add_up_like_their_vectors_and_see_each_word(dtype: type, size: int) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    dice = np.random.default_rng(size)
    vectors: list[Any] = [dice.integers(0, 2**bits, size).astype(dtype) for _ in range(3)]
    total: Any = np.sum(vectors, axis=0, dtype=dtype)
    checks = tuple(map(sum, zip(*map(checksums, vectors), strict=True)))
    tail = Tail(0, 0, 0, checks, ())
    assert checks_hold(tail, checksums(total), bits)
    for place in range(0, size, 97):
        altered = total.copy()
        altered[place] += 1
        assert not checks_hold(tail, checksums(altered), bits)
