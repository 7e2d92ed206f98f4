"""Spending: which privacy events an exchange commits, and the noise that the gate adds itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from comity.core.chain.content import content_of
from comity.core.policy.decide import COLLECTION_KINDS
from comity.core.policy.rule import PartKind, Rule, SiteNoise, SitePolicy, Unit
from comity.core.privacy.event import Mechanism, Plan, PrivacyEvent, Spend
from comity.core.privacy.ledger import (
    EMPTY,
    Committed,
    LedgerEvent,
    LedgerState,
    Opened,
    Reserved,
)
from comity.errors import PolicyRefused, ProtocolError, RefusedError
from comity.ids import DatasetName, ExchangeId, ReservationId
from comity.ports import Arrays, Exchange
from comity.services.ledger import Admission, budget_of, check_not_closed, reserved
from comity.services.parts import NO_CLAIM, Weighed
from comity.services.protect import with_site_noise


@dataclass(frozen=True, slots=True)
class Spending:
    """What an exchange commits to the ledger, and its parts after protection."""

    events: tuple[LedgerEvent, ...]
    weighed: tuple[Weighed, ...]


def site_event(noise: SiteNoise) -> PrivacyEvent:
    """The privacy event of one contribution that the gate clips and noises itself."""
    return PrivacyEvent(
        Mechanism.DISCRETE_GAUSSIAN, repr(noise.noise_multiplier), unit=Unit.SITE.value
    )


@dataclass(slots=True)
class _Tally:
    """What one exchange is about to commit, by reservation."""

    dataset: DatasetName
    state: LedgerState
    plans: dict[ReservationId, Plan] = field(default_factory=dict)
    reserved: Reserved | None = None

    def add(self, key: ReservationId, plan: Plan) -> None:
        self.plans[key] = self.plans.get(key, EMPTY) + plan

    def events(self, exchange: ExchangeId) -> tuple[LedgerEvent, ...]:
        if self.plans:
            check_not_closed(self.state, self.dataset)
        events: list[LedgerEvent] = [self.reserved] if self.reserved else []
        if self.dataset and self.state.account(self.dataset).opening is None:
            events.append(Opened(self.dataset))
        events += (Committed(key, exchange, plan) for key, plan in self.plans.items())
        return tuple(events)


@dataclass(frozen=True, slots=True)
class Spender:
    """Spends and protects for one site, under its owner's policy."""

    policy: SitePolicy
    ports: Admission

    def spend(self, exchange: Exchange, weighed: Sequence[Weighed], state: LedgerState) -> Spending:
        """Protects what leaves and returns the ledger events that must be committed before.

        Raises:
            PolicyRefused: A data set lacks the budget that a claim needs, a claim lacks its
                reservation or counts another unit, or arrays of a data set with a budget come
                without a claim.
            BudgetExhausted: The budget does not cover what ran.
        """
        dataset = DatasetName(exchange.dataset)
        if not any(_of_data(item) for item in weighed):
            return Spending((), tuple(weighed))
        claimed = [self._claimed(dataset, item) for item in weighed]
        tally = _Tally(dataset, state)
        for item in claimed:
            if item.claim != NO_CLAIM:
                tally.add(_reservation_of(dataset, item, state), Plan.of(item.part.spends))
        noise = self.policy.train.site_noise
        if noise is not None and any(_is_array(item) for item in claimed):
            claims = self._spend_noise(tally, claimed, noise)
            claimed = self._noised(claimed, noise, claims=claims)
        if any(_is_array(item) and item.claim == NO_CLAIM for item in claimed):
            self._check_unclaimed(dataset)
        return Spending(tally.events(exchange.exchange), tuple(claimed))

    def spend_refused(
        self, exchange: Exchange, weighed: Sequence[Weighed], state: LedgerState
    ) -> Spending:
        """What a refused reply cost all the same: that it was refused is an output, too.

        Nothing where its claim itself is what cannot be credited.
        """
        dataset = DatasetName(exchange.dataset)
        tally = _Tally(dataset, state)
        try:
            for item in weighed:
                if self._states_cost(item):
                    self._check_unit(dataset, item)
                    tally.add(_reservation_of(dataset, item, state), Plan.of(item.part.spends))
            events = tally.events(exchange.exchange) if tally.plans else ()
            for event in events:
                state = state.after(event)
        except (RefusedError, ProtocolError):
            events = ()
        return Spending(events, tuple(weighed))

    def _check_unclaimed(self, dataset: DatasetName) -> None:
        budgets = self.policy.budgets
        budgeted = dataset in budgets or (not dataset and bool(budgets))
        if budgeted and self.policy.train.unclaimed is not Rule.PLAIN:
            raise PolicyRefused(
                f"data set {dataset or '(none)'} has a privacy budget, and these arrays carry no "
                "claim on it",
                hint="train with a trusted trainer or [train.site-noise], or write "
                'unclaimed = "plain" under [train] in the site file',
            )

    def _states_cost(self, item: Weighed) -> bool:
        trusted = item.part.trainer in self.policy.train.trusted_trainers
        return trusted and bool(item.part.spends) and item.part.kind not in COLLECTION_KINDS

    def _claimed(self, dataset: DatasetName, item: Weighed) -> Weighed:
        if not (item.leaves and self._states_cost(item)):
            return item
        return replace(item, claim=self._check_unit(dataset, item))

    def _check_unit(self, dataset: DatasetName, item: Weighed) -> str:
        unit = budget_of(self.policy, dataset).unit.value
        stated = {spend.event.unit for spend in item.part.spends}
        if stated != {unit}:
            raise PolicyRefused(
                f"data set {dataset}: its budget protects a {unit}, the trainer's claim a "
                f"{' and a '.join(sorted(stated))}",
                hint=f"set budgets.{dataset}.unit, or train with a trainer that protects a {unit}",
            )
        return unit

    def _spend_noise(self, tally: _Tally, weighed: Sequence[Weighed], noise: SiteNoise) -> bool:
        arrays = [item for item in weighed if _is_array(item)]
        dataset = tally.dataset
        budget = self.policy.budgets.get(dataset)
        if budget is not None and budget.unit is Unit.SITE:
            plan = Plan((Spend(site_event(noise)),))
            held = next((item for item in arrays if item.part.reservation), None)
            if held is None:
                tally.reserved = reserved(self.policy, tally.state, dataset, plan, self.ports)
                tally.add(tally.reserved.reservation, plan)
            else:
                tally.add(_reservation_of(dataset, held, tally.state), plan)
            return True
        if any(item.claim == NO_CLAIM for item in arrays):
            raise PolicyRefused(
                f"site_noise protects whole contributions, yet data set {dataset or '(none)'} has "
                "no budget that counts them",
                hint=f'set budgets.{dataset or "NAME"} with unit = "site" in the site file',
            )
        return False

    def _noised(
        self, weighed: Sequence[Weighed], noise: SiteNoise, *, claims: bool
    ) -> list[Weighed]:
        arrays = [item for item in weighed if _is_array(item)]
        noised = iter(
            with_site_noise(
                [(item.value, item.part.reference) for item in arrays], noise, self.ports.rng
            )
        )
        return [
            _with_value(item, next(noised), claim=Unit.SITE.value if claims else item.claim)
            if _is_array(item)
            else item
            for item in weighed
        ]


def _with_value(item: Weighed, value: Arrays, *, claim: str) -> Weighed:
    return replace(
        item,
        value=value,
        content=content_of(value),
        claim=claim,
    )


def _reservation_of(dataset: DatasetName, item: Weighed, state: LedgerState) -> ReservationId:
    key = item.part.reservation
    if key is None:
        raise PolicyRefused(
            f"part {item.part.name} ran private events without a reservation",
            hint="reserve the whole plan before the run: Gate.reserve",
        )
    account, _ = state.reservation(key)
    if account is not state.account(dataset):
        raise PolicyRefused(
            f"reservation {key} is of data set {account.dataset}, not of {dataset or '(none)'}"
        )
    return key


def _of_data(item: Weighed) -> bool:
    return item.leaves and item.part.kind not in COLLECTION_KINDS


def _is_array(item: Weighed) -> bool:
    return item.leaves and item.part.kind is PartKind.ARRAYS
