"""Why later plans enter by a filter: an exact counter-example to the obvious rule.

The obvious rule composes what ran by its privacy loss distribution and refuses what would exceed
the budget. Below, an analyst who chooses each next query in the light of the answers so far, and
whom the rule never lets run a multiset above (3, 1e-3), reaches a delta of 2.6e-3. All figures are
exact sums over every course of answers; losses are whole numbers of tenths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

EPSILON_TENTHS = 30
DELTA = 1e-3
QUERIES = (10, 3, 1)
"""Randomised responses of epsilon 1, 0.3 and 0.1, in tenths."""
REACH = 400

Counts = tuple[int, int, int]
Losses = NDArray[np.float64]

GAIN: Losses = np.maximum(0.0, 1.0 - np.exp((EPSILON_TENTHS - np.arange(-REACH, REACH + 1)) / 10))
"""What a course of answers adds to delta, by its privacy loss."""


def truth(tenths: int) -> float:
    return 1 / (1 + math.exp(-tenths / 10))


def answered(values: Losses, tenths: int) -> Losses:
    """The expected value before a query, by the loss before it."""
    up, down = np.empty_like(values), np.empty_like(values)
    up[:-tenths], up[-tenths:] = values[tenths:], values[-1]
    down[tenths:], down[:tenths] = values[:-tenths], values[0]
    return truth(tenths) * up + (1 - truth(tenths)) * down


@cache
def fixed_delta(counts: Counts) -> float:
    values = GAIN
    for tenths, count in zip(QUERIES, counts, strict=True):
        for _ in range(count):
            values = answered(values, tenths)
    return float(values[REACH])


def plus_one(counts: Counts, index: int) -> Counts:
    more = list(counts)
    more[index] += 1
    return more[0], more[1], more[2]


def adaptive_delta(admitted: Callable[[Counts], bool]) -> tuple[float, float]:
    """The worst delta of an adaptive analyst, and of any fixed multiset that is admitted."""
    best: dict[Counts, Losses] = {}
    worst_fixed = 0.0
    reach = [0, 0, 0]
    for index in range(3):
        counts: Counts = (0, 0, 0)
        while admitted(plus_one(counts, index)):
            counts = plus_one(counts, index)
        reach[index] = counts[index]
    one, two, three = (range(most, -1, -1) for most in reach)
    for counts in product(one, two, three):
        if not admitted(counts):
            continue
        worst_fixed = max(worst_fixed, fixed_delta(counts))
        value = GAIN
        for index, tenths in enumerate(QUERIES):
            later = best.get(plus_one(counts, index))
            if later is not None:
                value = np.maximum(value, answered(later, tenths))
        best[counts] = value
    return float(best[0, 0, 0][REACH]), worst_fixed


def renyi(tenths: int, order: float) -> float:
    yes = truth(tenths)
    no = 1 - yes
    total = yes**order * no ** (1 - order) + no**order * yes ** (1 - order)
    return math.log(total) / (order - 1)


def test_composing_what_ran_and_refusing_what_would_exceed_the_budget_is_no_filter() -> None:
    adaptive, fixed = adaptive_delta(lambda counts: fixed_delta(counts) <= DELTA)
    assert fixed <= DELTA
    assert adaptive > 2.6 * DELTA


def test_the_renyi_filter_holds_against_the_same_analyst() -> None:
    order = 4.0
    costs = [renyi(tenths, order) for tenths in QUERIES]
    bound = EPSILON_TENTHS / 10 - math.log(1 / DELTA) / (order - 1)
    adaptive, _ = adaptive_delta(
        lambda counts: sum(n * cost for n, cost in zip(counts, costs, strict=True)) <= bound
    )
    assert 0 < adaptive <= DELTA
