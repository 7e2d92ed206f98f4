"""What a run needs around its engine: plans reserved everywhere, honest comparisons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from comity.core.aggregate.mean import weighted_mean
from comity.core.privacy.event import Plan
from comity.errors import ComityError
from comity.ids import DatasetName, ReservationId, SiteName
from comity.ports import Arrays, Metrics, Rng, Table, Trainer


class Reserver(Protocol):
    """What a gate offers to a run that is being planned."""

    def reserve(self, dataset: DatasetName, plan: Plan, *, purpose: str) -> ReservationId:
        """Reserves a whole plan, or refuses."""

    def free(self, reservation: ReservationId) -> None:
        """Gives a reservation back of which nothing left."""


@contextmanager
def reserved_everywhere(
    gates: Mapping[SiteName, Reserver], dataset: DatasetName, plan: Plan, *, purpose: str
) -> Iterator[Mapping[SiteName, ReservationId]]:
    """Holds a run's whole plan at each site while it runs: at all of them, or at none.

    A run that fails, or is interrupted, gives its reservations back at each site that nothing of
    them left; what left stays spent.

    Raises:
        RefusedError: The first site's refusal.
        UnavailableError: A journal cannot be written.
    """
    reserved: dict[SiteName, ReservationId] = {}
    try:
        for site, gate in gates.items():
            reserved[site] = gate.reserve(dataset, plan, purpose=purpose)
        yield reserved
    except BaseException:
        for site, reservation in reserved.items():
            # Of what left the gate frees nothing; and the run's own error is the one to tell.
            with suppress(ComityError):
                gates[site].free(reservation)
        raise


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return math.fsum(self.values) / len(self.values)

    @property
    def deviation(self) -> float:
        """The sample standard deviation; 0 for a single seed."""
        if len(self.values) < 2:  # noqa: PLR2004 - a deviation needs two
            return 0.0
        squares = math.fsum((value - self.mean) ** 2 for value in self.values)
        return math.sqrt(squares / (len(self.values) - 1))

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.deviation:.3f}"


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """How good one way of training is, on the same held-back records as the others.

    Attributes:
        name: A site's name, ``federated`` or ``pooled``.
        epsilon: What one record's owner lost; None where there was no protection.
        accuracy: Over the seeds.
        auc: Over the seeds.
    """

    name: str
    epsilon: float | None
    accuracy: Spread
    auc: Spread


def rehearse(trainer: Trainer, tables: Sequence[Table], rounds: int, rng: Rng) -> Arrays:
    """Trains in this process, over tables that are all the caller's own: no site, no gate.

    The same trainer and the same mean as in a federation; for one table it is training alone.
    """
    arrays = trainer.initial()
    for _ in range(rounds):
        contributions = [trainer.fit(arrays, table, rng) for table in tables]
        arrays = weighted_mean([(one.arrays, one.weight) for one in contributions])
    return arrays


def comparison_row(name: str, epsilon: float | None, scores: Sequence[Metrics]) -> ComparisonRow:
    """A row from the scores of each seed."""
    return ComparisonRow(
        name,
        epsilon,
        Spread(tuple(score["accuracy"] for score in scores)),
        Spread(tuple(score["auc"] for score in scores)),
    )


Progress = Callable[[str, int, int], None]
"""Told of a step: what is done, how many are, of how many."""
