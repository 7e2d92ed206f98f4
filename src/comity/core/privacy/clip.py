"""Clipping: bounds what one record, or one site, can change.

Guarantees, each with a test of its name:

- A row's or a contribution's L2 norm is at most `clip_norm` afterwards, also in floating point.
- What is within the bound is unchanged, a zero update too.
- A row with a NaN or an infinity counts for nothing; a contribution with one is refused.
- Adding or removing one record changes a sum of clipped rows by at most `clip_norm` (sensitivity
  under ``add_or_remove_one``); replacing one, by at most twice that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.errors import ConfigError, DataError

_SAFE: Final = 1.0 - 2.0**-40
"""Covers the rounding of norm and product, so that the bound holds in floating point too."""


def check_positive(name: str, value: float) -> None:
    """Checks that a parameter is a finite number above 0.

    Raises:
        ConfigError: It is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}", hint=f"set {name} to a finite number above 0")


def clip_factors(norms: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    """What each row must be multiplied with: 1 within the bound, 0 where the norm is not finite.

    Args:
        norms: L2 norms, shape (n,).
        clip_norm: The bound.

    Returns:
        Factors in [0, 1], shape (n,).
    """
    check_positive("clip_norm", clip_norm)
    finite = np.isfinite(norms)
    safe = np.where(finite, norms, 1.0)
    factors = np.where(safe <= clip_norm, 1.0, clip_norm * _SAFE / np.maximum(safe, clip_norm))
    return np.where(finite, factors, 0.0)


def clipped_rows(rows: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    """Each row of shape (n, d) with its L2 norm bounded; rows that are not finite become zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        factors = clip_factors(np.linalg.norm(rows, axis=1), clip_norm)
    return np.where(factors[:, None] > 0, rows, 0.0) * factors[:, None]


def flat_update(
    arrays: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]] | None
) -> NDArray[np.float64]:
    """All arrays less what they started from, as one float64 vector, in the mapping's order.

    Integer arrays (counters of batch normalisation, say) count as floats.

    Raises:
        DataError: A value is NaN or infinite; names the array.
    """
    parts = []
    for name, array in arrays.items():
        part = array.astype(np.float64).reshape(-1)
        if reference is not None:
            part = part - reference[name].astype(np.float64).reshape(-1)
        if not np.isfinite(part).all():
            raise DataError(f"array {name} holds a NaN or an infinity", hint="check the training")
        parts.append(part)
    return np.concatenate(parts) if parts else np.zeros(0)


def from_flat_update(
    update: NDArray[np.float64],
    arrays: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]] | None,
) -> dict[str, NDArray[Any]]:
    """Arrays of the names, shapes and dtypes of `arrays`, from `flat_update`'s vector.

    Integer arrays are rounded to the nearest integer, after everything else was done to them.
    """
    result: dict[str, NDArray[Any]] = {}
    start = 0
    for name, array in arrays.items():
        part = update[start : start + array.size].reshape(array.shape)
        start += array.size
        if reference is not None:
            part = part + reference[name].astype(np.float64)
        result[name] = (np.rint(part) if array.dtype.kind in "iub" else part).astype(array.dtype)
    return result


def clip_by_global_norm(
    arrays: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]] | None,
    clip_norm: float,
) -> dict[str, NDArray[Any]]:
    """A whole contribution whose change from `reference` has an L2 norm of at most `clip_norm`.

    Raises:
        DataError: A value is NaN or infinite.
    """
    update = flat_update(arrays, reference)
    factor = clip_factors(np.array([np.linalg.norm(update)]), clip_norm)[0]
    return from_flat_update(update * factor, arrays, reference)
