"""Where one attempt of a secure sum stands at the coordinator, and what may come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, Final

from comity.core.secagg.messages import Reveal, RoundSpec, Upload

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Phase(IntEnum):
    """Where an attempt stands."""

    COLLECTING = 0
    REVEALING = 1


class Cause(StrEnum):
    """Why an attempt is void."""

    UNFIT = "the plan's range was too small for a contribution"
    DISAGREE = "sites were told of different models, cohorts or plans, or sum other names"
    TOO_FEW = "too few sites uploaded"
    COMPLAINTS = "a share did not open"
    MIXED = "sites dropped out before their upload, and others before their reveal"
    TOO_FEW_REVEALS = "too few sites answered the reveal"
    DEALER = "a site shared another secret than it committed to"
    CHECKSUM = "the sum does not match its checksum"
    CAPPED = "weights were above the largest of the plan"
    NO_WEIGHT = "no contribution has a weight above 0"


@dataclass(frozen=True, slots=True)
class Void:
    """An attempt that gives no sum; nothing of it can be learned.

    Attributes:
        cause: Why.
        sites: Who is named for it; leaving them out lets the next attempt go on. It is no proof of
            fault where sites contradict each other.
    """

    cause: Cause
    sites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class SumState:
    """Where one attempt stands at the coordinator.

    Attributes:
        spec: The plan.
        binding: Digest of the epoch's announcements.
        received: Digest of the message that every site was sent.
        phase: What may come next.
        uploads: By site.
        conflicts: Pairs of sites that committed to different seeds of their pair.
        unfit: Sites that said the plan does not fit.
        survivors: Whose uploads are summed, sorted; empty while collecting.
        reveals: By site.
        complaints: The dealer whose share did not open, by who says so.
        body: The encoded plan.
    """

    spec: RoundSpec
    binding: bytes
    received: bytes
    phase: Phase = Phase.COLLECTING
    uploads: Mapping[str, Upload] = field(default_factory=lambda: _NOTHING)
    conflicts: tuple[tuple[str, str], ...] = ()
    unfit: frozenset[str] = frozenset()
    survivors: tuple[str, ...] = ()
    reveals: Mapping[str, Reveal] = field(default_factory=lambda: _NOTHING)
    complaints: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    body: bytes = b""

    @property
    def dropped(self) -> tuple[str, ...]:
        """The sites of the cohort whose uploads are not summed."""
        return tuple(name for name in self.spec.cohort if name not in self.survivors)

    @property
    def context(self) -> bytes:
        """What the survivors uploaded for: the same, or the attempt were void."""
        return self.uploads[self.survivors[0]].context


@dataclass(frozen=True, slots=True)
class SumResult:
    """A sum that was opened, and nothing else.

    Attributes:
        weight: Sum of the weights.
        share: Sum of the sites' shares of the largest weight: what a mean divides by.
        metrics: The weighted mean of each metric.
        names: What was summed, in the app's words.
        capped: How many weights were cut to the largest.
        clipped: How many updates were clipped.
        survivors: Whose contributions are in it.
        dropped: Who of the cohort is not.
    """

    weight: float
    share: float
    metrics: tuple[float, ...]
    names: tuple[str, ...]
    capped: int
    clipped: int
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
