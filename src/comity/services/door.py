"""What stands around a gate: what an engine needs of it, what it works through, its bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from comity.core.policy.rule import SumPolicy
from comity.errors import Malformed, PolicyRefused
from comity.ids import FederationName, SiteName
from comity.ports import Accountant, Clock, Exchange, HeadKeeper, Journal, KeyStore, Rng
from comity.release import Released, Withheld
from comity.services.books import Books, SumMark
from comity.services.parts import Part

Mask: TypeAlias = Callable[[Sequence[Part]], Part]
"""Makes the message of a secure sum that stands for protected parts; run before the commit."""


class Door(Protocol):
    """What an engine needs of a site: a way out."""

    def release(
        self, exchange: Exchange, parts: Sequence[Part], *, note: str = ""
    ) -> tuple[Released[Any] | Withheld, ...]:
        """Decides on each part and returns what may leave, in the order given."""

    def release_sum(
        self, exchange: Exchange, parts: Sequence[Part], mask: Mask
    ) -> tuple[Released[Any], tuple[Withheld, ...]]:
        """Decides on each part; what may be summed leaves as `mask` makes it, the rest stays."""

    def sum_mark(self, run: str) -> SumMark:
        """How far the site came in the secure sums of `run`, by what lasts."""


@dataclass(frozen=True, slots=True)
class SiteIdentity:
    """Who this site is."""

    federation: FederationName
    site: SiteName


@dataclass(frozen=True, slots=True)
class GateParts:
    """The ports that a gate works through."""

    journal: Journal
    heads: HeadKeeper
    keys: KeyStore
    accountant: Accountant
    clock: Clock
    rng: Rng


@dataclass(frozen=True, slots=True)
class GateLimits:
    """Bounds on what a gate holds.

    Attributes:
        replay_window: How many of the last exchanges are remembered as answered; an older one that
            comes again costs again.
        max_parts: Parts of one exchange.
        max_note_bytes: Text that a person typed for one exchange or plan.
        max_name_chars: Each name and id of an exchange, which a peer chose.
    """

    replay_window: int = 100_000
    max_parts: int = 10_000
    max_note_bytes: int = 4_096
    max_name_chars: int = 256


def check_names(exchange: Exchange, limits: GateLimits) -> None:
    """Checks the names and ids of an exchange, which a peer chose.

    Raises:
        Malformed: One is too long.
    """
    for name in ("exchange", "asker", "message_type", "run", "dataset"):
        if len(getattr(exchange, name)) > limits.max_name_chars:
            raise Malformed(
                f"{name} of an exchange is longer than {limits.max_name_chars} characters"
            )


def check_count(parts: Sequence[Part], limits: GateLimits) -> None:
    """Checks how many parts a reply has.

    Raises:
        PolicyRefused: Too many.
    """
    if len(parts) > limits.max_parts:
        raise PolicyRefused(
            f"a reply of {len(parts)} parts; at most {limits.max_parts} may leave at once"
        )


def check_sums(terms: SumPolicy, books: Books, run: str, day: int) -> None:
    """Checks how many secure sums a site took part in.

    Raises:
        PolicyRefused: As many as its policy allows in a run, or in a day.
    """
    if books.sum_mark(run).sums >= terms.sums_per_run:
        raise PolicyRefused(f"run {run} had its {terms.sums_per_run} sums here")
    if books.sums(day) >= terms.sums_per_day:
        raise PolicyRefused(f"this site had its {terms.sums_per_day} sums of the day")
