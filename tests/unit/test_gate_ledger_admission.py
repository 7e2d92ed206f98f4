"""What fits a budget, before and after outputs, and what would fit instead."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.fakes.gate_site import (
    PATIENTS,
    STEP,
    Site,
    arrays,
    exchange,
    open_policy,
    plan,
    private_arrays,
)

from comity.core.policy.rule import Budget, SitePolicy, Unit
from comity.core.privacy.event import Adjacency, Mechanism, Plan, PrivacyEvent, Spend
from comity.errors import BudgetExhausted, PolicyRefused

LAPLACE = PrivacyEvent(Mechanism.LAPLACE, "0.5")


def test_plans_reserved_before_any_output_add_up_as_one_multiset() -> None:
    gate = Site().gate()
    gate.reserve(PATIENTS, plan(10), purpose="one")
    gate.reserve(PATIENTS, plan(6), purpose="two")
    state = gate.budget(PATIENTS)
    assert (state.epsilon_plan, state.epsilon_enforced, state.opened) == (8.0, 8.0, False)
    assert (state.epsilon_remaining, state.state, state.told) == (0, "closed to further plans", "")
    with pytest.raises(BudgetExhausted):
        gate.reserve(PATIENTS, plan(1), purpose="three")


def test_a_refusal_names_all_figures_and_what_would_fit() -> None:
    gate = Site().gate()
    gate.reserve(PATIENTS, plan(4), purpose="one")
    with pytest.raises(BudgetExhausted) as caught:
        gate.reserve(PATIENTS, plan(20), purpose="two")
    assert caught.value.message == (
        "data set patients: with this plan epsilon would be 12.000 of 8 at delta 1e-05; "
        "spent 0.000, reserved 2.000, remaining 6.000"
    )
    rounds, noise = caught.value.hint.split(", or ")
    assert rounds == "plan 12 of these 20 equal steps"
    needed = float(noise.removeprefix("raise noise_multiplier to "))
    assert 20 / 6 <= needed < 1.02 * 20 / 6 + 0.01
    gate.reserve(PATIENTS, plan(20, replace(STEP, parameter=str(needed))), purpose="two")


def test_a_plan_of_several_kinds_is_cut_in_equal_rounds() -> None:
    with pytest.raises(BudgetExhausted) as caught:
        Site().gate().reserve(PATIENTS, Plan.of([Spend(STEP, 20), Spend(LAPLACE, 10)]), purpose="x")
    assert caught.value.hint == "plan 2 of these 10 equal steps"


def test_a_plan_of_which_nothing_fits_says_so() -> None:
    tiny = Site(policy=open_policy(budgets={PATIENTS: Budget(1e-6, 1e-5)}))
    with pytest.raises(BudgetExhausted) as caught:
        tiny.gate().reserve(PATIENTS, plan(1), purpose="x")
    assert caught.value.hint == "no part of this plan fits; ask the owner of the data set"


def test_after_an_output_later_plans_enter_by_the_filter_alone() -> None:
    gate = Site().gate()
    gate.reserve(PATIENTS, plan(8), purpose="one")
    gate.release(exchange(), [arrays()])
    with pytest.raises(BudgetExhausted, match="by the filter for plans chosen after outputs"):
        gate.reserve(PATIENTS, plan(5), purpose="two")
    gate.reserve(PATIENTS, plan(4), purpose="two")
    state = gate.budget(PATIENTS)
    assert (state.epsilon_enforced, state.epsilon_remaining) == (7.5, 0.5)
    assert state.state == "open to further plans, by the filter"
    assert "7.500 of 8; 0.500 of it remain" in state.told


def test_what_remains_is_what_the_rule_that_governs_leaves() -> None:
    gate = Site().gate()
    gate.reserve(PATIENTS, plan(14), purpose="one")
    assert gate.budget(PATIENTS).epsilon_remaining == 1.0
    gate.release(exchange(), [arrays()])
    state = gate.budget(PATIENTS)
    assert (state.epsilon_plan, state.epsilon_enforced) == (7.0, 8.75)
    assert (state.epsilon_remaining, state.state) == (0.0, "closed to further plans")
    assert "nothing of it remains" in state.told
    with pytest.raises(BudgetExhausted, match=r"remaining 0\.000"):
        gate.reserve(PATIENTS, plan(1), purpose="two")


def test_an_account_is_told_in_sentences() -> None:
    gate = Site().gate()
    gate.free(gate.reserve(PATIENTS, plan(1), purpose="one"))
    gate.release(exchange(), [private_arrays(gate.reserve(PATIENTS, plan(6), purpose="x"), 2)])
    unused, used, spent, note = gate.ledger(PATIENTS)
    assert unused.startswith("Reserved: 1 step of ")
    assert unused.endswith("; given back unused.")
    assert used.startswith("Reserved: 6 steps of ")
    assert used.endswith("; 2 of 6 ran.")
    assert spent.startswith("Spent: epsilon 1.000 of 8, at delta 1e-05, for one record; ")
    assert note.startswith("Note: ")


def test_a_first_multiset_above_the_filter_admits_nothing_later_even_when_freed() -> None:
    gate = Site().gate()
    used = gate.reserve(PATIENTS, plan(1), purpose="one")
    unused = gate.reserve(PATIENTS, plan(14), purpose="two")
    gate.release(exchange(), [private_arrays(used)])
    gate.free(unused)
    with pytest.raises(BudgetExhausted):
        gate.reserve(PATIENTS, plan(1), purpose="three")


def test_a_plan_freed_before_any_output_makes_room() -> None:
    gate = Site().gate()
    gate.free(gate.reserve(PATIENTS, plan(16), purpose="one"))
    gate.reserve(PATIENTS, plan(16), purpose="two")


def test_another_unit_or_adjacency_than_the_budgets_is_refused() -> None:
    gate = Site().gate()
    with pytest.raises(PolicyRefused, match="protects a record, the plan a site"):
        gate.reserve(PATIENTS, plan(1, replace(STEP, unit="site")), purpose="x")
    gate.reserve(PATIENTS, plan(1), purpose="x")
    other = replace(LAPLACE, adjacency=Adjacency.REPLACE_ONE)
    with pytest.raises(PolicyRefused, match="different adjacency"):
        gate.reserve(PATIENTS, plan(1, other), purpose="x")


def test_the_filters_order_is_fixed_from_the_first_output_on() -> None:
    site = Site()
    gate = site.gate()
    gate.reserve(PATIENTS, plan(1), purpose="x")
    changed = replace(site, policy=open_policy(budgets={PATIENTS: Budget(8, 1e-5, filter_order=8)}))
    changed.gate().reserve(PATIENTS, plan(1), purpose="x")
    changed.gate().release(exchange(), [arrays()])
    back = replace(site, policy=open_policy(budgets={PATIENTS: Budget(8, 1e-5, filter_order=4.0)}))
    with pytest.raises(PolicyRefused, match=r"filter_order is 4.0, yet it was fixed at 8"):
        back.gate().reserve(PATIENTS, plan(1), purpose="x")


def test_a_data_set_without_a_budget_makes_no_private_release() -> None:
    with pytest.raises(PolicyRefused, match="has no privacy budget"):
        Site(policy=SitePolicy()).gate().reserve(PATIENTS, plan(1), purpose="x")


def test_the_figures_survive_a_restart_exactly() -> None:
    site = Site()
    gate = site.gate()
    gate.release(exchange(), [private_arrays(gate.reserve(PATIENTS, plan(6), purpose="x"), 2)])
    assert site.gate().budget(PATIENTS) == gate.budget(PATIENTS)
    assert gate.budget(PATIENTS).unit == Unit.RECORD
    assert gate.budget(PATIENTS).epsilon_remaining == 4.25
