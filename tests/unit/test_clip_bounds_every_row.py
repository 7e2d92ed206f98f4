from __future__ import annotations

import numpy as np
import pytest

from comity.core.privacy.clip import clip_by_global_norm, clipped_rows
from comity.errors import ConfigError, DataError


def test_what_is_within_the_bound_is_unchanged_a_zero_row_too() -> None:
    rows = np.array([[0.0, 0.0], [0.3, 0.4]])
    assert np.array_equal(clipped_rows(rows, 1.0), rows)


def test_what_is_above_the_bound_is_scaled_to_just_below_it() -> None:
    norm = float(np.linalg.norm(clipped_rows(np.array([[3.0, 4.0]]), 1.0)))
    assert 1.0 - 1e-9 < norm <= 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_counts_for_nothing(bad: float) -> None:
    rows = np.array([[bad, bad], [0.3, 0.4]])
    assert np.array_equal(clipped_rows(rows, 1.0), [[0.0, 0.0], [0.3, 0.4]])


def test_no_rows_stay_no_rows() -> None:
    assert clipped_rows(np.zeros((0, 3)), 1.0).shape == (0, 3)
    assert clipped_rows(np.zeros((2, 0)), 1.0).shape == (2, 0)


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf])
def test_a_bound_that_bounds_nothing_is_refused_by_name(bound: float) -> None:
    with pytest.raises(ConfigError, match="clip_norm"):
        clipped_rows(np.ones((1, 1)), bound)


def test_a_contribution_is_clipped_as_one_vector_around_its_start() -> None:
    start = {"w": np.array([1.0, 1.0], np.float32), "b": np.array([2.0])}
    arrays = {"w": np.array([4.0, 1.0], np.float32), "b": np.array([6.0])}
    clipped = clip_by_global_norm(arrays, start, 1.0)
    assert clipped["w"].dtype == np.float32
    change = [clipped["w"][0] - 1.0, clipped["w"][1] - 1.0, clipped["b"][0] - 2.0]
    assert np.allclose(change, [0.6, 0.0, 0.8])


def test_without_a_start_the_values_themselves_are_clipped() -> None:
    assert np.allclose(clip_by_global_norm({"w": np.array([3.0, 4.0])}, None, 1.0)["w"], [0.6, 0.8])


def test_integer_counters_are_clipped_as_floats_and_rounded_back() -> None:
    clipped = clip_by_global_norm({"n": np.array([10], np.int64)}, {"n": np.array([0])}, 4.0)
    assert clipped["n"].dtype == np.int64
    assert clipped["n"][0] == 4


def test_a_contribution_with_a_nan_is_refused_by_the_array_s_name() -> None:
    with pytest.raises(DataError, match="array w"):
        clip_by_global_norm({"w": np.array([np.nan])}, None, 1.0)


def test_no_arrays_at_all_are_fine() -> None:
    assert clip_by_global_norm({}, None, 1.0) == {}
