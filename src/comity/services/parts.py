"""Parts of a reply: decided on, checked, and described for the record.

A part is `Weighed` before anything is spent. What it says to the record is its kind, its name, the
rule, its size and its digest; never its content.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from comity.core.chain.canonical import encode
from comity.core.chain.content import Content, content_of
from comity.core.policy.decide import (
    COLLECTION_KINDS,
    Decision,
    decide_collection,
    decide_quota,
    decide_reply,
)
from comity.core.policy.rule import CollectionPolicy, PartKind, SitePolicy
from comity.core.privacy.event import Plan, Spend
from comity.core.privacy.ledger import plan_record
from comity.errors import ComityError, PolicyRefused
from comity.events import ExchangeCommitted
from comity.ids import AppDigest, CollectionName, ReservationId, SiteName
from comity.ports import Arrays, Exchange
from comity.services.books import Books
from comity.services.protect import (
    checked_finite,
    checked_like,
    checked_name,
    count_metrics,
    only_class_name,
    shortened,
)

NO_CLAIM: Final = "none"
SUMMED_KINDS: Final = frozenset({PartKind.ARRAYS, PartKind.METRICS})
"""Kinds that leave inside a secure sum."""

_NOTHING: Final = Content("", 0)
_MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class SumPlace:
    """Where a message of a secure sum stands; what the journal keeps a site's place by.

    Attributes:
        run: The run.
        epoch: Of the site's keys.
        round_number: Counts sums within the run.
        attempt: Within the round.
        stage: ``announce``, ``link``, ``upload``, ``repeat``, ``unfit`` or ``reveal``.
    """

    run: str
    epoch: int
    round_number: int
    attempt: int
    stage: str

    def record(self) -> dict[str, object]:
        """What the audit chain says of it."""
        return {
            "run": self.run,
            "epoch": self.epoch,
            "round": self.round_number,
            "attempt": self.attempt,
            "stage": self.stage,
        }


@dataclass(frozen=True, slots=True)
class Part:
    """One part of what a site is about to give.

    Attributes:
        kind: Which policy rule stands for it.
        name: What it is called, for the record; for example the app's record name or a passage id.
        value: What would leave: arrays by name, metrics by name, a configuration, an error or its
            class name, scores, passages.
        spends: The privacy events that made it; credited only to a trainer that the site trusts.
        reservation: The reservation that covers `spends` or the gate's own noise.
        reference: The arrays that the round started from; `value` must have their names, shapes
            and dtypes, and the gate's noise bounds the difference from them.
        trainer: Digest of the trainer that ran; None where it is not known.
        collection: The collection of scores, counts and passages; the exchange's own by default.
        place: For a message of a secure sum: where it stands.
        fault: Why the part cannot be read; where it could leave, or where the part is an error,
            the whole reply is refused for it.
    """

    kind: PartKind
    name: str
    value: Any
    spends: tuple[Spend, ...] = ()
    reservation: ReservationId | None = None
    reference: Arrays | None = None
    trainer: AppDigest | None = None
    collection: str = ""
    place: SumPlace | None = None
    fault: ComityError | None = None


@dataclass(frozen=True, slots=True)
class Weighed:
    """A part with what was decided and what is told of it.

    Attributes:
        part: The part.
        decision: What the policy says.
        value: What leaves if it leaves.
        content: Digest and size of `value`; empty where it stays.
        claim: The privacy claim that stands for it: ``none`` or the unit it protects.
        summed: It leaves only inside a secure sum, as part of a masked upload.
        trusted: Whether a trainer made it that the site's policy trusts.
    """

    part: Part
    decision: Decision
    value: Any = None
    content: Content = _NOTHING
    claim: str = NO_CLAIM
    summed: bool = False
    trusted: bool = False

    @property
    def leaves(self) -> bool:
        """Whether it leaves, by itself or inside a sum."""
        return self.decision.allowed

    def record(self, exchange: Exchange) -> dict[str, object]:
        """What the audit chain says of it."""
        place = {"sum": self.part.place.record()} if self.part.place else {}
        released = "summed" if self.summed else "released"
        return {
            **place,
            "kind": self.part.kind.value,
            "name": self.part.name[:_MAX_NAME],
            "collection": collection_of(exchange, self.part),
            "outcome": released if self.leaves else "withheld",
            "policy": self.decision.policy,
            "reason": self.decision.reason,
            "passages": passages_in(self.part) if self.leaves else 0,
            "size_bytes": self.content.size_bytes,
            "digest": self.content.digest,
            "claim": self.claim,
            "trusted": self.trusted,
        }


def weigh(
    policy: SitePolicy, exchange: Exchange, parts: Sequence[Part], *, in_sum: bool = False
) -> list[Weighed]:
    """Decides on each part and checks those that may leave; `in_sum` inside a secure sum.

    Raises:
        DataError: A number is NaN or infinite, a value has no encoding, arrays differ from those
            that the round started from, or a name may not leave.
        PolicyRefused: Together they are larger, or more metrics, than the policy allows.
        ComityError: A part's own fault.
    """
    weighed = [_weigh_one(policy, exchange, part, in_sum=in_sum) for part in parts]
    metrics = [item for item in weighed if item.leaves and item.part.kind is PartKind.METRICS]
    count = sum(count_metrics(item.value) for item in metrics)
    if count > policy.train.max_metrics:
        raise PolicyRefused(
            f"a reply of {count} metrics; at most {policy.train.max_metrics} may leave",
            hint="report fewer, or raise train.max-metrics in the site file",
        )
    size_bytes = sum(item.content.size_bytes for item in weighed)
    if size_bytes > policy.train.max_reply_bytes:
        raise PolicyRefused(
            f"a reply of {size_bytes} bytes; at most {policy.train.max_reply_bytes} may leave",
            hint="send less, or raise train.max_reply_bytes in the site file",
        )
    return weighed


def refused(parts: Sequence[Part], error: ComityError) -> list[Weighed]:
    """The parts of a reply that is refused as a whole: all stay, for the error's reason."""
    decision = Decision(allowed=False, policy=f"refused: {error.code}", reason=error.public)
    return [
        Weighed(
            replace(part, name=part.name[:_MAX_NAME], collection=part.collection[:_MAX_NAME]),
            decision,
        )
        for part in parts
    ]


def check_summable(weighed: Sequence[Weighed]) -> None:
    """Checks that something of a reply may be summed.

    Raises:
        PolicyRefused: Nothing may; names the rules.
    """
    if not any(item.summed for item in weighed):
        policies = ", ".join(item.decision.policy for item in weighed) or "an empty reply"
        raise PolicyRefused(
            f"nothing of this reply may be summed: {policies}",
            hint="a site's owner may let arrays or metrics leave in a secure sum",
        )


def committed(
    site: SiteName, exchange: Exchange, weighed: Sequence[Weighed], sequence: int
) -> ExchangeCommitted:
    """What is told of an exchange whose releases were committed."""
    left = [item for item in weighed if item.leaves and not item.summed]
    return ExchangeCommitted(
        site=site,
        exchange=exchange.exchange,
        released=len(left),
        withheld=sum(not item.leaves for item in weighed),
        size_bytes=sum(item.content.size_bytes for item in left),
        journal_sequence=sequence,
    )


def within_quotas(
    policy: SitePolicy, exchange: Exchange, weighed: Sequence[Weighed], books: Books, day: int
) -> list[Weighed]:
    """Withholds the passages that are beyond the question's or the day's number."""
    kept: list[Weighed] = []
    given: Counter[str] = Counter()
    for item in weighed:
        count = passages_in(item.part)
        collection = collection_of(exchange, item.part)
        if item.leaves and count:
            terms = policy.collections[CollectionName(collection)]
            asked = given[collection] + count
            before = books.passages(collection, exchange.asker, day)
            quota = decide_quota(terms, asked, before + asked)
            if not quota.allowed:
                kept.append(Weighed(item.part, quota))
                continue
            given[collection] = asked
        kept.append(item)
    return kept


def request_tag(key: bytes, exchange: Exchange, weighed: Sequence[Weighed]) -> str:
    """What makes two requests the same: a keyed digest, so that it tells nothing of the content."""
    document = {
        "exchange": exchange.exchange,
        "asker": exchange.asker,
        "message_type": exchange.message_type,
        "run": exchange.run,
        "round": exchange.round_number,
        "dataset": exchange.dataset,
        "parts": [
            {
                "kind": item.part.kind.value,
                "name": item.part.name,
                "collection": item.part.collection,
                "digest": item.content.digest,
                "spends": plan_record(Plan.of(item.part.spends)),
                "reservation": item.part.reservation,
            }
            for item in weighed
        ],
    }
    return hmac.new(key, encode(document), "sha256").hexdigest()


def collection_of(exchange: Exchange, part: Part) -> str:
    """The collection of a part; empty for a part of a training reply."""
    return (part.collection or exchange.dataset) if part.kind in COLLECTION_KINDS else ""


def passages_in(part: Part) -> int:
    """How many passages a part holds."""
    if part.kind is not PartKind.PASSAGE:
        return 0
    return len(part.value) if isinstance(part.value, list | tuple) else 1


def _decided(policy: SitePolicy, exchange: Exchange, part: Part, *, in_sum: bool) -> Decision:
    if part.kind is PartKind.PROTOCOL and part.place is not None:
        return Decision(allowed=True, policy="train.secure-sums")
    if part.kind in COLLECTION_KINDS:
        name = CollectionName(collection_of(exchange, part))
        return decide_collection(policy, name, exchange.asker, part.kind)
    return decide_reply(policy.train, exchange.message_type, part.kind, in_sum=in_sum)


def _weigh_one(policy: SitePolicy, exchange: Exchange, part: Part, *, in_sum: bool) -> Weighed:
    decision = _decided(policy, exchange, part, in_sum=in_sum)
    if part.fault is not None and (decision.allowed or part.kind is PartKind.ERROR):
        raise part.fault
    if not decision.allowed:
        return Weighed(part, decision)
    value = _checked(policy, exchange, part)
    summed = in_sum and part.kind in SUMMED_KINDS
    trusted = part.trainer in policy.train.trusted_trainers
    return Weighed(part, decision, value, content_of(value), summed=summed, trusted=trusted)


def _checked(policy: SitePolicy, exchange: Exchange, part: Part) -> object:
    """The value of a part that may leave, as far as the gate cuts it."""
    value: object = part.value
    match part.kind:
        case PartKind.PROTOCOL:
            return value
        case PartKind.ERROR:
            value = only_class_name(value)
        case PartKind.PASSAGE:
            name = CollectionName(collection_of(exchange, part))
            value = shortened(value, policy.collections.get(name, CollectionPolicy(name)))
        case PartKind.ARRAYS | PartKind.METRICS:
            checked_name(part.name)
            if part.kind is PartKind.ARRAYS and part.reference is not None:
                value = checked_like(value, part.reference, part.name)
        case _:
            pass
    checked_finite(value, part.name)
    return value
