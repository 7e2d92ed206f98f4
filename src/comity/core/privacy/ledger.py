"""Ledger arithmetic: what a site's data sets were promised and what was spent, as a pure fold.

The ledger's state is never stored: it is what its records, folded in order, come to. Records are
typed and versioned, so those written today are read for ever. An account belongs to a data set and
keeps to it: a rename carries the spend along, a name once used never names other data.

Nothing here decides how much is too much: an accountant, behind a port, turns multisets of events
into epsilon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import ClassVar, Final, TypeAlias, TypeVar

from comity.core.privacy.event import Plan, PrivacyEvent, Spend
from comity.errors import BudgetExhausted, PolicyRefused, Verification, VersionMismatch, WrongStage
from comity.ids import DatasetName, ExchangeId, ReservationId

SCHEMA_VERSION: Final = 1
EMPTY: Final = Plan(())

_K = TypeVar("_K")
_V = TypeVar("_V")


# --- events -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bound:
    """A data set's name was bound to the digest of its source."""

    kind: ClassVar[str] = "ledger.bound"
    dataset: DatasetName
    source: str


@dataclass(frozen=True, slots=True)
class Reserved:
    """A plan was accepted: from here on it counts whole.

    Attributes:
        reservation: Its id.
        dataset: The data set.
        plan: The events that may run.
        epsilon: The budget it was accepted under, a decimal string.
        delta: Likewise.
        filter_order: The Renyi order of the filter, fixed before any output, a decimal string.
        basis: ``plan`` (before any output) or ``filter`` (after).
        accountant: Who computed, with version and grid.
        purpose: Digest of the purpose that a person typed; the text may be erased.
    """

    kind: ClassVar[str] = "ledger.reserved"
    reservation: ReservationId
    dataset: DatasetName
    plan: Plan
    epsilon: str
    delta: str
    filter_order: str
    basis: str
    accountant: str
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """Events ran against a reservation and what they gave is about to leave."""

    kind: ClassVar[str] = "ledger.committed"
    reservation: ReservationId
    exchange: ExchangeId
    plan: Plan


@dataclass(frozen=True, slots=True)
class Opened:
    """The first output of a data set is about to leave; later plans enter by the filter."""

    kind: ClassVar[str] = "ledger.opened"
    dataset: DatasetName


@dataclass(frozen=True, slots=True)
class Freed:
    """A reservation of which nothing left was given back."""

    kind: ClassVar[str] = "ledger.freed"
    reservation: ReservationId


@dataclass(frozen=True, slots=True)
class Closed:
    """Records were lost: every budget of this journal counts as spent, now and later."""

    kind: ClassVar[str] = "ledger.closed"


LedgerEvent: TypeAlias = Bound | Reserved | Committed | Opened | Freed | Closed
_KINDS: Final[Mapping[str, type[LedgerEvent]]] = MappingProxyType(
    {kind.kind: kind for kind in (Bound, Reserved, Committed, Opened, Freed, Closed)}
)


def ledger_record(event: LedgerEvent) -> dict[str, object]:
    """The event as JSON-ready fields."""
    record: dict[str, object] = {"schema_version": SCHEMA_VERSION}
    for name in (entry.name for entry in fields(event)):
        value = getattr(event, name)
        record[name] = plan_record(value) if isinstance(value, Plan) else value
    return record


def ledger_event(kind: str, record: Mapping[str, object]) -> LedgerEvent | None:
    """Reads what `ledger_record` wrote; None where `kind` is not the ledger's.

    Raises:
        VersionMismatch: It is of a version or a kind that this release cannot read.
        Verification: A field is missing or of the wrong type.
    """
    if not kind.startswith("ledger."):
        return None
    if kind not in _KINDS or record.get("schema_version") != SCHEMA_VERSION:
        raise VersionMismatch(
            f"ledger record {kind!r} of schema version {record.get('schema_version')!r}",
            hint="update comity: a newer release wrote this journal",
        )
    event = _KINDS[kind]
    values: dict[str, object] = {}
    for name in (entry.name for entry in fields(event)):
        value = record.get(name)
        if not isinstance(value, list if name == "plan" else str):
            raise Verification(f"ledger record {kind!r}: {name} is missing or of the wrong type")
        values[name] = _plan(value) if isinstance(value, list) else value
    return event(**values)  # type: ignore[arg-type]  # the loop above checked each field


def plan_record(plan: Plan) -> list[dict[str, object]]:
    """The plan as JSON-ready fields."""
    return [{**spend.event.as_record(), "count": spend.count} for spend in plan.spends]


def _plan(items: Iterable[object]) -> Plan:
    spends = []
    for item in items:
        count = item.get("count") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(count, int):
            raise Verification("a plan in the ledger does not parse")
        spends.append(Spend(PrivacyEvent.from_record(item), count))
    return Plan.of(spends)


# --- state ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reservation:
    """One accepted plan and how much of it ran."""

    reservation: ReservationId
    plan: Plan
    spent: Plan = EMPTY
    freed: bool = False

    def with_spent(self, plan: Plan) -> Reservation:
        """This reservation after `plan` ran against it.

        Raises:
            BudgetExhausted: `plan` holds an event that was not reserved, or more of it.
        """
        spent = self.spent + plan
        reserved = {spend.event: spend.count for spend in self.plan.spends}
        for spend in spent.spends:
            if self.freed or spend.count > reserved.get(spend.event, 0):
                raise BudgetExhausted(
                    f"reservation {self.reservation} covers "
                    f"{0 if self.freed else reserved.get(spend.event, 0)} of "
                    f"{spend.event.mechanism.value} {spend.event.parameter} "
                    f"({spend.event.sampling.value} {spend.event.sampling_rate}), "
                    f"yet {spend.count} would have run",
                    hint="reserve the whole plan before the run",
                )
        return replace(self, spent=spent)


@dataclass(frozen=True, slots=True)
class Account:
    """What one data set was promised and what was spent of it.

    Attributes:
        dataset: The name it goes by now.
        reservations: By id, the freed ones too.
        opening: What was reserved when its first output left; None before. It decides for ever
            whether later plans may enter (see `comity.services.ledger`).
        filter_order: The order of its filter; fixed from the first output on.
        epsilon: The budget at the last admission.
        delta: Likewise.
    """

    dataset: DatasetName
    reservations: Mapping[ReservationId, Reservation] = field(
        default_factory=lambda: MappingProxyType({})
    )
    opening: Plan | None = None
    filter_order: str = ""
    epsilon: str = ""
    delta: str = ""

    @property
    def reserved(self) -> Plan:
        """All that counts: plans that were not freed, whole, spent or not."""
        return Plan.of(
            spend
            for held in self.reservations.values()
            if not held.freed
            for spend in held.plan.spends
        )

    @property
    def spent(self) -> Plan:
        """All that ran."""
        return Plan.of(spend for held in self.reservations.values() for spend in held.spent.spends)


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Every account of a site: what its ledger's records come to.

    Attributes:
        accounts: By account id, the first name that a data set had.
        names: Account id by data set name; a name never changes its account.
        sources: Account id by source digest; likewise.
        holders: Account id by reservation.
        closed: Records were lost, so every budget counts as spent.
    """

    accounts: Mapping[DatasetName, Account] = field(default_factory=lambda: MappingProxyType({}))
    names: Mapping[str, DatasetName] = field(default_factory=lambda: MappingProxyType({}))
    sources: Mapping[str, DatasetName] = field(default_factory=lambda: MappingProxyType({}))
    holders: Mapping[ReservationId, DatasetName] = field(
        default_factory=lambda: MappingProxyType({})
    )
    closed: bool = False

    def account(self, dataset: DatasetName) -> Account:
        """The account of a data set; an empty one where nothing was recorded."""
        key = self.names.get(dataset)
        return Account(dataset) if key is None else self.accounts[key]

    def reservation(self, reservation: ReservationId) -> tuple[Account, Reservation]:
        """A reservation and its account.

        Raises:
            WrongStage: There is none of this id.
        """
        key = self.holders.get(reservation)
        if key is None:
            raise WrongStage(
                f"there is no reservation {reservation}",
                hint="reserve a plan before the run; comity ledger show lists what is reserved",
            )
        return self.accounts[key], self.accounts[key].reservations[reservation]

    def binding(self, dataset: DatasetName, source: str) -> Bound | None:
        """The event that binds a name to a source; None where it is bound so already.

        Raises:
            PolicyRefused: The name or the source belongs to another data set.
        """
        by_source, by_name = self.sources.get(source), self.names.get(dataset)
        if by_source is not None and by_name is not None and by_source != by_name:
            raise PolicyRefused(
                f"data set {dataset}: its source was used as {self.accounts[by_source].dataset}, "
                f"and the name {dataset} stands for other data",
                hint="give this source the name it had, or one that was never used",
            )
        if by_source is not None and self.accounts[by_source].dataset == dataset:
            return None
        return Bound(dataset, source)

    def after(self, event: LedgerEvent) -> LedgerState:
        """The state after one more event.

        Raises:
            WrongStage: It names a reservation that there is not, or one that exists already, or
                frees one of which something left.
            BudgetExhausted: More ran than was reserved.
            PolicyRefused: It binds a name or a source that belongs to another data set.
        """
        match event:
            case Bound():
                return _after_bound(self, event)
            case Reserved():
                return _after_reserved(self, event)
            case Committed() | Freed():
                return _after_use(self, event)
            case Opened():
                return _after_opened(self, event)
        return replace(self, closed=True)


def _after_bound(state: LedgerState, event: Bound) -> LedgerState:
    state.binding(event.dataset, event.source)
    key = state.sources.get(event.source, state.names.get(event.dataset, event.dataset))
    account = state.accounts.get(key, Account(event.dataset))
    return replace(
        state,
        accounts=_set(state.accounts, key, replace(account, dataset=event.dataset)),
        names=_set(state.names, event.dataset, key),
        sources=_set(state.sources, event.source, key),
    )


def _after_reserved(state: LedgerState, event: Reserved) -> LedgerState:
    if event.reservation in state.holders:
        raise WrongStage(f"reservation {event.reservation} exists already")
    account = replace(
        state.account(event.dataset),
        filter_order=event.filter_order,
        epsilon=event.epsilon,
        delta=event.delta,
    )
    named = _put(state, event.dataset, _held(account, Reservation(event.reservation, event.plan)))
    holders = _set(state.holders, event.reservation, named.names[event.dataset])
    return replace(named, holders=holders)


def _after_use(state: LedgerState, event: Committed | Freed) -> LedgerState:
    account, held = state.reservation(event.reservation)
    if isinstance(event, Committed):
        held = held.with_spent(event.plan)
    elif held.spent.spends:
        raise WrongStage(f"something of reservation {event.reservation} left: it stays spent")
    else:
        held = replace(held, freed=True)
    return _put(state, account.dataset, _held(account, held))


def _after_opened(state: LedgerState, event: Opened) -> LedgerState:
    account = state.account(event.dataset)
    if account.opening is not None:
        return state
    return _put(state, event.dataset, replace(account, opening=account.reserved))


def _put(state: LedgerState, dataset: DatasetName, account: Account) -> LedgerState:
    key = state.names.get(dataset, dataset)
    return replace(
        state,
        accounts=_set(state.accounts, key, account),
        names=_set(state.names, dataset, key),
    )


def _held(account: Account, held: Reservation) -> Account:
    return replace(account, reservations=_set(account.reservations, held.reservation, held))


def _set(mapping: Mapping[_K, _V], key: _K, value: _V) -> Mapping[_K, _V]:
    return MappingProxyType({**mapping, key: value})
