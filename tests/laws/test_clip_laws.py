"""Laws of clipping, in exact arithmetic, at every scale that floats have."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from comity.adapters.train.linear import LinearTrainer
from comity.adapters.train.mlp import MlpTrainer
from comity.adapters.train.privacy import DpSgd
from comity.core.privacy.clip import clipped_rows
from comity.core.privacy.noise import SIGMA_STEPS, noisy_sum
from comity.errors import ConfigError, DataError
from comity.ports import Arrays, Table

ANY = st.floats(width=64)  # NaN, infinities and the smallest denormals too
ROWS = st.lists(st.lists(ANY, min_size=3, max_size=3), min_size=1, max_size=4)
EXPONENTS = st.integers(-99, 99)
DIGITS = st.floats(1.0, 9.99)
CLIPS = st.builds(lambda digits, exponent: digits * 10.0**exponent, DIGITS, EXPONENTS)


def exact_square(row: NDArray[np.float64]) -> Fraction:
    return sum((Fraction(float(value)) ** 2 for value in row), Fraction(0))


@given(ROWS, CLIPS)
def test_no_row_is_longer_than_the_clip_norm_at_any_scale(
    rows: list[list[float]], clip: float
) -> None:
    for row in clipped_rows(np.array(rows), clip):
        assert exact_square(row) <= Fraction(clip) ** 2


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=5), st.integers(-300, 300), CLIPS)
def test_a_row_is_clipped_however_tiny_it_and_the_bound_are(
    digits: list[float], exponent: int, clip: float
) -> None:
    row = np.array([digits]) * 10.0**exponent
    largest = float(np.abs(row).max())
    assume(largest > clip)  # so it must be clipped, and to hardly less than the bound
    clipped = exact_square(clipped_rows(row, clip)[0])
    assert (Fraction(clip) * Fraction(99, 100)) ** 2 < clipped <= Fraction(clip) ** 2


@given(ROWS, CLIPS, st.floats(0.01, 100.0))
def test_one_row_moves_the_noisy_sum_by_at_most_the_clip_norm(
    rows: list[list[float]], clip: float, noise: float
) -> None:
    table = np.array(rows)
    still: Callable[[int], bytes] = lambda size: bytes([7]) * size  # noqa: E731 - equal noise
    step = clip * noise / SIGMA_STEPS
    change = (
        noisy_sum(table, clip, noise, still) - noisy_sum(table[1:], clip, noise, still)
    ) / step
    whole = np.rint(change)
    assert np.allclose(change, whole, atol=1e-3)
    assert exact_square(whole) <= (Fraction(clip) / Fraction(step)) ** 2


@pytest.mark.parametrize("clip", [1e-170, 9e-101, 1.1e100, 0.0, float("nan")])
def test_a_clip_norm_near_the_ends_of_floats_is_refused(clip: float) -> None:
    with pytest.raises(ConfigError, match="clip_norm"):
        clipped_rows(np.ones((1, 1)), clip)
    with pytest.raises(ConfigError, match="clip_norm"):
        DpSgd(clip, "1", "1", 1)


def wild(arrays: Arrays, draw: np.random.Generator) -> Arrays:
    """Weights that cancel: a coordinator may choose them, and they magnify each rounding."""
    return {name: draw.normal(size=array.shape) * 1e16 for name, array in arrays.items()}


@pytest.mark.parametrize("trainer", [LinearTrainer(784, 10), MlpTrainer(784, 64, 10)])
@pytest.mark.parametrize("scale", [1e-17, 1.0])
def test_a_record_s_gradient_does_not_depend_on_who_else_is_in_the_batch(
    trainer: LinearTrainer | MlpTrainer, scale: float
) -> None:
    draw = np.random.default_rng(0)
    arrays = {name: array * scale for name, array in wild(trainer.initial(), draw).items()}
    features, labels = draw.uniform(-1, 1, (57, 784)), draw.integers(0, 10, 57)
    whole = trainer.gradients(arrays, features, labels)
    for size in (1, 2, 5, 33, 53, 56):
        part = trainer.gradients(arrays, features[:size], labels[:size])
        assert np.array_equal(part, whole[:size], equal_nan=True)


TABLE = Table(np.ones((3, 2)), np.array([0, 1, 0]), ("a", "b"), ("no", "yes"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 1e165),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("l2", -1.0),
        ("l2", float("nan")),
        ("steps", 0),
        ("steps", 10**9),
    ],
)
def test_a_setting_that_a_run_may_not_choose_is_refused_by_name(name: str, value: float) -> None:
    for trainer in (LinearTrainer, MlpTrainer):
        with pytest.raises(ConfigError, match=f"{name} is"):
            trainer(2, **{name: value})  # type: ignore[arg-type]  # the table's point


@pytest.mark.parametrize("records", [0, 10**400])
def test_an_expected_number_of_records_is_a_number_of_records(records: int) -> None:
    with pytest.raises(ConfigError, match="expected_records"):
        DpSgd(1.0, "1", "1", records)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"bias": np.zeros(2), "weights": np.zeros((2, 2))},
        {"weights": np.zeros((2, 1)), "bias": np.zeros(2)},
        {"weights": np.zeros((2, 2), np.float16), "bias": np.zeros(2)},
        {"weights": np.zeros((2, 2)), "bias": np.zeros(2), "more": np.zeros(1)},
    ],
)
def test_arrays_that_are_not_the_model_s_are_refused_before_a_record_is_read(
    arrays: Arrays,
) -> None:
    class NoRng:
        def token(self, size: int) -> bytes:
            raise AssertionError(size)

    private = LinearTrainer(2, privacy=DpSgd(1.0, "1", "1", 3))
    with pytest.raises(DataError, match="arrays"):
        private.fit(arrays, TABLE, NoRng())


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-300, 1e300, float("inf"), float("nan")])
def test_arrays_of_any_size_give_noise_or_a_refusal_never_a_bare_sum(value: float) -> None:
    class Rng:
        def token(self, size: int) -> bytes:
            return os.urandom(size)

    private = LinearTrainer(2, privacy=DpSgd(1e-100, "1", "1", 1), learning_rate=1e6)
    arrays = {"weights": np.full((2, 2), value), "bias": np.zeros(2)}
    first, second = (private.fit(arrays, TABLE, Rng()).arrays["bias"] for _ in range(2))
    assert not np.array_equal(first, second)
