from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from comity.core.privacy.noise import (
    SIGMA_STEPS,
    discrete_gaussian,
    noisy_arrays,
    noisy_sum,
)
from comity.core.privacy.sampling import poisson_batch
from comity.errors import ConfigError, DataError


def seeded(seed: int) -> Callable[[int], bytes]:
    return np.random.default_rng(seed).bytes


def exact_pmf(sigma: float, values: NDArray[np.int64]) -> NDArray[np.float64]:
    reach = math.ceil(12 * sigma)
    support = np.arange(-reach, reach + 1)
    weights = np.exp(-(support.astype(float) ** 2) / (2 * sigma**2))
    mass: NDArray[np.float64] = np.exp(-(values.astype(float) ** 2) / (2 * sigma**2))
    return np.asarray(mass / weights.sum())


@pytest.mark.parametrize("sigma", [3.0, 7.5])
def test_draws_follow_the_exact_distribution(sigma: float) -> None:
    size = 200_000
    draws = discrete_gaussian(sigma, size, seeded(1))
    reach = math.ceil(3 * sigma)
    values = np.arange(-reach, reach + 1)
    seen = np.array([np.sum(draws == value) for value in values])
    expected = size * exact_pmf(sigma, values)
    chi_square = float(np.sum((seen - expected) ** 2 / expected))
    freedom = len(values) - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_wide_draws_are_a_narrow_one_and_a_stretched_one() -> None:
    draws = discrete_gaussian(SIGMA_STEPS, 200_000, seeded(2))
    assert abs(draws.std() / SIGMA_STEPS - 1) < 0.01
    assert abs(draws.mean()) < SIGMA_STEPS * 0.01
    assert len(np.unique(draws % 64)) == 64


@pytest.mark.parametrize("sigma", [0.0, 2.9, 21_761.0, math.nan])
def test_a_deviation_outside_the_proven_range_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        discrete_gaussian(sigma, 1, os.urandom)


def test_the_extreme_words_give_draws_beyond_nine_deviations_and_within_ten() -> None:
    lowest = discrete_gaussian(5.0, 1, bytes)
    highest = discrete_gaussian(5.0, 1, lambda size: b"\xff" * size)
    assert -50 <= lowest[0] <= -45
    assert 45 <= highest[0] <= 50


def test_a_noisy_sum_has_the_deviation_that_it_is_accounted_for() -> None:
    token = seeded(3)
    sums = np.array([noisy_sum(np.zeros((0, 50)), 2.0, 1.5, token) for _ in range(400)])
    assert abs(sums.std() / (2.0 * 1.5) - 1) < 0.02


def test_rows_are_clipped_before_they_are_summed_and_lose_less_than_a_step() -> None:
    rows = np.array([[30.0, 40.0], [0.3, -0.4], [np.nan, 1.0]])
    draws = [noisy_sum(rows, 1.0, 0.01, seeded(seed)) for seed in range(200)]
    assert np.allclose(np.mean(draws, axis=0), [0.9, 0.4], atol=0.003)


def test_no_row_can_move_the_sum_by_more_than_the_clip_norm() -> None:
    one = np.array([[0.6, 0.8]]) * (1 + 1e-15)
    with_row = noisy_sum(one, 1.0, 1.0, seeded(4))
    without = noisy_sum(np.zeros((0, 2)), 1.0, 1.0, seeded(4))
    assert float(np.linalg.norm(with_row - without)) <= 1.0


def test_a_whole_contribution_gets_noise_in_every_element_and_keeps_its_types() -> None:
    arrays: dict[str, NDArray[Any]] = {
        "w": np.ones((2, 3), np.float32),
        "n": np.array([5], np.int64),
    }
    noisy = noisy_arrays(arrays, arrays, 100.0, 1.0, seeded(5))
    assert {name: (a.shape, a.dtype) for name, a in noisy.items()} == {
        name: (a.shape, a.dtype) for name, a in arrays.items()
    }
    assert not np.any(noisy["w"] == arrays["w"])
    assert noisy["n"][0] != 5


def test_arrays_that_cannot_carry_noise_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="array mask"):
        noisy_arrays({"mask": np.array([True])}, None, 1.0, 1.0, os.urandom)


@pytest.mark.parametrize(
    ("clip", "noise"), [(0.0, 1.0), (1.0, 0.0), (1e-320, 1.0), (1.0, math.inf)]
)
def test_bounds_that_protect_nothing_are_refused(clip: float, noise: float) -> None:
    with pytest.raises(ConfigError):
        noisy_sum(np.zeros((1, 1)), clip, noise, os.urandom)


def test_each_record_takes_part_with_the_rate_that_is_accounted_for() -> None:
    counts = [len(poisson_batch(1000, "0.3", seeded(seed))) for seed in range(200)]
    assert abs(np.mean(counts) - 300) < 5
    assert len(set(counts)) > 20


def test_a_rate_of_one_takes_all_and_a_tiny_rate_often_none() -> None:
    assert np.array_equal(poisson_batch(4, "1", os.urandom), [0, 1, 2, 3])
    assert len(poisson_batch(10, "1e-15", os.urandom)) == 0


@pytest.mark.parametrize("rate", ["0", "-0.1", "1.01"])
def test_a_rate_outside_zero_and_one_is_refused(rate: str) -> None:
    with pytest.raises(ConfigError, match="sampling_rate"):
        poisson_batch(3, rate, os.urandom)
