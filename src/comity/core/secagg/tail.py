"""The masked tail of an upload: what must be summed besides the vector, exactly.

Words of 64 bits: the weight, whether it was cut to the largest, whether the update was clipped,
four checksums of the vector, then four limbs a metric. A metric times the site's share of the
largest weight is a whole number of 2**-64, offset so that it is positive, and cut into limbs of 32
bits: sums of them stay below 2**64 for four thousand million sites, so nothing is lost and nothing
wraps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from comity.core.secagg.mask import RingVector
from comity.errors import DataError

CHECKS: Final = 4
LIMBS: Final = 4
FIXED_WORDS: Final = 3 + CHECKS
_LIMB_BITS: Final = 32
_FRACTION_BITS: Final = 64
_OFFSET: Final = 2**126
_MAX_METRIC: Final = 2.0**62


@dataclass(frozen=True, slots=True, repr=False)
class Tail:
    """A tail's content, of one site or summed over several.

    Attributes:
        weight_steps: Sum of weights, in steps of `quantize.WEIGHT_STEPS`.
        capped: How many weights were cut to the largest.
        clipped: How many updates were clipped.
        checks: Checksums of the vector, to be compared modulo the ring.
        metrics: Weighted metrics, whole numbers of 2**-64.
    """

    weight_steps: int
    capped: int
    clipped: int
    checks: tuple[int, ...]
    metrics: tuple[int, ...]


def tail_words(metric_slots: int) -> int:
    """Words of a tail with room for so many metrics."""
    return FIXED_WORDS + LIMBS * metric_slots


def checksums(vector: RingVector) -> tuple[int, ...]:
    """Sums of the quarters of a vector, modulo its ring; linear, so they add up like the vector.

    They find faults, not malice: a vector that was unmasked with a wrong mask, which is uniform,
    passes with probability 2**-(bits * quarters), of which there are four from four elements on.
    """
    modulus = 2 ** (8 * vector.itemsize)
    quarter = -(-vector.size // CHECKS)
    pieces = (vector[start * quarter : (start + 1) * quarter] for start in range(CHECKS))
    return tuple(int(piece.sum(dtype=np.uint64)) % modulus for piece in pieces)


def weighted_metric(value: float, steps: int, max_steps: int) -> int:
    """A metric times its site's share of the largest weight, in units of 2**-64, rounded down.

    Raises:
        DataError: It is NaN, infinite or at least 2**62.
    """
    if not -_MAX_METRIC < value < _MAX_METRIC:
        raise DataError("a metric is not finite, or too large", hint="keep metrics below 4e18")
    exact = Fraction(value) * 2**_FRACTION_BITS
    whole: int = math.floor(exact * steps / max_steps)
    return whole


def encoded(tail: Tail, metric_slots: int) -> NDArray[np.uint64]:
    """The words of one site's tail; unused metric slots hold zero."""
    words = np.zeros(tail_words(metric_slots), np.uint64)
    words[:FIXED_WORDS] = (tail.weight_steps, tail.capped, tail.clipped, *tail.checks)
    for place, metric in enumerate(tail.metrics):
        start = FIXED_WORDS + LIMBS * place
        words[start : start + LIMBS] = _limbs(metric + _OFFSET)
    return words


def decoded(words: NDArray[np.uint64], metrics: int, sites: int) -> Tail:
    """The content of a summed tail.

    Args:
        words: The sum, unmasked.
        metrics: How many metrics were in it.
        sites: How many tails were summed.
    """
    numbers = [int(word) for word in words]
    found = []
    for place in range(metrics):
        start = FIXED_WORDS + LIMBS * place
        limbs = numbers[start : start + LIMBS]
        value = sum(limb << (_LIMB_BITS * power) for power, limb in enumerate(limbs))
        found.append(value - sites * _OFFSET)
    weight_steps, capped, clipped = numbers[:3]
    return Tail(weight_steps, capped, clipped, tuple(numbers[3:FIXED_WORDS]), tuple(found))


def mean_metrics(tail: Tail, max_steps: int) -> list[float]:
    """The weighted mean of each metric, from a summed tail whose weight is above 0."""
    shares = Fraction(tail.weight_steps, max_steps)
    return [float(Fraction(total, 2**_FRACTION_BITS) / shares) for total in tail.metrics]


def is_possible(words: NDArray[np.uint64], sites: int, max_steps: int) -> bool:
    """Whether a summed tail is one that `sites` honest sites could have."""
    numbers = [int(word) for word in words]
    limbs = all(number < sites << _LIMB_BITS for number in numbers[FIXED_WORDS:])
    return limbs and numbers[0] <= sites * max_steps and max(numbers[1:3]) <= sites


def checks_hold(tail: Tail, sums: Sequence[int], bits: int) -> bool:
    """Whether the checksums of a summed vector are the sums of the sites' checksums."""
    return [check % 2**bits for check in tail.checks] == list(sums)


def _limbs(number: int) -> list[int]:
    return [(number >> (_LIMB_BITS * power)) % 2**_LIMB_BITS for power in range(LIMBS)]
