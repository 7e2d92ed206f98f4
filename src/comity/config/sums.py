"""`[train.secure-sums]` of a site file: what a site demands of a secure sum."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from comity.config.section import Section
from comity.core.policy.rule import SumPolicy


class SecureSumsSection(Section):
    """`[train.secure-sums]`: what this site demands of a secure sum, whoever asks."""

    min_cohort: int = Field(
        default=3, ge=3, le=1024, description="The fewest sites that it sums among."
    )
    max_colluders: int | None = Field(
        default=None,
        ge=0,
        le=1024,
        description="Sites that may collude with the coordinator; a quarter of the roster's others "
        "by default.",
    )
    min_honest: int | None = Field(
        default=None,
        ge=2,
        le=1024,
        description="The fewest honest sites in anything that can be learned; 2 up to six sites, "
        "then 3, by default.",
    )
    rings: Annotated[frozenset[Literal[16, 32]], Strict(strict=False)] = Field(
        default=frozenset({16, 32}), min_length=1, description="Rings allowed, in bits."
    )
    max_attempts: int = Field(default=5, ge=1, le=100, description="The most attempts of a round.")
    max_skipped_rounds: int = Field(
        default=1_000, ge=0, le=10**5, description="The most rounds missed between two taken."
    )
    max_unfits: int = Field(
        default=8,
        ge=1,
        le=10**6,
        description="How often in a run it says that a plan is too fine, before it leaves the run.",
    )
    smallest_range: float = Field(
        default=2.0**-10, gt=0, description="The smallest range of values that a plan may ask for."
    )
    weight_key: str = Field(
        default="num-examples", min_length=1, description="The metric that weighs a contribution."
    )
    max_weight: int = Field(
        default=2**32, ge=1, le=2**40, description="The largest weight that a plan may ask for."
    )
    hybrid: bool = Field(
        default=False, description="Demand ML-KEM-768 keys beside X25519, against later decryption."
    )
    sums_per_run: int = Field(default=10_000, ge=1, le=10**9, description="The most sums of a run.")
    sums_per_day: int = Field(
        default=100_000, ge=1, le=10**9, description="The most sums of a day."
    )

    def policy(self) -> SumPolicy:
        """The value that the gate and the protocol decide by."""
        return SumPolicy(**self.model_dump())
