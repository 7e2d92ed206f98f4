"""Poisson batches: each record takes part or not by a draw of its own."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from comity.core.privacy.noise import ByteSource
from comity.errors import ConfigError


def poisson_batch(size: int, rate: str, token: ByteSource) -> NDArray[np.int64]:
    """The indices of the records that take part, each independently with probability `rate`.

    The probability is `rate` rounded down to 64 bits, so never above what is accounted for.

    Args:
        size: Number of records.
        rate: Probability as a decimal string, above 0 and at most 1.
        token: Random bytes; 8 are used for each record.

    Returns:
        Sorted indices, int64; often none.

    Raises:
        ConfigError: `rate` is outside (0, 1].
    """
    probability = Decimal(rate)
    if not 0 < probability <= 1:
        raise ConfigError(f"sampling_rate is {rate}", hint="set it above 0, at most 1")
    threshold = int(probability * 2**64)
    words = np.frombuffer(token(8 * size), dtype="<u8")
    if threshold >= 2**64:
        return np.arange(size, dtype=np.int64)
    return np.flatnonzero(words < np.uint64(threshold)).astype(np.int64)
