"""The weighted mean of contributions, the same bits for the same order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comity.errors import DataError

Arrays = Mapping[str, NDArray[Any]]


def weighted_mean(contributions: Sequence[tuple[Arrays, float]]) -> dict[str, NDArray[Any]]:
    """The mean of the arrays by weight, in the dtypes of the first contribution.

    Sums in float64, in the order given: who sorts by site gets the same bits in every run. Integer
    arrays come back rounded to the nearest integer.

    Args:
        contributions: Arrays by name, and a weight of at least 0, for each site.

    Raises:
        DataError: There is none, names or shapes differ, a number is not finite, or no weight is
            above 0; names the contribution by its position.
    """
    if not contributions:
        raise DataError("there is no contribution to average")
    first = contributions[0][0]
    for position, (arrays, weight) in enumerate(contributions):
        _check(position, arrays, weight, first)
    total = math.fsum(weight for _, weight in contributions)
    if total <= 0:
        raise DataError("no contribution has a weight above 0")
    return {name: _mean(name, contributions, total) for name in first}


def _mean(name: str, contributions: Sequence[tuple[Arrays, float]], total: float) -> NDArray[Any]:
    dtype = contributions[0][0][name].dtype
    result = np.zeros(contributions[0][0][name].shape)
    for arrays, weight in contributions:
        result += arrays[name].astype(np.float64) * (weight / total)
    return (np.rint(result) if dtype.kind in "iub" else result).astype(dtype)


def _check(position: int, arrays: Arrays, weight: float, first: Arrays) -> None:
    if not (math.isfinite(weight) and weight >= 0):
        raise DataError(f"contribution {position} has weight {weight}")
    if list(arrays) != list(first):
        raise DataError(f"contribution {position} names other arrays than contribution 0")
    for name, array in arrays.items():
        if array.shape != first[name].shape:
            raise DataError(
                f"contribution {position}: {name} has shape {array.shape}, not {first[name].shape}"
            )
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise DataError(f"contribution {position}: {name} holds a NaN or an infinity")
