"""Admission: whether a plan fits a data set's budget, and what would fit when it does not.

Two rules, by what has happened to the data set:

*Before its first output* the plans form a multiset that is fixed before anything is seen, so its
privacy loss distribution bounds every order of running it and every way of stopping early. There
are no refunds: a plan counts whole until it is freed, and it is freed only if nothing of it left.

*After its first output* a new plan may have been chosen in the light of outputs. Composing what ran
and refusing what would exceed the budget is then no valid filter; the Renyi filter at one order
fixed beforehand is (Feldman and Zrnic 2021). It must cover everything: reserved, spent and new.

The two do not contradict each other. Let M be the multiset reserved at the first output. Whether M
fits the filter is known before any output. If it does not, nothing is ever admitted afterwards, all
that runs is within M, and its privacy loss distribution holds. If it does, all that ever runs obeys
the filter, which holds by itself. For the same reason a plan freed after the first output makes no
room where M did not fit: both M and what is held now are checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from comity.core.policy.rule import Budget, SitePolicy
from comity.core.privacy.event import Mechanism, Plan, PrivacyEvent, Sampling, Spend
from comity.core.privacy.ledger import Account, LedgerState, Reserved
from comity.core.privacy.plan import largest_that_fits
from comity.errors import BudgetExhausted, PolicyRefused
from comity.ids import DatasetName, ReservationId
from comity.ports import Accountant, Rng

PLAN_BASIS: Final = "plan"
FILTER_BASIS: Final = "filter"

_GAUSSIANS: Final = frozenset({Mechanism.GAUSSIAN, Mechanism.DISCRETE_GAUSSIAN})
_NOISE_STEPS: Final = 8
_MAX_NOISE_FACTOR: Final = 64


@dataclass(frozen=True, slots=True)
class Admission:
    """The ports that admission needs."""

    accountant: Accountant
    rng: Rng


@dataclass(frozen=True, slots=True)
class BudgetState:
    """How a data set's budget stands.

    Attributes:
        dataset: The data set.
        unit: What one epsilon protects.
        epsilon_total: The owner's bound.
        delta: The owner's bound.
        epsilon_plan: Of everything reserved, spent or not, as a plan (PLD).
        epsilon_spent: Of what ran (PLD).
        epsilon_enforced: What admission compares with `epsilon_total`: `epsilon_plan` before the
            first output, from then on the filter's, which is larger.
        epsilon_remaining: `epsilon_total` less `epsilon_enforced`, at least 0: where it is 0, the
            data set is closed to further plans.
        opened: Something of the data set left, so later plans enter by the filter only.
        closed: Records were lost, so all of it counts as spent.
    """

    dataset: DatasetName
    unit: str
    epsilon_total: float
    delta: float
    epsilon_plan: float
    epsilon_spent: float
    epsilon_enforced: float
    epsilon_remaining: float
    opened: bool
    closed: bool

    @property
    def state(self) -> str:
        """How it stands, in words."""
        if self.closed:
            return "closed: records were lost, so all of it counts as spent"
        if not self.epsilon_remaining:
            return "closed to further plans"
        return "open to further plans, by the filter" if self.opened else "open to plans"

    @property
    def told(self) -> str:
        """Why a plan may be refused although less than the total was spent; empty where not."""
        if self.closed or not self.opened:
            return ""
        rest = f"{self.epsilon_remaining:.3f} of it remain"
        if not self.epsilon_remaining:
            rest = "nothing of it remains, so it is closed to further plans"
        return (
            "a plan made after results left may have been chosen because of them, so it is "
            f"counted more strictly, by a filter over all that was reserved: "
            f"{self.epsilon_enforced:.3f} of {self.epsilon_total:g}; {rest}"
        )


def budget_state(
    account: Account, budget: Budget, accountant: Accountant, *, closed: bool
) -> BudgetState:
    """Figures of one account under its owner's budget."""
    plan = _epsilon(accountant, account.reserved, budget)
    spent = _epsilon(accountant, account.spent, budget)
    enforced = plan
    if account.opening is not None:
        order = filter_order(account, budget)
        enforced = _filter_epsilon_ever(
            accountant, (account.opening, account.reserved), budget, order
        )
    if closed:
        plan, spent, enforced = (max(one, budget.epsilon) for one in (plan, spent, enforced))
    return BudgetState(
        dataset=account.dataset,
        unit=budget.unit.value,
        epsilon_total=budget.epsilon,
        delta=budget.delta,
        epsilon_plan=plan,
        epsilon_spent=spent,
        epsilon_enforced=enforced,
        epsilon_remaining=max(0.0, budget.epsilon - enforced),
        opened=account.opening is not None,
        closed=closed,
    )


def reserved(
    policy: SitePolicy, state: LedgerState, dataset: DatasetName, plan: Plan, ports: Admission
) -> Reserved:
    """The event that reserves `plan`, after checking that it fits.

    Raises:
        PolicyRefused: The data set has no budget, or one that counts otherwise.
        BudgetExhausted: The plan does not fit, or records of this journal were lost.
    """
    budget = budget_of(policy, dataset)
    check_not_closed(state, dataset)
    return Reserved(
        reservation=ReservationId(ports.rng.token(16).hex()),
        dataset=dataset,
        plan=plan,
        epsilon=repr(budget.epsilon),
        delta=repr(budget.delta),
        filter_order=repr(filter_order(state.account(dataset), budget)),
        basis=admit(state.account(dataset), budget, plan, ports.accountant),
        accountant=ports.accountant.version(),
    )


def admit(account: Account, budget: Budget, plan: Plan, accountant: Accountant) -> str:
    """Checks that `plan` fits and returns the basis it was admitted on.

    Raises:
        PolicyRefused: The plan protects another unit or counts other neighbours than the budget,
            or the filter's order was changed after an output.
        BudgetExhausted: It does not fit; the message says by how much, the hint what would.
    """
    _check_kind(account, budget, plan)
    basis = PLAN_BASIS if account.opening is None else FILTER_BASIS
    order = filter_order(account, budget)

    def epsilon(candidate: Plan) -> float:
        held = account.reserved + candidate
        if account.opening is None:
            return _epsilon(accountant, held, budget)
        return _filter_epsilon_ever(accountant, (account.opening, held), budget, order)

    needed = epsilon(plan)
    if needed <= budget.epsilon:
        return basis
    figures = budget_state(account, budget, accountant, closed=False)
    after = "" if basis == PLAN_BASIS else ", by the filter for plans chosen after outputs"
    raise BudgetExhausted(
        f"data set {account.dataset}: with this plan epsilon would be {needed:.3f} of "
        f"{budget.epsilon:g} at delta {budget.delta:g}{after}; spent {figures.epsilon_spent:.3f}, "
        f"reserved {figures.epsilon_plan:.3f}, remaining {figures.epsilon_remaining:.3f}",
        hint=_what_fits(plan, lambda candidate: epsilon(candidate) <= budget.epsilon),
    )


def budget_story(account: Account, found: BudgetState) -> tuple[str, ...]:
    """An account in sentences: each plan that was accepted, what ran, and what is left."""
    lines = []
    for held in account.reservations.values():
        ran, of = (sum(spend.count for spend in plan.spends) for plan in (held.spent, held.plan))
        what = "given back unused" if held.freed else f"{ran} of {of} ran"
        lines.append(f"Reserved: {plan_in_words(held.plan)}; {what}.")
    lines.append(
        f"Spent: epsilon {found.epsilon_spent:.3f} of {found.epsilon_total:g}, at delta "
        f"{found.delta:g}, for one {found.unit}; {found.state}."
    )
    return (*lines, f"Note: {found.told}.") if found.told else tuple(lines)


def plan_in_words(plan: Plan) -> str:
    """A plan as a person reads it."""
    return " and ".join(_spend_in_words(spend) for spend in plan.spends)


def _spend_in_words(spend: Spend) -> str:
    event = spend.event
    steps = f"{spend.count} step" + ("" if spend.count == 1 else "s")
    drawn = (
        ""
        if event.sampling is Sampling.NONE
        else f", each on a {event.sampling.value.replace('_', ' ')} sample of "
        f"{float(event.sampling_rate):.0%} of the records"
    )
    return f"{steps} of {event.mechanism.value.replace('_', ' ')} noise {event.parameter}{drawn}"


def budget_of(policy: SitePolicy, dataset: DatasetName) -> Budget:
    """The budget of a data set.

    Raises:
        PolicyRefused: It has none.
    """
    budget = policy.budgets.get(dataset)
    if budget is None:
        raise PolicyRefused(
            f"data set {dataset or '(none)'} has no privacy budget, so it can make no private "
            "release",
            hint=f"set budgets.{dataset or 'NAME'} in the site file: epsilon, delta and unit",
        )
    return budget


def check_not_closed(state: LedgerState, dataset: DatasetName) -> None:
    """Checks that no record of this ledger was lost.

    Raises:
        BudgetExhausted: Some were, so every budget counts as spent.
    """
    if state.closed:
        raise BudgetExhausted(
            f"data set {dataset}: records of this journal were lost, so its whole budget counts "
            "as spent",
            hint="use new data under a new journal, or train without a privacy claim",
        )


def _check_kind(account: Account, budget: Budget, plan: Plan) -> None:
    held = account.reserved
    for spend in plan.spends:
        if spend.event.unit != budget.unit.value:
            raise PolicyRefused(
                f"data set {account.dataset}: its budget protects a {budget.unit.value}, the plan "
                f"a {spend.event.unit}",
                hint=f"set budgets.{account.dataset}.unit, or plan for a {budget.unit.value}",
            )
    adjacencies = {spend.event.adjacency for spend in (held + plan).spends}
    if len(adjacencies) > 1:
        raise PolicyRefused(
            f"data set {account.dataset}: plans of different adjacency do not add up",
            hint=f"use one of {', '.join(sorted(adjacencies))} for all of them",
        )
    order = repr(filter_order(account, budget))
    if account.opening is not None and account.filter_order not in {"", order}:
        raise PolicyRefused(
            f"data set {account.dataset}: filter_order is {order}, yet it was fixed at "
            f"{account.filter_order} before the first output",
            hint=f"set budgets.{account.dataset}.filter_order back to {account.filter_order}",
        )


def _epsilon(accountant: Accountant, plan: Plan, budget: Budget) -> float:
    return accountant.epsilon(plan, budget.delta) if plan.spends else 0.0


def _filter_epsilon_ever(
    accountant: Accountant, plans: tuple[Plan, Plan], budget: Budget, order: float
) -> float:
    """By the filter: of what was held at the first output, and of what is held."""
    return max(_filter_epsilon(accountant, plan, budget, order) for plan in plans)


def filter_order(account: Account, budget: Budget) -> float:
    """The order of a data set's filter.

    The owner's, where one is set; else the one that was fixed before the first output; else the
    usual one for the budget.
    """
    fixed = account.opening is not None and account.filter_order
    return float(fixed) if fixed and budget.filter_order is None else budget.order


def _filter_epsilon(accountant: Accountant, plan: Plan, budget: Budget, order: float) -> float:
    if not plan.spends:
        return 0.0
    return accountant.filter_epsilon(plan, budget.delta, order)


def _what_fits(plan: Plan, fits: Callable[[Plan], bool]) -> str:
    rounds = math.gcd(*(spend.count for spend in plan.spends))
    ways = []
    largest = largest_that_fits(rounds - 1, lambda count: fits(_scaled(plan, count, rounds)))
    if largest:
        ways.append(f"plan {largest} of these {rounds} equal steps")
    noise = _least_noise(plan, fits)
    if noise:
        ways.append(f"raise noise_multiplier to {noise}")
    return ", or ".join(ways) or "no part of this plan fits; ask the owner of the data set"


def _scaled(plan: Plan, count: int, rounds: int) -> Plan:
    return Plan(tuple(replace(spend, count=spend.count // rounds * count) for spend in plan.spends))


def _least_noise(plan: Plan, fits: Callable[[Plan], bool]) -> str:
    if len(plan.spends) != 1 or plan.spends[0].event.mechanism not in _GAUSSIANS:
        return ""
    (spend,) = plan.spends
    start = float(spend.event.parameter)
    low, high = start, start * _MAX_NOISE_FACTOR
    if not fits(_noisier(spend.event, spend.count, high)):
        return ""
    for _ in range(_NOISE_STEPS):
        middle = math.sqrt(low * high)
        fitting = fits(_noisier(spend.event, spend.count, middle))
        low, high = (low, middle) if fitting else (middle, high)
    return _figure(high)


def _noisier(event: PrivacyEvent, count: int, noise: float) -> Plan:
    return Plan((Spend(replace(event, parameter=_figure(noise)), count),))


def _figure(value: float) -> str:
    step = Decimal("0.01")
    return str((Decimal(value) / step).to_integral_value(rounding="ROUND_CEILING") * step)
