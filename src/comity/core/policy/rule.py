"""A site's policy as values: deny by default, protection on unless written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from comity.errors import ConfigError
from comity.ids import AppDigest, CollectionName, DatasetName

MAX_FILTER_ORDER: Final = 1024
PROTECTED: Final = frozenset({"train", "evaluate"})
"""Categories of messages whose replies may be summed, and by default leave no other way."""


def category_of(message_type: str) -> str:
    """The category of a message type: ``train`` of ``train.warm-up``."""
    return message_type.split(".", 1)[0]


class Rule(StrEnum):
    """What may become of one part of an app's reply."""

    SUM = "sum"
    """Leaves only inside a secure sum."""
    PLAIN = "plain"
    """Leaves as it is, after what else the policy says (clip, noise)."""
    WITHHOLD = "withhold"
    """Stays."""


class PartKind(StrEnum):
    """What a part of a reply is; one policy rule stands for each."""

    ARRAYS = "arrays"
    METRICS = "metrics"
    CONFIG = "config"
    ERROR = "error"
    SCORES = "scores"
    PASSAGE = "passage"
    COUNTS = "counts"
    PROTOCOL = "protocol"
    """A message of a secure sum: keys, a masked vector, shares; made by the site, not by an app."""


class ReleaseLevel(StrEnum):
    """How much of a collection may leave, from nothing to whole passages."""

    NOTHING = "nothing"
    COUNTS = "counts"
    ANSWER_ONLY = "answer_only"
    SENTENCES = "sentences"
    PASSAGES = "passages"


class Unit(StrEnum):
    """What one epsilon protects."""

    RECORD = "record"
    PERSON = "person"
    SITE = "site"


@dataclass(frozen=True, slots=True)
class SiteNoise:
    """The gate's own protection of a whole contribution, for apps that a site does not trust.

    Attributes:
        clip_norm: Bound on the L2 norm of the update, over all arrays together.
        noise_multiplier: Standard deviation of the noise over `clip_norm`.
    """

    clip_norm: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        for name, low, high in (("clip_norm", 1e-100, 1e100), ("noise_multiplier", 0.001, 1e6)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    f"{name} is {value}", hint=f"set {name} between {low:g} and {high:g}"
                )


@dataclass(frozen=True, slots=True)
class Budget:
    """The privacy budget of one data set.

    Attributes:
        epsilon: Total epsilon, over all runs and statistics.
        delta: Total delta; choose it below one over the number of records.
        unit: What is protected.
        filter_order: The Renyi order, fixed beforehand, of the filter that admits plans chosen
            after outputs (Feldman and Zrnic 2021); None takes `usual_filter_order`.
    """

    epsilon: float
    delta: float
    unit: Unit = Unit.RECORD
    filter_order: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ConfigError(f"epsilon is {self.epsilon}", hint="set epsilon above 0, at most 10")
        if not 0 < self.delta < 1:
            raise ConfigError(f"delta is {self.delta}", hint="set delta below one over the records")
        order = self.filter_order
        if order is not None and not (math.isfinite(order) and order > 1):
            raise ConfigError(
                f"filter_order is {order}", hint="set filter_order above 1, such as 8"
            )

    @property
    def order(self) -> float:
        """The filter's order: the one that is set, else the usual one."""
        if self.filter_order is not None:
            return self.filter_order
        return usual_filter_order(self.epsilon, self.delta)


def usual_filter_order(epsilon: float, delta: float) -> float:
    """The order of a filter whose owner sets none, from the budget alone, never from data.

    Bounding Renyi divergence of order a by r gives epsilon r + c(a), where c(a) = log(1 - 1/a) -
    log(delta a) / (a - 1) is spent before anything ran (Canonne, Kamath and Steinke 2020, Prop.
    12), while r grows with a. For Gaussians the most fits where c is half of epsilon. So: the
    smallest whole order at which c is at most half of epsilon, and at most `MAX_FILTER_ORDER`.
    """
    low, high = 1, MAX_FILTER_ORDER
    while high - low > 1:  # c falls as the order grows
        order = (low + high) // 2
        cost = math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        low, high = (low, order) if cost <= epsilon / 2 else (order, high)
    return float(high)


@dataclass(frozen=True, slots=True)
class SumPolicy:
    """What a site demands of a secure sum; the coordinator has no say in it.

    Attributes:
        min_cohort: The fewest sites that it sums among.
        max_colluders: How many sites may collude with the coordinator; None for a quarter of the
            roster's others.
        min_honest: The fewest honest sites in anything that can be learned; None for 2 up to six
            sites and 3 above.
        rings: Rings allowed, in bits.
        max_attempts: The most attempts of one round.
        max_skipped_rounds: The most rounds between two in which the site takes part.
        max_unfits: How often in one run it says that a plan's range is too small; then it takes no
            further part in the run.
        smallest_range: The smallest range of values that a plan may ask for.
        weight_key: The metric that weighs a contribution.
        max_weight: The largest weight that a plan may ask for.
        hybrid: Whether keys must be hybrid, with ML-KEM-768 beside X25519.
        sums_per_run: The most sums of one run.
        sums_per_day: The most sums of one day.
    """

    min_cohort: int = 3
    max_colluders: int | None = None
    min_honest: int | None = None
    rings: frozenset[int] = frozenset({16, 32})
    max_attempts: int = 5
    max_skipped_rounds: int = 1_000
    max_unfits: int = 8
    smallest_range: float = 2.0**-10
    weight_key: str = "num-examples"
    max_weight: int = 2**32
    hybrid: bool = False
    sums_per_run: int = 10_000
    sums_per_day: int = 100_000


def _train_rules() -> Mapping[tuple[str, PartKind], Rule]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TrainPolicy:
    """What a site lets training apps release.

    Attributes:
        rules: Rule by (message type, part kind); message types are Flower's ``train``,
            ``evaluate``, ``query`` or a named one such as ``query.describe``. What is not named
            falls back to `rule_for`'s defaults: arrays and metrics of train and evaluate are
            `Rule.SUM`, everything else is `Rule.WITHHOLD`.
        trusted_trainers: Digests of the trainers whose record-level privacy claim is credited.
        site_noise: Clip and noise by the gate itself, for any app; None leaves arrays unnoised.
        sums: What the site demands of a secure sum.
        unclaimed: What becomes of arrays without a privacy claim where the data set has a budget:
            `Rule.WITHHOLD` refuses the reply, `Rule.PLAIN` lets them out beside the budget.
        max_reply_bytes: Bound on one reply.
        max_metrics: Bound on the scalar metrics of one reply.
    """

    rules: Mapping[tuple[str, PartKind], Rule] = field(default_factory=_train_rules)
    trusted_trainers: frozenset[AppDigest] = frozenset()
    site_noise: SiteNoise | None = None
    sums: SumPolicy = field(default_factory=SumPolicy)
    unclaimed: Rule = Rule.WITHHOLD
    max_reply_bytes: int = 2**31
    max_metrics: int = 64

    def __post_init__(self) -> None:
        if self.unclaimed not in {Rule.WITHHOLD, Rule.PLAIN}:
            raise ConfigError(
                f"unclaimed is {self.unclaimed}", hint="set unclaimed to withhold or plain"
            )

    def rule_for(self, message_type: str, kind: PartKind) -> Rule:
        """The rule for one part: exact message type, then its category, then the default."""
        for name in (message_type, category_of(message_type)):
            rule = self.rules.get((name, kind))
            if rule is not None:
                return rule
        if category_of(message_type) in PROTECTED and kind in {PartKind.ARRAYS, PartKind.METRICS}:
            return Rule.SUM
        return Rule.WITHHOLD


@dataclass(frozen=True, slots=True)
class CollectionPolicy:
    """Who may see how much of one collection.

    Attributes:
        name: The collection.
        release: The most that may leave.
        askers: Members or roles that may ask; empty means nobody, ``*`` means every member.
        max_passages_per_question: Bound on passages for one question.
        max_passages_per_day: Bound on passages for one asker and day.
        max_sentences_per_passage: Bound on each passage at release level ``sentences``.
        reason: Why it is closed, as a sentence the asker may read.
    """

    name: CollectionName
    release: ReleaseLevel = ReleaseLevel.NOTHING
    askers: frozenset[str] = frozenset()
    max_passages_per_question: int = 8
    max_passages_per_day: int = 500
    max_sentences_per_passage: int = 3
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """All that one site's owner decided; the default releases nothing in the clear.

    Attributes:
        train: Rules for training apps.
        budgets: Privacy budget by data set; a data set without one can make no private release.
        collections: Policy by collection; one that is not named is closed.
    """

    train: TrainPolicy = field(default_factory=TrainPolicy)
    budgets: Mapping[DatasetName, Budget] = field(default_factory=lambda: MappingProxyType({}))
    collections: Mapping[CollectionName, CollectionPolicy] = field(
        default_factory=lambda: MappingProxyType({})
    )
