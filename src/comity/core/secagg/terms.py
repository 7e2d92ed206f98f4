"""Terms of a secure sum: what a site demands, and how they become a threshold.

With n sites of which c collude with the coordinator, and a threshold

    t >= ceil((n + c + m) / 2)

every sum that a coordinator can open, lying differently to every site, holds at least m honest
sites (proof: docs/secagg.md). So n - t sites may drop out.
"""

from __future__ import annotations

from typing import Protocol

from comity.errors import CohortTooSmall, PolicyRefused


class SumTerms(Protocol):
    """A site's own policy for secure sums, read-only; the coordinator has no say in it."""

    @property
    def min_cohort(self) -> int:
        """The fewest sites of a cohort."""

    @property
    def max_colluders(self) -> int | None:
        """Sites that may collude; None for a quarter of the roster's others, however few sum."""

    @property
    def min_honest(self) -> int | None:
        """The fewest honest sites in what can be learned; None for 2 up to six sites, then 3."""

    @property
    def rings(self) -> frozenset[int]:
        """Rings allowed, in bits."""

    @property
    def max_attempts(self) -> int:
        """The most attempts of one round."""

    @property
    def max_skipped_rounds(self) -> int:
        """The most rounds that a site steps over which it took no part in."""

    @property
    def max_unfits(self) -> int:
        """How often in one run the site says that a plan does not fit, before it leaves the run."""

    @property
    def smallest_range(self) -> float:
        """The smallest range of values that a plan may ask for."""

    @property
    def weight_key(self) -> str:
        """The metric that weighs a contribution."""

    @property
    def max_weight(self) -> int:
        """The largest weight that a plan may ask for."""

    @property
    def hybrid(self) -> bool:
        """Whether keys must be hybrid, with ML-KEM beside X25519."""


def colluders(terms: SumTerms, members: int) -> int:
    """How many sites may collude, of a roster of `members`: the coordinator picks the cohort."""
    return (members - 1) // 4 if terms.max_colluders is None else terms.max_colluders


def honest(terms: SumTerms, sites: int) -> int:
    """How many honest sites a sum must hold."""
    return (2 if sites <= 6 else 3) if terms.min_honest is None else terms.min_honest  # noqa: PLR2004 - docs/secagg.md, defaults


def least_threshold(sites: int, colluding: int, in_sum: int) -> int:
    """The smallest threshold under which every sum holds `in_sum` honest sites."""
    return -(-(sites + colluding + in_sum) // 2)


def check_threshold(terms: SumTerms, members: int, sites: int, threshold: int) -> None:
    """Checks a cohort's size and threshold against a site's terms.

    Args:
        terms: The site's.
        members: Sites of the roster.
        sites: Sites of the cohort.
        threshold: How many must answer the reveal.

    Raises:
        CohortTooSmall: Fewer sites than the terms demand, or than any threshold can protect.
        PolicyRefused: The threshold is below the bound, or above the cohort.
    """
    colluding = colluders(terms, members)
    least = least_threshold(sites, colluding, honest(terms, sites))
    if sites < terms.min_cohort or least > sites:
        raise CohortTooSmall(
            f"a cohort of {sites} sites; this site sums among {terms.min_cohort} or more, of which "
            f"{colluding} may collude and {honest(terms, sites)} must be honest",
            hint="let more sites take part",
        )
    if not least <= threshold <= sites:
        raise PolicyRefused(
            f"threshold {threshold} of {sites} sites; this site demands {least} to {sites}",
            hint=f"set the threshold to {least} or more",
        )
