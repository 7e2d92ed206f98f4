from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fakes.secagg_run import MODEL, SecaggRun, assert_sums

from comity.core.secagg import quantize as quantize_module
from comity.core.secagg.mask import Stream, apply_streams
from comity.core.secagg.quantize import (
    MAX_EXPONENT,
    Rounding,
    Tensor,
    exponents,
    mean_arrays,
    mean_magnitudes,
    quantize,
    range_of,
    update_norm,
    weight_steps,
)
from comity.core.secagg.ring import limit, margin_bits
from comity.core.secagg.site_upload import received_digest
from comity.core.secagg.sum_state import Void
from comity.errors import DataError, Malformed, PolicyRefused

BOUND = limit(32, 4)
KEY = bytes(range(32))


def there_and_back(
    array: Any, reference: Any = None, *, exponent: int = 16, factor: float = 1.0
) -> NDArray[Any]:
    """One site's sum over itself: what its words stand for."""
    values = np.asarray(array)
    start = None if reference is None else {"a": np.asarray(reference)}
    plan = [Tensor("a", values.size, exponent)]
    out = np.zeros(values.size, np.uint32)
    assert quantize(({"a": values}, start), plan, factor, BOUND, Rounding(), out) <= BOUND
    return mean_arrays(out, plan, factor, start)["a"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_floats_of_every_width_come_back_in_their_own(dtype: Any) -> None:
    start = np.zeros((2, 2), dtype)
    found = there_and_back(np.array([[0.5, -1.25], [3.0, 0.0]], dtype), start)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array([[0.5, -1.25], [3.0, 0.0]], dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, np.bool_])
def test_whole_numbers_are_summed_as_floats_and_come_back_as_float64(dtype: Any) -> None:
    found = there_and_back(np.array([1, 0, 1], dtype), np.array([0, 1, 1], dtype))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1.0, 0.0, 1.0])


def test_unsigned_numbers_that_shrink_do_not_wrap() -> None:
    np.testing.assert_array_equal(
        there_and_back(np.array([3], np.uint8), np.array([250], np.uint8)), [3.0]
    )


def test_an_array_of_no_elements_of_no_dimension_and_of_strides() -> None:
    assert there_and_back(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
    assert there_and_back(np.float32(1.5), np.float32(1.0)) == np.float32(1.5)
    strided = np.arange(24, dtype=np.float64).reshape(4, 6)[::-2, ::3].T
    assert not strided.flags.contiguous
    np.testing.assert_array_equal(there_and_back(strided, np.ones_like(strided)), strided)


def test_values_themselves_come_back_flat_as_float64() -> None:
    found = there_and_back(np.array([[1, 2], [3, 4]], np.float32))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, [1.0, 2.0, 3.0, 4.0])


def test_an_array_larger_than_a_block_is_the_same_in_all_its_blocks() -> None:
    values = np.linspace(-1, 1, 3 * 2**16 + 5)
    np.testing.assert_allclose(there_and_back(values, exponent=24), values, atol=2**-24)


def test_denormals_are_zeros_and_cost_nothing() -> None:
    found = there_and_back(np.array([5e-324, -1e-310]), np.zeros(2))
    np.testing.assert_array_equal(found, [0.0, 0.0])


@pytest.mark.parametrize("value", [1e10, -1e10, 1e300, 3e38])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_values_do_not_fit_and_say_so(value: float, dtype: Any) -> None:
    if value == 1e300:
        dtype = np.float64
    out = np.zeros(1, np.uint32)
    given = ({"a": np.array([value], dtype)}, {"a": np.array([-value], dtype)})
    assert quantize(given, [Tensor("a", 1, 20)], 1.0, BOUND, Rounding(), out) > BOUND


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_and_the_array_named(bad: float) -> None:
    out = np.zeros(2, np.uint32)
    with pytest.raises(DataError, match="array a holds"):
        quantize(
            ({"a": np.array([0, bad])}, None), [Tensor("a", 2, 20)], 0.5, BOUND, Rounding(), out
        )


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_in_what_came_in_is_refused_without_a_warning(
    bad: float, key: bytes | None
) -> None:
    out = np.zeros(1, np.uint32)
    for array in (np.zeros(1), np.array([bad])):
        given = ({"a": array}, {"a": np.array([bad])})
        with np.errstate(all="raise"), pytest.raises(DataError, match="array a holds"):
            quantize(given, [Tensor("a", 1, 20)], 0.0, BOUND, Rounding(key), out)


def test_rounding_by_chance_is_right_in_the_mean_and_never_far() -> None:
    values = np.full(200_000, 0.3, np.float64)
    out = np.zeros(len(values), np.uint16)
    plan = [Tensor("a", len(values), 0)]
    quantize(({"a": values}, None), plan, 1.0, limit(16, 4), Rounding(KEY), out)
    assert set(out.tolist()) == {0, 1}
    assert abs(out.mean() - 0.3) < 0.005
    again = np.zeros_like(out)
    quantize(({"a": values}, None), plan, 1.0, limit(16, 4), Rounding(KEY), again)
    np.testing.assert_array_equal(out, again)


def test_a_draw_of_zero_takes_up_what_has_a_fraction_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantize_module, "apply_streams", lambda *_, **__: None)
    values, out = np.array([3.0, 3.5, -3.0, -3.5, 0.0]), np.zeros(5, np.uint16)
    quantize(({"a": values}, None), [Tensor("a", 5, 0)], 1.0, 100, Rounding(KEY), out)
    assert out.view(np.int16).tolist() == [3, 4, -3, -3, 0]


def test_every_block_is_rounded_with_draws_of_its_own() -> None:
    values = np.full(2 * 2**16, 0.5, np.float32)
    out = np.zeros(len(values), np.uint16)
    plan = [Tensor("a", len(values), 0)]
    quantize(({"a": values}, None), plan, 1.0, limit(16, 4), Rounding(KEY), out)
    assert (out[: 2**16] != out[2**16 :]).mean() > 0.4


def test_exponents_follow_magnitudes_with_a_floor_for_what_does_not_change() -> None:
    found = exponents([1.0, 0.001, 0.0], BOUND, 16)
    assert found[0] == math.floor(math.log2(BOUND / 16))
    assert found[1] == found[2] == found[0] + 4
    assert exponents([], BOUND, 16) == []


def test_an_all_zero_model_is_given_the_scale_of_one_that_changes_by_a_sixteenth() -> None:
    assert exponents([0.0, 0.0], BOUND, 16) == exponents([1 / 16, 1 / 16], BOUND, 16)


@pytest.mark.parametrize("magnitude", [5e-324, 1e-310, 1e-40, 1e200, 1.7e308])
def test_exponents_of_denormal_and_huge_models_stay_within_what_is_allowed(
    magnitude: float,
) -> None:
    (found,) = exponents([magnitude], BOUND, 1024)
    assert abs(found) == MAX_EXPONENT


def test_a_value_of_the_range_fits_and_one_above_does_not() -> None:
    tensor = Tensor("a", 1, 20)
    reach = range_of(tensor, BOUND)
    out = np.zeros(1, np.uint32)
    for value, fits in ((reach, True), (-reach, True), (reach + 2**-19, False)):
        peak = quantize(({"a": np.array([value])}, None), [tensor], 1.0, BOUND, Rounding(), out)
        assert (peak <= BOUND) is fits


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("sites", [1, 2, 3, 8, 100, 1024])
def test_no_sum_of_what_fits_wraps(bits: int, sites: int) -> None:
    bound = limit(bits, sites)
    assert sites * (bound + 1) <= 2 ** (bits - 1) - 1 < sites * (bound + 2)


def test_a_ring_without_room_is_refused_and_a_margin_told() -> None:
    with pytest.raises(PolicyRefused, match="ring of 16 bits has no room for a sum over 16384"):
        limit(16, 16_384)
    assert margin_bits(32, 16, 16) == pytest.approx(23, abs=0.01)


def test_the_norm_of_an_update_is_taken_in_float64() -> None:
    large = {"a": np.full(3, 1e30, np.float32), "b": np.zeros((0,), np.float32)}
    assert update_norm(large, None) == pytest.approx(math.sqrt(3) * 1e30, rel=1e-6)
    many = np.full(2**17, 0.1, np.float32)
    exact = math.sqrt(2**17) * float(np.float32(0.1))
    assert update_norm({"a": many}, {"a": np.zeros_like(many)}) == pytest.approx(exact, rel=1e-13)


def test_weights_count_in_steps_and_beyond_reason_they_are_refused() -> None:
    assert weight_steps(1) == 65_536
    assert weight_steps(math.nextafter(2.0**60, 0)) == 2**76 - 2**23
    for bad in (-0.5, math.nan, math.inf, 2.0**60, 1e308):
        with pytest.raises(DataError, match="no sensible weight"):
            weight_steps(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
def test_the_norm_of_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="not finite, or too large"):
        update_norm({"a": np.array([0.0, bad])}, None)


def test_magnitudes_of_the_mean_are_those_of_its_largest_values() -> None:
    plan = [Tensor("a", 3, 4), Tensor("none", 0, 4), Tensor("b", 1, 0)]
    words = np.array([16, -48, 0, 7], np.int32).view(np.uint32)
    assert mean_magnitudes(words, plan, 2.0) == [1.5, 0.0, 3.5]


def test_an_update_beyond_the_clip_norm_is_scaled_down_and_counted() -> None:
    run = SecaggRun(sites=3).announce().open(clip_norm=1.0, max_weight=32)
    run.invite()
    for name in run.names:
        change = np.float32(3.0 if name == "s01" else 0.01)
        run.contribute(name, weight=30.0, arrays={k: a + change for k, a in MODEL.items()})
        run.upload(name)
    run.close()
    outcome = run.reveal().finish()
    assert not isinstance(outcome, Void)
    result, arrays = outcome
    assert result.clipped == 1
    norm = math.sqrt(10 * 9.0)
    np.testing.assert_allclose(arrays["b"] - MODEL["b"], (3 / norm + 0.02) / 3, atol=1e-5)


@pytest.mark.parametrize("exponents_", [(10, 10), (11, 9)])
def test_sixteen_bits_give_the_mean_to_their_step(exponents_: tuple[int, int]) -> None:
    tensors = (("w", 6, exponents_[0]), ("b", 4, exponents_[1]))
    run = SecaggRun(sites=4).announce().open(ring_bits=16, tensors=tensors)
    assert_sums(run, run.complete())


def test_values_themselves_are_summed_where_nothing_came_in() -> None:
    run = SecaggRun(sites=3).announce().open()
    run.invite()
    for name in run.names:
        run.contribute(name, reference=None)
        run.upload(name)
    run.close()
    outcome = run.reveal().finish()
    assert not isinstance(outcome, Void)
    _, expected = run.expected(*run.names)
    for name, array in outcome[1].items():
        np.testing.assert_allclose(array - MODEL[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("weight", [16.001, 1e6, 1e18])
def test_a_weight_above_the_largest_is_cut_to_it_and_counted(weight: float) -> None:
    run = SecaggRun(sites=3).announce().open(max_weight=16)
    run.invite()
    for name in run.names:
        change = np.float32(0.25 if name == "s01" else 0.5)
        arrays = {key: array + change for key, array in MODEL.items()}
        run.contribute(name, weight=weight if name == "s01" else 16.0, arrays=arrays)
        run.upload(name)
    run.close()
    outcome = run.reveal().finish()
    assert not isinstance(outcome, Void)
    result, arrays = outcome
    assert (result.weight, result.capped, result.clipped) == (48.0, 1, 0)
    np.testing.assert_allclose(arrays["b"] - MODEL["b"], 1.25 / 3, atol=1e-5)


def test_digests_of_what_was_received_differ_in_name_type_shape_order_and_bytes() -> None:
    plain = np.arange(4, dtype=np.float32)
    said: list[dict[str, NDArray[Any]]] = [
        {"a": plain},
        {"b": plain},
        {"a": plain.reshape(2, 2)},
        {"a": plain.astype(np.float64)},
        {"a": plain.astype(">f4")},
        {"a": plain[::-1]},
        {"a": plain, "b": plain},
        {"b": plain, "a": plain},
        {"a": plain[:0]},
        {},
    ]
    assert len({received_digest(arrays) for arrays in said}) == len(said)
    assert received_digest({"a": np.repeat(plain, 2)[::2]}) == received_digest({"a": plain})


def test_a_slice_of_a_vector_is_masked_as_the_whole_and_only_at_a_block() -> None:
    whole = np.arange(200_000, dtype=np.uint32)
    streams = [Stream(KEY), Stream(bytes(32), negative=True)]
    cut = whole.copy()
    apply_streams(whole, streams)
    for start, stop in ((0, 65_540), (65_540, 200_000)):
        apply_streams(cut[start:stop], streams, start=start)
    np.testing.assert_array_equal(whole, cut)
    with pytest.raises(Malformed, match="byte 4 cuts a block"):
        apply_streams(cut[1:], streams, start=1)
