"""Plans of training runs, and what of a plan would fit."""

from __future__ import annotations

from collections.abc import Callable

from comity.core.privacy.event import (
    Adjacency,
    Mechanism,
    Plan,
    PrivacyEvent,
    Sampling,
    Spend,
)
from comity.errors import ConfigError


def training_event(sampling_rate: str, noise_multiplier: str, unit: str = "record") -> PrivacyEvent:
    """One noisy sum of a Poisson batch, as `comity.core.privacy.noise.noisy_sum` makes it."""
    return PrivacyEvent(
        Mechanism.DISCRETE_GAUSSIAN,
        noise_multiplier,
        Sampling.POISSON,
        sampling_rate,
        unit,
        Adjacency.ADD_OR_REMOVE_ONE,
    )


def training_plan(
    *,
    rounds: int,
    steps_per_round: int,
    sampling_rate: str,
    noise_multiplier: str,
    unit: str = "record",
) -> Plan:
    """The whole of a run, before it starts: one event for each step of each round.

    Raises:
        ConfigError: A figure is out of range; names it.
    """
    for name, value in (("rounds", rounds), ("steps_per_round", steps_per_round)):
        if value < 1:
            raise ConfigError(f"{name} is {value}", hint=f"set {name} to at least 1")
    event = training_event(sampling_rate, noise_multiplier, unit)
    return Plan((Spend(event, rounds * steps_per_round),))


def largest_that_fits(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest count in 1..`limit` that fits, or 0; `fits` must be monotone."""
    low, high = 0, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
