"""Privacy events as data: what was released, described once, interpreted for ever.

An event says which mechanism ran, on what unit, under which adjacency and sampling. Accountants,
behind a port, turn a multiset of them into a number. Schema versions are never reused, so that a
record written today can be read in ten years. After `dp_event` of dp-accounting, made durable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from comity.errors import ConfigError

SCHEMA_VERSION: Final = 1


class Mechanism(StrEnum):
    """The noise that was added."""

    DISCRETE_GAUSSIAN = "discrete_gaussian"
    GAUSSIAN = "gaussian"
    LAPLACE = "laplace"
    RANDOMISED_RESPONSE = "randomised_response"


_GAUSSIAN: Final = (Decimal("0.001"), Decimal("1e9"))
_EPSILON: Final = (Decimal("1e-9"), Decimal(100))
_SANE: Final = {
    Mechanism.DISCRETE_GAUSSIAN: _GAUSSIAN,
    Mechanism.GAUSSIAN: _GAUSSIAN,
    Mechanism.LAPLACE: _EPSILON,
    Mechanism.RANDOMISED_RESPONSE: _EPSILON,
}
"""Within these every accountant's arithmetic holds; beyond them a figure promises nothing."""

_PARAMETERS: Final = {
    mechanism: "noise multiplier" if sane is _GAUSSIAN else "epsilon"
    for mechanism, sane in _SANE.items()
}
MIN_RATE: Final = Decimal("1e-18")
_DECIMAL: Final = re.compile(r"(?=.{1,40}\Z)(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


class Adjacency(StrEnum):
    """Which data sets count as neighbours."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"
    REPLACE_ONE = "replace_one"


class Sampling(StrEnum):
    """How a batch was drawn."""

    POISSON = "poisson"
    WITHOUT_REPLACEMENT = "without_replacement"
    NONE = "none"


@dataclass(frozen=True, slots=True, order=True)
class PrivacyEvent:
    """One private release.

    Attributes:
        mechanism: The noise.
        parameter: For Gaussians the noise multiplier (standard deviation over sensitivity), from
            0.001 to 1e9; for Laplace and randomised response the epsilon of one release, from 1e-9
            to 100. A decimal string in ASCII digits, so that it is written and read back without
            rounding.
        sampling: How the batch was drawn.
        sampling_rate: Probability (Poisson) or fraction, a decimal string; ``1`` for none.
        unit: What is protected: ``record``, ``person`` or ``site``.
        adjacency: Which data sets are neighbours.
        schema_version: Version of this type.
    """

    mechanism: Mechanism
    parameter: str
    sampling: Sampling = Sampling.NONE
    sampling_rate: str = "1"
    unit: str = "record"
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE_ONE
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        low, high = _SANE[self.mechanism]
        if not low <= _decimal("parameter", self.parameter) <= high:
            raise ConfigError(
                f"parameter is {self.parameter}",
                hint=f"set the {_PARAMETERS[self.mechanism]} of {self.mechanism.value} between "
                f"{low:g} and {high:g}",
            )
        rate = _decimal("sampling_rate", self.sampling_rate)
        if not MIN_RATE <= rate <= 1:
            raise ConfigError(
                f"sampling_rate is {self.sampling_rate}",
                hint=f"set it between {MIN_RATE:g} and 1",
            )
        if self.sampling is Sampling.NONE and rate != 1:
            raise ConfigError("sampling is none, yet sampling_rate is not 1")

    def as_record(self) -> dict[str, str | int]:
        """The event as JSON-ready fields, in a fixed order."""
        return {
            "schema_version": self.schema_version,
            "mechanism": self.mechanism.value,
            "parameter": self.parameter,
            "sampling": self.sampling.value,
            "sampling_rate": self.sampling_rate,
            "unit": self.unit,
            "adjacency": self.adjacency.value,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, object]) -> PrivacyEvent:
        """Reads what `as_record` wrote.

        Raises:
            ConfigError: A field is missing, unknown, or of a version that this release cannot read.
        """
        if record.get("schema_version") != SCHEMA_VERSION:
            raise ConfigError(
                f"privacy event of schema version {record.get('schema_version')!r}",
                hint=f"this release reads version {SCHEMA_VERSION}",
            )
        try:
            return cls(
                mechanism=Mechanism(str(record["mechanism"])),
                parameter=str(record["parameter"]),
                sampling=Sampling(str(record["sampling"])),
                sampling_rate=str(record["sampling_rate"]),
                unit=str(record["unit"]),
                adjacency=Adjacency(str(record["adjacency"])),
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(f"privacy event does not parse: {error}") from error


@dataclass(frozen=True, slots=True)
class Spend:
    """So many equal events."""

    event: PrivacyEvent
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"count is {self.count}", hint="count at least one event")


@dataclass(frozen=True, slots=True)
class Plan:
    """A multiset of events, fixed before any output of theirs is seen.

    Guarantees: equal events are merged and sorted, so equal plans are equal values.
    """

    spends: tuple[Spend, ...]

    @classmethod
    def of(cls, spends: Iterable[Spend]) -> Plan:
        """The plan that holds all of `spends`, merged by event."""
        counts: dict[PrivacyEvent, int] = {}
        for spend in spends:
            counts[spend.event] = counts.get(spend.event, 0) + spend.count
        return cls(tuple(Spend(event, counts[event]) for event in sorted(counts)))

    def __add__(self, other: Plan) -> Plan:
        return Plan.of((*self.spends, *other.spends))


def _decimal(name: str, text: str) -> Decimal:
    if not _DECIMAL.fullmatch(text):
        raise ConfigError(
            f"{name} is {text[:40]!r}", hint="write a decimal number such as 0.5, in digits 0 to 9"
        )
    return Decimal(text)
