"""Decisions: what a site's policy says of one part, before anything is spent or looked at.

A reason depends on the asker and on what was asked for, never on a value or on what matched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.core.policy.rule import (
    CollectionPolicy,
    PartKind,
    ReleaseLevel,
    Rule,
    SitePolicy,
    SumPolicy,
    TrainPolicy,
)
from comity.ids import CollectionName

COLLECTION_KINDS: Final = frozenset({PartKind.SCORES, PartKind.PASSAGE, PartKind.COUNTS})
"""Kinds that a collection's policy decides on; training rules decide on all others."""

_LEVELS: Final = tuple(ReleaseLevel)
_NEEDS: Final = {
    PartKind.COUNTS: ReleaseLevel.COUNTS,
    PartKind.SCORES: ReleaseLevel.ANSWER_ONLY,
    PartKind.PASSAGE: ReleaseLevel.SENTENCES,
}
EVERY_MEMBER: Final = "*"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says.

    Attributes:
        allowed: Whether the part may leave, as far as this rule goes.
        policy: The rule that says so, for example ``train.arrays = plain``.
        reason: Why not, as a sentence that the asker may read; empty when allowed.
    """

    allowed: bool
    policy: str
    reason: str = ""


def decide_reply(
    policy: TrainPolicy, message_type: str, kind: PartKind, *, in_sum: bool = False
) -> Decision:
    """Decides on one part of an app's reply.

    Args:
        policy: The site's rules for training apps.
        message_type: What the app was asked.
        kind: What the part is.
        in_sum: The part would leave inside a secure sum: less than what `Rule.PLAIN` allows.
    """
    rule = policy.rule_for(message_type, kind)
    name = f"{message_type}.{kind.value} = {rule.value}"
    if rule is Rule.PLAIN or (rule is Rule.SUM and in_sum):
        return Decision(allowed=True, policy=name)
    if rule is Rule.SUM:
        return Decision(
            allowed=False,
            policy=name,
            reason=f"{kind.value} of {message_type} leave this site only inside a secure sum",
        )
    return Decision(
        allowed=False,
        policy=name,
        reason=f"{kind.value} of {message_type} stay at this site by its policy",
    )


def decide_collection(
    policy: SitePolicy, collection: CollectionName, asker: str, kind: PartKind
) -> Decision:
    """Decides on one part drawn from a collection; one that no policy names is closed."""
    terms = policy.collections.get(collection, CollectionPolicy(collection))
    name = f"collections.{collection}"
    if asker not in terms.askers and EVERY_MEMBER not in terms.askers:
        return _closed(name, terms)
    if _LEVELS.index(terms.release) < _LEVELS.index(_NEEDS[kind]):
        return Decision(
            allowed=False,
            policy=f"{name}.release = {terms.release.value}",
            reason=terms.reason or f"this collection does not give {kind.value} to this asker",
        )
    return Decision(allowed=True, policy=f"{name}.release = {terms.release.value}")


def decide_quota(terms: CollectionPolicy, in_question: int, in_day: int) -> Decision:
    """Decides on the passages of one asker, given how many would then have left.

    Args:
        terms: The collection's policy.
        in_question: Passages released for this question, with those under decision.
        in_day: Passages released to this asker on this day, with those under decision.
    """
    name = f"collections.{terms.name}"
    if in_question > terms.max_passages_per_question:
        return Decision(
            allowed=False,
            policy=f"{name}.max_passages_per_question = {terms.max_passages_per_question}",
            reason=f"at most {terms.max_passages_per_question} passages leave for one question",
        )
    if in_day > terms.max_passages_per_day:
        return Decision(
            allowed=False,
            policy=f"{name}.max_passages_per_day = {terms.max_passages_per_day}",
            reason=f"at most {terms.max_passages_per_day} passages leave to one asker on one day",
        )
    return Decision(allowed=True, policy=name)


def protections_off(policy: SitePolicy) -> tuple[str, ...]:
    """The protections that the owner switched off, each as it is written in the policy, sorted."""
    off = [
        f"{message_type}.{kind.value} = {rule.value}"
        for (message_type, kind), rule in policy.train.rules.items()
        if rule is Rule.PLAIN
    ]
    if policy.train.unclaimed is Rule.PLAIN:
        off.append(f"unclaimed = {Rule.PLAIN.value}")
    return tuple(sorted(off))


def policy_record(policy: SitePolicy) -> dict[str, object]:
    """The whole policy as JSON-ready fields with figures as text, equal for equal policies."""
    train = policy.train
    noise = train.site_noise
    return {
        "schema_version": 1,
        "rules": {
            f"{message_type}.{kind.value}": rule.value
            for (message_type, kind), rule in train.rules.items()
        },
        "trusted_trainers": sorted(train.trusted_trainers),
        "site_noise": None
        if noise is None
        else {
            "clip_norm": repr(noise.clip_norm),
            "noise_multiplier": repr(noise.noise_multiplier),
        },
        "sums": _sums_record(train.sums),
        "unclaimed": train.unclaimed.value,
        "max_reply_bytes": train.max_reply_bytes,
        "max_metrics": train.max_metrics,
        "budgets": {
            name: {
                "epsilon": repr(budget.epsilon),
                "delta": repr(budget.delta),
                "unit": budget.unit.value,
                "filter_order": repr(budget.order),
            }
            for name, budget in policy.budgets.items()
        },
        "collections": {
            name: {
                "release": terms.release.value,
                "askers": sorted(terms.askers),
                "max_passages_per_question": terms.max_passages_per_question,
                "max_passages_per_day": terms.max_passages_per_day,
                "max_sentences_per_passage": terms.max_sentences_per_passage,
            }
            for name, terms in policy.collections.items()
        },
    }


def _sums_record(sums: SumPolicy) -> dict[str, object]:
    return {
        "min_cohort": sums.min_cohort,
        "max_colluders": sums.max_colluders,
        "min_honest": sums.min_honest,
        "rings": sorted(sums.rings),
        "max_attempts": sums.max_attempts,
        "max_skipped_rounds": sums.max_skipped_rounds,
        "max_unfits": sums.max_unfits,
        "smallest_range": repr(sums.smallest_range),
        "weight_key": sums.weight_key,
        "max_weight": sums.max_weight,
        "hybrid": sums.hybrid,
        "sums_per_run": sums.sums_per_run,
        "sums_per_day": sums.sums_per_day,
    }


def _closed(name: str, terms: CollectionPolicy) -> Decision:
    return Decision(
        allowed=False,
        policy=f"{name}.askers",
        reason=terms.reason or "this collection is not open to this asker",
    )
