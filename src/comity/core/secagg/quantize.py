"""Model updates as words of a ring, and their weighted mean back.

What a site sums of a tensor is its change, times its weight over the public largest weight, times a
public power of two: q = round(update * weight / max_weight * 2**exponent). The exponents follow
what is public already, the model at first and the last mean update later, so one ring serves large
and small layers alike. A ring of 32 bits rounds to nearest (error at most half a step); one of 16
rounds stochastically, so that the mean is right in expectation however coarse the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.core.secagg.mask import RingVector, Stream, apply_streams
from comity.core.secagg.ring import signed
from comity.errors import DataError

Arrays = Mapping[str, NDArray[Any]]

WEIGHT_STEPS: Final = 2**16
"""A weight counts in steps of 1/65,536; whole numbers are exact."""
MAX_EXPONENT: Final = 100
FLOOR: Final = 2.0**-4
"""A tensor is taken to change by at least this part of what the largest one does."""
_MAX_WEIGHT: Final = 2.0**60
_TINIEST: Final = 2.0**-1000
_BLOCK: Final = 2**16


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies in the vector of a sum: after those before it, in order.

    Attributes:
        name: Its array's name.
        size: How many elements it has.
        exponent: A word stands for a multiple of 2**-exponent.
    """

    name: str
    size: int
    exponent: int


@dataclass(frozen=True, slots=True, repr=False)
class Rounding:
    """How values become whole: to the nearest, or by chance under a key.

    Attributes:
        key: 32 bytes for stochastic rounding, used once; None rounds to nearest.
    """

    key: bytes | None = None


def dimension(tensors: Sequence[Tensor]) -> int:
    """The length of the vector."""
    return sum(tensor.size for tensor in tensors)


def exponents(magnitudes: Sequence[float], bound: int, headroom: float) -> list[int]:
    """A power of two for each tensor, by how large its values are expected to be.

    Args:
        magnitudes: The largest absolute value expected in each, finite.
        bound: `ring.limit` of the plan.
        headroom: How many times larger a value may be and still fit.
    """
    top = max(magnitudes, default=0.0) or 1.0
    found = []
    for magnitude in magnitudes:
        expected = math.log2(max(magnitude, top * FLOOR, _TINIEST)) + math.log2(headroom)
        exponent = math.floor(math.log2(bound) - expected)
        found.append(max(-MAX_EXPONENT, min(MAX_EXPONENT, exponent)))
    return found


def weight_steps(weight: float) -> int:
    """A weight in steps.

    Raises:
        DataError: It is negative, NaN, infinite or beyond reason.
    """
    if not 0 <= weight < _MAX_WEIGHT:
        raise DataError(
            "a contribution has no sensible weight", hint="weigh by a count of examples"
        )
    return round(weight * WEIGHT_STEPS)


def update_norm(arrays: Arrays, reference: Arrays | None) -> float:
    """The L2 norm of a whole update, in float64.

    Raises:
        DataError: It is not finite.
    """
    total = 0.0
    for name, array in arrays.items():
        for block in _blocks(array, None if reference is None else reference[name]):
            values = block.astype(np.float64)
            total += float(np.vdot(values, values))
    if not math.isfinite(total):
        raise DataError("an update is not finite, or too large", hint="check the training data")
    return math.sqrt(total)


def quantize(
    values: tuple[Arrays, Arrays | None],
    tensors: Sequence[Tensor],
    factor: float,
    bound: int,
    rounding: Rounding,
    out: RingVector,
) -> float:
    """Writes a site's words to `out`.

    Args:
        values: What the site gives, and what it started from (None sums the values themselves);
            names and sizes as in `tensors`, any real dtype.
        tensors: The plan.
        factor: The share of the public largest weight that this site weighs, in [0, 1].
        bound: `ring.limit` of the plan.
        rounding: To nearest, or stochastic.
        out: As long as the plan's dimension; words of the plan's ring.

    Returns:
        The largest absolute number that came up. Where it exceeds `bound` the values do not fit,
        and `out` must not be used.

    Raises:
        DataError: A value is NaN or infinite; names the array.
    """
    arrays, reference = values
    start, peak = 0, 0.0
    noise = _Chance(rounding.key)
    for tensor in tensors:
        scale = factor * 2.0**tensor.exponent
        given = None if reference is None else reference[tensor.name]
        for block in _blocks(arrays[tensor.name], given):
            with np.errstate(over="ignore", invalid="ignore"):
                np.multiply(block, scale, out=block)
                noise.round(block)
            high = float(np.max(np.abs(block)))
            if math.isnan(high) or math.isinf(high):
                for array in (arrays[tensor.name], given):
                    _check_finite(array, tensor.name)
                high = math.inf
            peak = max(peak, high)
            if peak > bound:
                return peak
            stop = start + block.size
            signed(out[start:stop], 8 * out.itemsize)[...] = block
            start = stop
    return peak


def mean_arrays(
    vector: RingVector, tensors: Sequence[Tensor], total: float, reference: Arrays | None
) -> dict[str, NDArray[Any]]:
    """The weighted mean of what the sites hold, from the unmasked sum.

    Args:
        vector: Sum of the sites' words.
        tensors: The plan.
        total: Sum of the sites' factors, above 0.
        reference: What they started from; None where the values themselves were summed.

    Returns:
        Arrays of the reference's shapes; floating dtypes stay, all others become float64, as a
        weighted mean of integers is none.
    """
    numbers = signed(vector, 8 * vector.itemsize)
    found: dict[str, NDArray[Any]] = {}
    start = 0
    for tensor in tensors:
        given = None if reference is None else np.asarray(reference[tensor.name])
        is_float = given is not None and given.dtype.kind == "f"
        shape = (tensor.size,) if given is None else given.shape
        result = np.empty(tensor.size, given.dtype if given is not None and is_float else None)
        flat = None if given is None else given.reshape(-1)
        step = 1.0 / (total * 2.0**tensor.exponent)
        for begin in range(0, tensor.size, _BLOCK):
            stop = min(begin + _BLOCK, tensor.size)
            block = numbers[start + begin : start + stop] * step
            result[begin:stop] = block if flat is None else block + flat[begin:stop]
        found[tensor.name] = result.reshape(shape)
        start += tensor.size
    return found


def mean_magnitudes(vector: RingVector, tensors: Sequence[Tensor], total: float) -> list[float]:
    """The largest absolute value of each tensor's mean update: what the next scales follow."""
    numbers = signed(vector, 8 * vector.itemsize)
    found, start = [], 0
    for tensor in tensors:
        piece = numbers[start : start + tensor.size]
        high = max(int(piece.max()), -int(piece.min())) if tensor.size else 0
        found.append(high / (total * 2.0**tensor.exponent))
        start += tensor.size
    return found


def range_of(tensor: Tensor, bound: int) -> float:
    """The largest weighted value of a tensor that fits."""
    return float(bound) / 2.0**tensor.exponent


class _Chance:
    """Rounds blocks in place; stochastic with a key, each number drawn once."""

    def __init__(self, key: bytes | None) -> None:
        self._key = key
        self._used = 0

    def round(self, block: NDArray[np.floating[Any]]) -> None:
        if self._key is None:
            np.rint(block, out=block)
            return
        draws = np.zeros(-(-block.size // 4) * 4, np.uint32)
        apply_streams(draws, [Stream(self._key)], start=self._used)
        self._used += draws.size
        # The fraction is exact in any float, and so is a draw of 24 bits: up with a probability
        # that is the fraction to 2**-24.
        chance = (draws[: block.size] >> np.uint32(8)).astype(block.dtype)
        chance *= block.dtype.type(2.0**-24)
        whole = np.floor(block)
        np.add(whole, chance < block - whole, out=block)


def _blocks(
    array: NDArray[Any], reference: NDArray[Any] | None
) -> Iterator[NDArray[np.floating[Any]]]:
    """Fresh float blocks of what changed: float32 where both are at most that, else float64."""
    flat = np.asarray(array).reshape(-1)
    start = None if reference is None else np.asarray(reference).reshape(-1)
    given = [item.dtype for item in (flat, start) if item is not None]
    narrow = all(np.can_cast(dtype, np.float32) and dtype.kind == "f" for dtype in given)
    dtype: Any = np.float32 if narrow else np.float64
    for begin in range(0, flat.size, _BLOCK):
        with np.errstate(over="ignore", invalid="ignore"):
            block = flat[begin : begin + _BLOCK].astype(dtype)
            if start is not None:
                block -= start[begin : begin + _BLOCK].astype(dtype, copy=False)
        yield block


def _check_finite(array: NDArray[Any] | None, name: str) -> None:
    if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"array {name} holds a NaN or an infinity", hint="check the training data")
