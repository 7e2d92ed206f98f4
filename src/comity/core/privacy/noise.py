"""Discrete Gaussian noise on a grid, from the caller's random bytes.

A Gaussian drawn in floating point leaks through the gaps between its values (Mironov 2012). So
values are put on a grid first, as whole numbers of steps, and whole-numbered noise is added there:

1. Each clipped row is truncated toward zero to the grid. That never lengthens it, so the
   sensitivity stays ``clip_norm / step`` steps, and the sum is exact in int64.
2. A discrete Gaussian of `SIGMA_STEPS` steps is added; the step is chosen so that this is
   ``noise_multiplier * clip_norm``. The truncation of a row costs less than one step, that is
   1/16,384 of the noise's standard deviation.
3. The result is scaled back: post-processing.

Accounting: at an integer, a discrete Gaussian of variance s**2 is, to exp(-2 pi**2 r**2), the
randomised rounding of width r of a continuous Gaussian of variance s**2 - r**2 (Peikert 2010), so
it is post-processing of that Gaussian, and amplification by sampling holds. The sampler uses
s**2 = `SIGMA_STEPS` ** 2 + 9: the Gaussian mechanism's figure is then true, with r = 3, to 1e-77.

Sampling is by table inversion with 63-bit thresholds. A table of standard deviation s1 reaches
ten s1 (tail 2**-71) and is computed in 50 decimal digits; wide noise is x1 + k * x2, whose relative
distance from a discrete Gaussian is below 2 exp(-2 pi**2 s1**2 / (1 + k**2)): 4e-78 at the widest.
Each draw is within 2**-49 of the exact distribution in total variation: over 1e6 draws that adds
2e-9 to delta, over the draws of a linear model nothing that a printed delta could show.

Not constant time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import ROUND_FLOOR, Decimal, localcontext
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.core.privacy.clip import (
    check_clip_norm,
    clipped_rows,
    clipped_update,
    flat_update,
    from_flat_update,
)
from comity.errors import ConfigError, DataError

ByteSource = Callable[[int], bytes]
"""Gives so many random bytes; the operating system's generator outside tests."""

SIGMA_STEPS: Final = 16_384
"""Standard deviation of the noise in grid steps."""

MIN_NOISE: Final = 0.001
MAX_NOISE: Final = 1e6
"""Noise multipliers between which steps and sums are exact in int64 and the noise is noise."""

_SAMPLED_SIGMA: Final = math.sqrt(SIGMA_STEPS**2 + 9)
_TABLE_SIGMA: Final = 256.0
_TAIL: Final = 10
_MIN_SIGMA: Final = 3.0
_MAX_SIGMA: Final = _TABLE_SIGMA * 85
_DIGITS: Final = 50


def discrete_gaussian(sigma: float, size: int, token: ByteSource) -> NDArray[np.int64]:
    """Independent draws of a discrete Gaussian, mean 0, over the integers.

    Args:
        sigma: Standard deviation, from 3 to 21,760.
        size: How many draws.
        token: Random bytes; 8 are used for a draw, 16 where `sigma` exceeds 256.

    Returns:
        Shape (size,), int64.

    Raises:
        ConfigError: `sigma` is outside the range in which the docstring above holds.
    """
    if not _MIN_SIGMA <= sigma <= _MAX_SIGMA:
        raise ConfigError(
            f"sigma is {sigma}", hint=f"choose it between {_MIN_SIGMA:g} and {_MAX_SIGMA:g} steps"
        )
    if sigma <= _TABLE_SIGMA:
        return _from_table(sigma, size, token)
    stretch = math.ceil(math.sqrt((sigma / _TABLE_SIGMA) ** 2 - 1))
    narrow = sigma / math.sqrt(1 + stretch**2)
    return _from_table(narrow, size, token) + stretch * _from_table(narrow, size, token)


def noisy_sum(
    rows: NDArray[np.float64], clip_norm: float, noise_multiplier: float, token: ByteSource
) -> NDArray[np.float64]:
    """The sum of rows, each clipped, with noise for one row more or less.

    Guarantees: the Gaussian mechanism of `noise_multiplier` under ``add_or_remove_one``, whatever
    the rows hold; no rows give pure noise.

    Args:
        rows: Shape (n, d).
        clip_norm: Bound on a row's L2 norm.
        noise_multiplier: Standard deviation of the noise over `clip_norm`.
        token: Random bytes.

    Returns:
        Shape (d,), multiples of the grid's step.
    """
    step = _step(clip_norm, noise_multiplier)
    steps = np.trunc(clipped_rows(rows, clip_norm) / step).astype(np.int64)
    noise = discrete_gaussian(_SAMPLED_SIGMA, rows.shape[1], token)
    total: NDArray[np.float64] = (steps.sum(axis=0) + noise).astype(np.float64)
    return total * step


def noisy_arrays(
    arrays: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]] | None,
    clip_norm: float,
    noise_multiplier: float,
    token: ByteSource,
) -> dict[str, NDArray[Any]]:
    """A whole contribution, clipped and with noise: the Gaussian mechanism for the unit ``site``.

    The change from `reference` is clipped as one vector and noise is added to every element.
    Integer arrays are rounded after the noise, which is post-processing.

    Raises:
        DataError: A value is NaN or infinite, or the noise would not fit an array's dtype.
    """
    step = _step(clip_norm, noise_multiplier)
    update = flat_update(arrays, reference)
    steps = np.trunc(clipped_update(update, clip_norm) / step)
    noise = discrete_gaussian(_SAMPLED_SIGMA, update.size, token)
    noisy: NDArray[np.float64] = (steps + noise).astype(np.float64) * step
    for name, array in arrays.items():
        if array.dtype.kind in "ub":
            raise DataError(
                f"array {name} is of dtype {array.dtype}, which cannot carry noise",
                hint="send it as signed integers or floats, or keep it out of the reply",
            )
    return from_flat_update(noisy, arrays, reference)


def _step(clip_norm: float, noise_multiplier: float) -> float:
    check_clip_norm(clip_norm)
    if not MIN_NOISE <= noise_multiplier <= MAX_NOISE:
        raise ConfigError(
            f"noise_multiplier is {noise_multiplier}",
            hint=f"choose it between {MIN_NOISE:g} and {MAX_NOISE:g}",
        )
    return clip_norm * noise_multiplier / SIGMA_STEPS


def _from_table(sigma: float, size: int, token: ByteSource) -> NDArray[np.int64]:
    thresholds = _thresholds(sigma)
    words = np.frombuffer(token(8 * size), dtype="<u8") >> np.uint64(1)
    reach = len(thresholds) // 2
    return np.searchsorted(thresholds, words, side="right").astype(np.int64) - reach


@lru_cache(maxsize=64)
def _thresholds(sigma: float) -> NDArray[np.uint64]:
    """Cumulative probabilities of -reach..reach in units of 2**-63, the last one left out."""
    reach = math.ceil(_TAIL * sigma)
    with localcontext() as context:
        context.prec = _DIGITS
        scale = -1 / (2 * Decimal(sigma) ** 2)
        half = [(scale * (x * x)).exp() for x in range(reach + 1)]
        weights = half[:0:-1] + half
        total = sum(weights, Decimal(0))
        cumulative, thresholds = Decimal(0), []
        for weight in weights[:-1]:
            cumulative += weight
            thresholds.append(
                int((cumulative / total * 2**63).to_integral_value(rounding=ROUND_FLOOR))
            )
    return np.array(thresholds, dtype=np.uint64)
