"""A site's gate over fakes in memory, each handed in as an argument."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from comity.adapters.pki import Identity
from comity.core.chain.record import Head, Record, head_after, link
from comity.core.policy.rule import (
    Budget,
    CollectionPolicy,
    PartKind,
    ReleaseLevel,
    Rule,
    SitePolicy,
    TrainPolicy,
)
from comity.core.privacy.event import Mechanism, Plan, PrivacyEvent, Sampling, Spend
from comity.events import Event
from comity.ids import (
    AppDigest,
    CollectionName,
    DatasetName,
    DocumentId,
    ExchangeId,
    FederationName,
    PassageId,
    ReservationId,
    SiteName,
)
from comity.ports import Entry, Exchange, HeadKeeper, Journal, Passage, SignedHead
from comity.services.gate import Gate, GateLimits, GateParts, Part, SiteIdentity

SITE = SiteName("site-b")
PATIENTS = DatasetName("patients")
TRAINER = AppDigest("sha256:" + "a" * 64)
IDENTITY = Identity.from_seed(bytes(range(32)))
STEP = PrivacyEvent(Mechanism.DISCRETE_GAUSSIAN, "2.0", Sampling.POISSON, "0.1")


@dataclass
class MemoryJournal:
    """A `Journal` in a list; what a crash would leave is what the list holds."""

    rows: list[Record] = field(default_factory=list)
    notes: dict[str, bytes] = field(default_factory=dict)

    def head(self) -> Head:
        return head_after(self.rows[-1]) if self.rows else Head()

    def commit(self, entries: Sequence[Entry], *, notes: Sequence[bytes] = ()) -> Head:
        added, head = [], self.head()
        for entry in entries:
            added.append(link(head, entry.kind, entry.body))
            head = head_after(added[-1])
        self.rows += added
        self.notes |= {hashlib.sha256(note).hexdigest(): note for note in notes}
        return head

    def records(self, *, after: int = 0) -> Iterator[Record]:
        return iter([record for record in self.rows if record.sequence > after])


@dataclass
class MemoryHeads:
    """A `HeadKeeper` in a field."""

    signed: SignedHead | None = None

    def load(self) -> SignedHead | None:
        return self.signed

    def keep(self, signed: SignedHead) -> None:
        self.signed = signed


@dataclass
class SetClock:
    """A `Clock` that shows what it is set to."""

    now_s: float = 1_772_546_520.0  # 3 March 2026 14:02 UTC

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s


@dataclass
class UnsafeCountingRng:
    """An `Rng` that hashes a counter."""

    count: int = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return hashlib.shake_256(self.count.to_bytes(8, "big")).digest(size)


class AddingAccountant:
    """An `Accountant` whose epsilon is 1 / parameter an event; its filter costs a quarter more."""

    def epsilon(self, plan: Plan, delta: float) -> float:
        del delta
        return sum(spend.count / float(spend.event.parameter) for spend in plan.spends)

    def filter_epsilon(self, plan: Plan, delta: float, order: float) -> float:
        del order
        return 1.25 * self.epsilon(plan, delta)

    def version(self) -> str:
        return "adding 1"


def open_policy(
    rules: Mapping[tuple[str, PartKind], Rule] | None = None, **changes: object
) -> SitePolicy:
    """A policy that lets arrays and metrics of train out, with a budget of 8 for patients.

    Arrays without a claim leave beside that budget.
    """
    plain = {
        (kind, part): Rule.PLAIN
        for kind in ("train",)
        for part in (PartKind.ARRAYS, PartKind.METRICS, PartKind.ERROR, PartKind.CONFIG)
    }
    train = TrainPolicy(
        rules=plain if rules is None else rules,
        trusted_trainers=frozenset({TRAINER}),
        unclaimed=Rule.PLAIN,
    )
    values: dict[str, object] = {
        "train": train,
        "budgets": {PATIENTS: Budget(8.0, 1e-5)},
        "collections": {
            CollectionName("guidelines"): CollectionPolicy(
                CollectionName("guidelines"),
                ReleaseLevel.PASSAGES,
                frozenset({"analyst"}),
                max_passages_per_question=2,
                max_passages_per_day=3,
            )
        },
        **changes,
    }
    return SitePolicy(**values)  # type: ignore[arg-type]  # callers name SitePolicy's own fields


@dataclass
class Site:
    """One site whose ports are fakes; `gate()` starts it, again and again."""

    policy: SitePolicy = field(default_factory=open_policy)
    journal: Journal = field(default_factory=MemoryJournal)
    heads: HeadKeeper = field(default_factory=MemoryHeads)
    clock: SetClock = field(default_factory=SetClock)
    rng: UnsafeCountingRng = field(default_factory=UnsafeCountingRng)
    limits: GateLimits = field(default_factory=GateLimits)
    events: list[Event] = field(default_factory=list)

    def gate(self) -> Gate:
        return Gate(
            SiteIdentity(FederationName("hospitals"), SITE),
            self.policy,
            GateParts(self.journal, self.heads, IDENTITY, AddingAccountant(), self.clock, self.rng),
            self.events.append,
            self.limits,
        )

    def records(self) -> list[Record]:
        return list(self.journal.records())


def exchange(name: str = "e1", **changes: object) -> Exchange:
    values: dict[str, object] = {
        "exchange": ExchangeId(name),
        "asker": "coordinator",
        "message_type": "train",
        "run": "17",
        "round_number": 4,
        "dataset": PATIENTS,
        **changes,
    }
    return Exchange(**values)  # type: ignore[arg-type]  # callers name Exchange's own fields


def question(name: str = "q1", asker: str = "analyst") -> Exchange:
    return Exchange(ExchangeId(name), asker, "fetch", dataset="guidelines")


def plan(count: int, event: PrivacyEvent = STEP) -> Plan:
    return Plan((Spend(event, count),))


def arrays(value: float = 1.0) -> Part:
    return Part(PartKind.ARRAYS, "model", {"w": np.full(3, value)})


def private_arrays(reservation: ReservationId | None, count: int = 1) -> Part:
    return Part(
        PartKind.ARRAYS,
        "model",
        {"w": np.ones(3)},
        spends=(Spend(STEP, count),),
        reservation=reservation,
        trainer=TRAINER,
    )


def passage(number: int = 1, text: str = "One. Two. Three. Four.") -> Part:
    value = Passage(
        PassageId(f"p{number}"),
        DocumentId("d1"),
        CollectionName("guidelines"),
        "Guideline",
        0,
        len(text),
        text,
    )
    return Part(PartKind.PASSAGE, f"p{number}", value)


FaultPoint = Callable[[str], None]


@dataclass
class FaultyJournal:
    """A journal that calls `fault` before and after each commit."""

    inner: Journal
    fault: FaultPoint

    def head(self) -> Head:
        return self.inner.head()

    def commit(self, entries: Sequence[Entry], *, notes: Sequence[bytes] = ()) -> Head:
        self.fault("before commit")
        head = self.inner.commit(entries, notes=notes)
        self.fault("after commit")
        return head

    def records(self, *, after: int = 0) -> Iterator[Record]:
        return self.inner.records(after=after)


@dataclass
class FaultyHeads:
    """A head keeper that calls `fault` before and after each head."""

    inner: HeadKeeper
    fault: FaultPoint

    def load(self) -> SignedHead | None:
        return self.inner.load()

    def keep(self, signed: SignedHead) -> None:
        self.fault("before keep")
        self.inner.keep(signed)
        self.fault("after keep")
