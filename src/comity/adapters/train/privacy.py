"""How a trainer spends: the settings of record-level DP-SGD (Abadi et al. 2016), as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from comity.core.privacy.clip import check_clip_norm
from comity.core.privacy.noise import noisy_sum
from comity.core.privacy.plan import training_event
from comity.core.privacy.sampling import poisson_batch
from comity.errors import ConfigError
from comity.ports import Rng

MAX_RECORDS: Final = 10**12


@dataclass(frozen=True, slots=True)
class DpSgd:
    """Clipping, sampling and noise of each step; figures that are accounted for are text.

    Attributes:
        clip_norm: Bound on one record's gradient.
        noise_multiplier: Noise's standard deviation over `clip_norm`, a decimal string.
        sampling_rate: Probability that a record is in a step's batch, a decimal string.
        expected_records: A public estimate of the site's records: steps divide by
            ``sampling_rate * expected_records``, never by the batch that came.
    """

    clip_norm: float
    noise_multiplier: str
    sampling_rate: str
    expected_records: int

    def __post_init__(self) -> None:
        training_event(self.sampling_rate, self.noise_multiplier)
        check_clip_norm(self.clip_norm)
        if not 1 <= self.expected_records <= MAX_RECORDS:
            raise ConfigError(
                f"expected_records is {self.expected_records}",
                hint=f"estimate from 1 to {MAX_RECORDS:,} records",
            )

    def batch(self, records: int, rng: Rng) -> NDArray[np.int64]:
        """The records of one step."""
        return poisson_batch(records, self.sampling_rate, rng.token)

    def mean_gradient(self, rows: NDArray[np.float64], rng: Rng) -> NDArray[np.float64]:
        """The noisy sum of per-record gradients (n, d) over the expected batch; (d,)."""
        total = noisy_sum(rows, self.clip_norm, float(self.noise_multiplier), rng.token)
        return total / (float(self.sampling_rate) * self.expected_records)
