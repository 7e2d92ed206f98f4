"""Clipping: bounds what one record, or one site, can change.

Guarantees, each with a test of its name:

- A row's or a contribution's L2 norm is at most `clip_norm` afterwards, in exact arithmetic, at any
  scale: norms are taken of rows divided by their largest element, so that no square underflows or
  overflows.
- What is within the bound, less 2**-40 of it for rounding, is unchanged, a zero update too.
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

MIN_CLIP_NORM: Final = 1e-100
MAX_CLIP_NORM: Final = 1e100
"""Between these neither the bound nor the grid of the noise comes near the ends of floats."""

_SAFE: Final = 1.0 - 2.0**-40
"""Covers the rounding of norm and product, so that the bound holds exactly."""


def check_positive(name: str, value: float) -> None:
    """Checks that a parameter is a finite number above 0.

    Raises:
        ConfigError: It is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value}", hint=f"set {name} to a finite number above 0")


def check_clip_norm(clip_norm: float) -> None:
    """Checks that a bound on norms is one that floating point can hold.

    Raises:
        ConfigError: It is not between `MIN_CLIP_NORM` and `MAX_CLIP_NORM`.
    """
    check_positive("clip_norm", clip_norm)
    if not MIN_CLIP_NORM <= clip_norm <= MAX_CLIP_NORM:
        raise ConfigError(
            f"clip_norm is {clip_norm}",
            hint=f"choose it between {MIN_CLIP_NORM:g} and {MAX_CLIP_NORM:g}; 1 is usual",
        )


def clipped_rows(rows: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    """Each row of shape (n, d) with its L2 norm bounded; rows that are not finite become zero.

    What becomes of a row depends on that row alone, to the last bit.
    """
    check_clip_norm(clip_norm)
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    finite = np.isfinite(largest)[:, None]
    divisor = np.where(finite[:, 0] & (largest > 0), largest, 1.0)
    unit = np.where(finite, rows, 0.0) / divisor[:, None]
    length = np.sqrt((unit * unit).sum(axis=1))  # 0, or from 1 to the root of d
    with np.errstate(over="ignore", invalid="ignore"):
        within = finite & (largest * length <= clip_norm * _SAFE)[:, None]
    bounded = unit * (clip_norm * _SAFE / np.maximum(length, 1.0))[:, None]
    return np.where(within, rows, bounded)


def clipped_update(update: NDArray[np.float64], clip_norm: float) -> NDArray[np.float64]:
    """One vector of shape (d,) with its L2 norm bounded."""
    clipped: NDArray[np.float64] = clipped_rows(update[None, :], clip_norm)[0]
    return clipped


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
    return from_flat_update(clipped_update(update, clip_norm), arrays, reference)
