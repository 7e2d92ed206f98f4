"""The filter's order: chosen from the budget by a rule fixed beforehand, and then kept."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.gate_site import PATIENTS, Site, arrays, exchange, open_policy, plan

from comity.adapters.accounting.dp_accountant import DpAccountant
from comity.api.demo import DemoSettings
from comity.api.demo_files import DELTA
from comity.core.policy.rule import MAX_FILTER_ORDER, Budget, usual_filter_order
from comity.core.privacy.event import Plan
from comity.core.privacy.ledger import Account, Reservation
from comity.core.privacy.plan import training_plan
from comity.errors import BudgetExhausted, PolicyRefused
from comity.ids import ReservationId
from comity.services.ledger import FILTER_BASIS, admit


def cost(order: float, delta: float) -> float:
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


@given(st.floats(0.05, 1000), st.floats(1e-12, 0.5))
def test_the_usual_order_is_the_smallest_whole_one_that_costs_half_of_epsilon(
    epsilon: float, delta: float
) -> None:
    order = usual_filter_order(epsilon, delta)
    assert order == int(order)
    assert 2 <= order <= MAX_FILTER_ORDER
    assert cost(order, delta) <= epsilon / 2 or order == MAX_FILTER_ORDER
    assert order == 2 or cost(order - 1, delta) > epsilon / 2


@pytest.mark.parametrize(
    ("epsilon", "delta", "order"), [(3, 1e-5, 7), (1, 1e-5, 17), (8, 1e-5, 4), (0.5, 1e-6, 38)]
)
def test_usual_orders(epsilon: float, delta: float, order: float) -> None:
    assert usual_filter_order(epsilon, delta) == order
    assert Budget(epsilon, delta).order == order
    assert Budget(epsilon, delta, filter_order=5.5).order == 5.5


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 3.0, 8.0])
def test_a_single_quiet_step_fits_every_usual_budget_after_an_output(epsilon: float) -> None:
    quiet = training_plan(
        rounds=1, steps_per_round=1, sampling_rate="0.01", noise_multiplier="1000"
    )
    opened = Account(PATIENTS, opening=Plan(()))
    assert admit(opened, Budget(epsilon, 1e-5), quiet, DpAccountant()) == FILTER_BASIS


def demo_plan(rounds: int) -> Plan:
    return training_plan(
        rounds=rounds, steps_per_round=3, sampling_rate="0.5", noise_multiplier="7"
    )


def test_a_second_modest_plan_fits_the_demonstrations_budget() -> None:
    first = demo_plan(20)
    held = {ReservationId("r"): Reservation(ReservationId("r"), first, first)}
    account = Account(PATIENTS, held, opening=first)
    budget = Budget(DemoSettings(Path()).budget, DELTA)
    assert admit(account, budget, demo_plan(2), DpAccountant()) == FILTER_BASIS
    with pytest.raises(BudgetExhausted):
        admit(account, budget, demo_plan(20), DpAccountant())


def test_an_order_that_is_left_out_stays_what_it_was_at_the_first_output() -> None:
    site = Site(policy=open_policy(budgets={PATIENTS: Budget(8, 1e-5)}))
    site.gate().reserve(PATIENTS, plan(1), purpose="x")
    site.gate().release(exchange(), [arrays()])
    larger = replace(site, policy=open_policy(budgets={PATIENTS: Budget(2, 1e-5)}))
    assert Budget(2, 1e-5).order != Budget(8, 1e-5).order
    gate = larger.gate()
    gate.reserve(PATIENTS, plan(1), purpose="x")
    set_now = replace(site, policy=open_policy(budgets={PATIENTS: Budget(8, 1e-5, filter_order=9)}))
    with pytest.raises(PolicyRefused, match=r"filter_order is 9, yet it was fixed at 4.0"):
        set_now.gate().reserve(PATIENTS, plan(1), purpose="x")
