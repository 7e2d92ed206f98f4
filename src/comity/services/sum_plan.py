"""Plans of secure sums: thresholds, scales and largest weights, from what is public already."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.core.policy.rule import SumPolicy
from comity.core.secagg.mask import RingVector
from comity.core.secagg.messages import RoundSpec
from comity.core.secagg.quantize import exponents, mean_magnitudes
from comity.core.secagg.ring import limit, margin_bits
from comity.core.secagg.sum_state import SumResult
from comity.core.secagg.tail import tail_words
from comity.core.secagg.terms import colluders, honest, least_threshold
from comity.errors import CohortTooSmall

COARSER_BITS: Final = {16: 1, 32: 4}
"""By how much an attempt is coarser than one before that did not fit."""
_HEADROOM: Final = {16: 2.0, 32: 16.0}
_WEIGHT_ROOM: Final = 4.0
_MAX_WEIGHT_BITS: Final = 32


@dataclass(frozen=True, slots=True)
class SumSettings:
    """What a run asks for; each site's own policy has the last word.

    Attributes:
        ring_bits: 32, or 16 for half the bytes and a coarser mean.
        hybrid: Keys with ML-KEM-768 beside X25519.
        terms: What thresholds are made for; a site that demands more refuses.
        metric_slots: Room for metrics in a sum.
        first_max_weight: The largest weight of a run's first sum, a power of two; later ones
            follow the mean.
        clip_norm: Bound on an update's L2 norm; 0 for none.
        strict: Every site must answer the reveal: no drop-out is tolerated.
    """

    ring_bits: int = 32
    hybrid: bool = False
    terms: SumPolicy = field(default_factory=SumPolicy)
    metric_slots: int = 16
    first_max_weight: int = 2**16
    clip_norm: float = 0.0
    strict: bool = False

    def threshold(self, members: int, sites: int) -> int:
        """How many of a cohort must answer the reveal.

        Raises:
            CohortTooSmall: No threshold protects a cohort of that size.
        """
        colluding, in_sum = colluders(self.terms, members), honest(self.terms, sites)
        least = least_threshold(sites, colluding, in_sum)
        if sites < self.terms.min_cohort or least > sites:
            raise CohortTooSmall(
                f"{sites} sites; a secure sum takes {self.terms.min_cohort} or more, of which "
                f"{colluding} may collude and {in_sum} must be honest",
                hint="let more sites take part in each round",
            )
        return sites if self.strict else least


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a cohort's secure sums promise and cost, before any runs.

    Attributes:
        sites: Of the cohort.
        threshold: How many must answer the reveal.
        tolerated: How many may drop out.
        colluders: How many may collude with the coordinator.
        honest: The fewest honest sites in anything that can be learned.
        upload_bytes: Of one site and sum.
        plain_bytes: The same in float32, unprotected.
        margin_bits: Bits left for a tensor's largest value, after cohort and headroom.
        smallest: The smallest cohort with these terms.
    """

    sites: int
    threshold: int
    tolerated: int
    colluders: int
    honest: int
    upload_bytes: int
    plain_bytes: int
    margin_bits: float
    smallest: int


def outlook(settings: SumSettings, sites: int, parameters: int) -> Outlook:
    """What to expect of sums over `sites` sites of `parameters` numbers each.

    Raises:
        CohortTooSmall: No threshold protects such a cohort.
        PolicyRefused: The ring has no room for it.
    """
    threshold = settings.threshold(sites, sites)
    terms = settings.terms
    vector = parameters * settings.ring_bits // 8
    rows = sites * (48 + 32 + 32 + 12)
    smallest = next(
        size for size in range(terms.min_cohort, sites + 1) if _fits(settings, sites, size)
    )
    return Outlook(
        sites=sites,
        threshold=threshold,
        tolerated=sites - threshold,
        colluders=colluders(terms, sites),
        honest=honest(terms, sites),
        upload_bytes=vector + rows + 8 * tail_words(settings.metric_slots) + 100,
        plain_bytes=4 * parameters,
        margin_bits=margin_bits(settings.ring_bits, sites, _HEADROOM[settings.ring_bits]),
        smallest=smallest,
    )


def _fits(settings: SumSettings, members: int, sites: int) -> bool:
    try:
        settings.threshold(members, sites)
    except CohortTooSmall:
        return False
    return True


@dataclass(slots=True)
class Scales:
    """What the plans of one kind of sum follow: it is public, from the model and the last sums.

    Attributes:
        magnitudes: The largest value expected of each tensor.
        coarser: Powers of two by which earlier plans turned out too fine.
        max_weight: The largest weight.
        most_weight: What it never passes, as sites would refuse a plan with more.
        names: The app's words for what is summed, once they are known.
    """

    magnitudes: list[float]
    max_weight: int
    coarser: int = 0
    names: tuple[str, ...] = ()
    most_weight: int = 1 << _MAX_WEIGHT_BITS

    def exponents(self, ring_bits: int, sites: int) -> list[int]:
        """The power of two of each tensor."""
        headroom = _HEADROOM[ring_bits] * 2.0**self.coarser
        return exponents(self.magnitudes, limit(ring_bits, sites), headroom)

    def learn(self, spec: RoundSpec, total: RingVector, result: SumResult) -> None:
        """Follows a sum that was opened."""
        self.names = result.names
        found = mean_magnitudes(total, spec.plan(), result.share)
        if any(found):
            self.magnitudes = [float(value) for value in found]
        weight = _weight_for(result.weight / len(result.survivors))
        self.max_weight = min(weight, self.most_weight)

    def widen(self) -> None:
        """Makes room for weights that were cut."""
        self.max_weight = min(self.max_weight << 8, self.most_weight)


def first_scales(magnitudes: Sequence[float], settings: SumSettings) -> Scales:
    """What the first plan of a kind follows: the model's own magnitudes."""
    most = 1 << min(settings.terms.max_weight.bit_length() - 1, _MAX_WEIGHT_BITS)
    weight = min(settings.first_max_weight, most)
    return Scales([float(value) for value in magnitudes], weight, most_weight=most)


def shifted(exponents_before: Sequence[int], ring_bits: int) -> list[int]:
    """Exponents one step coarser."""
    return [exponent - COARSER_BITS[ring_bits] for exponent in exponents_before]


def _weight_for(mean: float) -> int:
    bits = math.ceil(math.log2(max(mean * _WEIGHT_ROOM, 1.0)))
    return int(1 << min(bits, _MAX_WEIGHT_BITS))
