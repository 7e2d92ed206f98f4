"""Numbers of secure sums: shares, the ring that never wraps, scales that fit, tails that add up."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.fakes.naive_secagg import FIELD, interpolated, site_words
from tests.fakes.sum_cohort import drawn

from comity.core.secagg import shamir
from comity.core.secagg.quantize import (
    FLOOR,
    MAX_EXPONENT,
    Rounding,
    Tensor,
    exponents,
    mean_arrays,
    mean_magnitudes,
    quantize,
    range_of,
    weight_steps,
)
from comity.core.secagg.ring import limit, signed, words
from comity.core.secagg.tail import Tail, checks_hold, checksums, decoded, encoded, weighted_metric
from comity.errors import DataError, Malformed, PolicyRefused

SECRETS = st.binary(min_size=31, max_size=31)
SEEDS = st.binary(min_size=32, max_size=32)

# --- shares ----------------------------------------------------------------------------------


@st.composite
def sharings(draw: st.DrawFn) -> tuple[bytes, int, list[int], bytes]:
    points = draw(st.lists(st.integers(1, 1024), min_size=1, max_size=12, unique=True))
    return draw(SECRETS), draw(st.integers(1, len(points))), points, draw(SEEDS)


@settings(deadline=None)
@given(sharings(), st.data())
def test_any_threshold_of_shares_gives_the_secret(
    sharing: tuple[bytes, int, list[int], bytes], data: st.DataObject
) -> None:
    secret, threshold, points, seed = sharing
    shares = dict(zip(points, shamir.split(secret, threshold, points, seed), strict=True))
    chosen = data.draw(st.permutations(points))[: data.draw(st.integers(threshold, len(points)))]
    assert shamir.recovered({point: shares[point] for point in chosen}) == secret
    numbers = {point: int.from_bytes(shares[point], "big") for point in chosen}
    assert interpolated(numbers) == int.from_bytes(secret, "big")


@settings(deadline=None)
@given(sharings(), SECRETS)
def test_fewer_shares_than_the_threshold_go_with_any_secret(
    sharing: tuple[bytes, int, list[int], bytes], other: bytes
) -> None:
    """For every other secret there is a last share that makes it of the ones that are seen."""
    secret, threshold, points, seed = sharing
    chosen = points[:threshold]
    shares = shamir.split(secret, threshold, chosen, seed)
    weights = shamir.weights(chosen)
    seen = zip(shares[:-1], weights, strict=False)
    known = sum(int.from_bytes(share, "big") * weight for share, weight in seen)
    last = (int.from_bytes(other, "big") - known) * pow(weights[-1], -1, FIELD) % FIELD
    assert shamir.combined([*shares[:-1], last.to_bytes(32, "big")], weights) == other


@settings(deadline=None)
@given(sharings())
def test_fewer_shares_than_the_threshold_do_not_give_the_secret(
    sharing: tuple[bytes, int, list[int], bytes],
) -> None:
    secret, threshold, points, seed = sharing
    if threshold == 1:
        return
    shares = shamir.split(secret, threshold, points[:threshold], seed)
    try:
        found = shamir.recovered(dict(zip(points, shares[:-1], strict=False)))
    except Malformed:
        return
    assert found != secret


def test_a_share_below_the_threshold_is_uniform_whatever_the_secret() -> None:
    """Chi-square over the top bits of one share of two, for two secrets; seeds are fixed."""
    for secret in (bytes(31), b"\xff" * 31):
        counts = [0] * 32
        for number in range(4000):
            share = shamir.split(secret, 2, [1, 2], drawn(32, "share", number))[1]
            counts[share[0] >> 2] += 1
        expected = 4000 / 32
        statistic = sum((count - expected) ** 2 / expected for count in counts)
        assert abs(statistic - 31) < 6 * math.sqrt(62)


# --- the ring --------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [16, 32])
def test_no_sum_wraps_at_the_bound_whatever_the_cohort(bits: int) -> None:
    ring, half = words(bits), 2 ** (bits - 1)
    for sites in range(1, 1025):
        bound = limit(bits, sites)
        assert sites * (bound + 1) <= half - 1 < sites * (bound + 2)
        for worst in (bound, -bound):
            total = np.array([worst * sites % 2**bits], ring)
            assert signed(total, bits).tolist() == [worst * sites]


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("sites", [2, 3, 100, 1024])
def test_the_worst_values_add_up_word_by_word(bits: int, sites: int) -> None:
    ring, bound = words(bits), limit(bits, sites)
    for worst in (bound, -bound):
        total = np.zeros(1, ring)
        for _ in range(sites):
            np.add(total, np.array([worst % 2**bits], ring), out=total)
        assert signed(total, bits).tolist() == [worst * sites]


@pytest.mark.parametrize(("bits", "most"), [(16, 16383), (32, 2**30 - 1)])
def test_a_ring_without_room_is_refused(bits: int, most: int) -> None:
    assert limit(bits, most) == 1
    with pytest.raises(PolicyRefused):
        limit(bits, most + 1)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 2.0**60), max_size=6),
    st.sampled_from([16, 32]),
    st.integers(2, 1024),
    st.sampled_from([2.0, 16.0]),
)
@example([5e-324], 32, 3, 16.0)
@example([0.0, 0.0], 16, 3, 2.0)
@example([1e-310, 1.0], 32, 3, 2.0)
@example([7.999999999999999], 16, 4, 2.0)
def test_scales_leave_the_headroom_that_they_promise(
    magnitudes: list[float], bits: int, sites: int, headroom: float
) -> None:
    bound = limit(bits, sites)
    if bound < headroom:
        return
    found = exponents(magnitudes, bound, headroom)
    assert len(found) == len(magnitudes)
    top = max(magnitudes, default=0.0) or 1.0
    for magnitude, exponent in zip(magnitudes, found, strict=True):
        assert abs(exponent) <= MAX_EXPONENT
        largest = max(magnitude, top * FLOOR) * headroom
        tensor = Tensor("w", 1, exponent)
        assert largest <= range_of(tensor, bound) * (1 + 1e-15)
        if exponent < MAX_EXPONENT:
            assert largest * 2 > range_of(tensor, bound) * (1 - 1e-15)
        out = np.zeros(1, words(bits))
        peak = quantize(({"w": np.array([largest])}, None), [tensor], 1.0, bound, Rounding(), out)
        assert peak <= bound
        assert signed(out, bits).tolist() == [round(Fraction(largest) * Fraction(2) ** exponent)]


@settings(deadline=None)
@given(
    st.lists(st.floats(-50, 50, width=32), max_size=20),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 1024),
    st.integers(-3, 12),
)
def test_rounding_to_nearest_is_that_of_exact_numbers_or_the_values_do_not_fit(
    values: list[float], dtype: Any, weight: int, exponent: int
) -> None:
    """A factor with few bits keeps the products exact in float64; float32 is off by half an ulp."""
    out = np.zeros(len(values), np.uint32)
    bound, tensor = limit(32, 3), Tensor("w", len(values), exponent)
    array = np.array(values, dtype)
    peak = quantize(({"w": array}, None), [tensor], weight / 1024, bound, Rounding(), out)
    exact = [Fraction(value) * weight / 1024 * Fraction(2) ** exponent for value in values]
    assert peak <= bound
    for number, value in zip(signed(out, 32).tolist(), exact, strict=True):
        slack = Fraction(1, 2) + (abs(value) * Fraction(1, 2**23) if dtype is np.float32 else 0)
        assert abs(number - value) <= slack


@settings(deadline=None)
@given(
    st.lists(st.floats(-20, 20, width=16), min_size=1, max_size=9),
    st.lists(st.floats(-20, 20, width=16), max_size=9),
    SEEDS,
)
def test_rounding_by_chance_is_that_of_the_naive_implementation(
    one: list[float], two: list[float], key: bytes
) -> None:
    spec = {
        "cohort": ["a", "b", "c"],
        "ring_bits": 16,
        "max_weight": 4,
        "tensors": [("one", len(one), 6), ("two", len(two), 8)],
        "clip_norm": 0.0,
        "metric_slots": 0,
    }
    zeros = [[0.0] * len(one), [0.0] * len(two)]
    taken = {"weight": 3.0, "arrays": [one, two], "reference": zeros, "metrics": []}
    expected = site_words(spec, taken, key)
    out = np.zeros(len(one) + len(two), np.uint16)
    plan = [Tensor(*row) for row in [("one", len(one), 6), ("two", len(two), 8)]]
    arrays = {"one": np.array(one), "two": np.array(two)}
    peak = quantize((arrays, None), plan, 0.75, limit(16, 3), Rounding(key), out)
    if expected is None:
        assert peak > limit(16, 3)
        return
    assert out.tolist() == expected[0]


def test_rounding_by_chance_is_right_in_the_mean() -> None:
    count, value = 2**18, 0.3
    out = np.zeros(count, np.uint16)
    tensor = Tensor("w", count, 0)
    for dtype in (np.float32, np.float64):
        values = np.full(count, -value, dtype)
        quantize(({"w": values}, None), [tensor], 1.0, 100, Rounding(drawn(32, "mean")), out)
        numbers = signed(out, 16)
        assert set(np.unique(numbers).tolist()) == {-1, 0}
        deviation = math.sqrt(value * (1 - value) / count)
        assert abs(float(numbers.mean()) + value) < 6 * deviation


@settings(deadline=None)
@given(st.floats(0.5, 2.0**62), st.sampled_from([np.float32, np.float64]), st.integers(-4, 100))
def test_what_exceeds_the_bound_is_said_and_never_wraps(
    value: float, dtype: Any, exponent: int
) -> None:
    for sign in (1, -1):
        out = np.zeros(1, np.uint32)
        bound = limit(32, 5)
        array = np.array([sign * value], dtype)
        peak = quantize(
            ({"w": array}, None), [Tensor("w", 1, exponent)], 1.0, bound, Rounding(), out
        )
        scaled = float(array[0]) * 2.0**exponent
        assert (peak > bound) == (abs(round(scaled)) > bound)
        if peak <= bound:
            assert abs(signed(out, 32)[0]) <= bound


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_a_value_that_is_no_number_is_refused_whatever_it_weighs(
    bad: float, dtype: Any, factor: float
) -> None:
    array = np.array([0.0, bad, 0.0], dtype)
    for key in (None, bytes(32)):
        with pytest.raises(DataError):
            quantize(
                ({"w": array}, None),
                [Tensor("w", 3, 4)],
                factor,
                100,
                Rounding(key),
                np.zeros(3, np.uint16),
            )


@settings(deadline=None)
@given(st.lists(st.integers(-1000, 1000), max_size=12), st.integers(-5, 12), st.integers(1, 2048))
def test_a_mean_is_what_the_words_stand_for(numbers: list[int], exponent: int, share: int) -> None:
    vector = np.array([number % 2**32 for number in numbers], np.uint32)
    tensors, total = [Tensor("w", len(numbers), exponent)], share / 1024
    exact = [Fraction(number) * 1024 / share / Fraction(2) ** exponent for number in numbers]
    found = mean_arrays(vector, tensors, total, None)["w"]
    np.testing.assert_allclose(found, [float(value) for value in exact], rtol=1e-14)
    (largest,) = mean_magnitudes(vector, tensors, total)
    assert largest == pytest.approx(float(max(map(abs, exact), default=Fraction(0))), rel=1e-14)


# --- the tail --------------------------------------------------------------------------------

METRICS = st.floats(-(2.0**61), 2.0**61)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**36), st.integers(0, 1), st.tuples(METRICS, METRICS)),
        min_size=1,
        max_size=9,
    )
)
def test_tails_add_up_to_the_tail_of_the_sum(
    rows: list[tuple[int, int, tuple[float, float]]],
) -> None:
    most, tails = 2**36, []
    for steps, clipped, metrics in rows:
        weighted = tuple(weighted_metric(value, steps, most) for value in metrics)
        tails.append(Tail(steps, 1 - clipped, clipped, (steps % 7, 1, 2, 3), weighted))
    total: Any = np.sum([encoded(tail, 5) for tail in tails], axis=0, dtype=np.uint64)
    found = decoded(total, 2, len(rows))
    assert found.weight_steps == sum(tail.weight_steps for tail in tails)
    assert found.capped == sum(tail.capped for tail in tails)
    assert found.clipped == sum(tail.clipped for tail in tails)
    assert found.checks == tuple(map(sum, zip(*(tail.checks for tail in tails), strict=True)))
    assert found.metrics == tuple(map(sum, zip(*(tail.metrics for tail in tails), strict=True)))


@settings(deadline=None)
@given(METRICS, st.integers(0, 2**36))
def test_a_weighted_metric_is_exact_to_one_unit(value: float, steps: int) -> None:
    exact = Fraction(value) * 2**64 * steps / 2**36
    assert 0 <= exact - weighted_metric(value, steps, 2**36) < 1


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2**16 - 1), min_size=10, max_size=10), min_size=1, max_size=5)
)
def test_checksums_add_up_like_the_vectors(rows: list[list[int]]) -> None:
    vectors = [np.array(row, np.uint16) for row in rows]
    total: Any = np.sum(vectors, axis=0, dtype=np.uint16)
    checks = tuple(map(sum, zip(*map(checksums, vectors), strict=True)))
    assert checks_hold(Tail(0, 0, 0, checks, ()), checksums(total), 16)
    for place in range(10):
        altered = total.copy()
        altered[place] ^= 1
        assert not checks_hold(Tail(0, 0, 0, checks, ()), checksums(altered), 16)


@settings(deadline=None)
@given(st.integers(0, 2**40))
def test_whole_weights_are_exact_and_others_to_half_a_step(weight: int) -> None:
    assert weight_steps(weight) == weight * 65536
    assert abs(weight_steps(weight / 3) - Fraction(weight / 3) * 65536) <= Fraction(1, 2)


@pytest.mark.parametrize("weight", [-1.0, -1e-9, math.nan, math.inf])
def test_a_weight_that_counts_nothing_is_refused(weight: float) -> None:
    with pytest.raises(DataError):
        weight_steps(weight)
