"""Epsilons at delta 1e-6 that were computed before, by other code (dp-accounting 0.6 directly)."""

from __future__ import annotations

import pytest

from comity.adapters.accounting.dp_accountant import DpAccountant
from comity.core.privacy.event import Mechanism, Plan, PrivacyEvent, Sampling, Spend

ROUNDS = Spend(PrivacyEvent(Mechanism.DISCRETE_GAUSSIAN, "1", Sampling.POISSON, "0.1"), 50)
COUNTS = Spend(PrivacyEvent(Mechanism.GAUSSIAN, "20"), 200)
LAPLACE = Spend(PrivacyEvent(Mechanism.LAPLACE, "0.02"), 200)


@pytest.mark.parametrize(
    ("spends", "pld", "order_4", "order_8"),
    [
        ((ROUNDS,), 5.99, 6.79, 70),
        ((ROUNDS, COUNTS), 6.91, 7.79, 72),
        ((ROUNDS, LAPLACE), 6.14, 6.95, 71),
    ],
)
def test_epsilon_of_a_run_and_statistics(
    spends: tuple[Spend, ...], pld: float, order_4: float, order_8: float
) -> None:
    accountant, plan = DpAccountant(), Plan.of(spends)
    assert accountant.epsilon(plan, 1e-6) == pytest.approx(pld, abs=0.006)
    assert accountant.filter_epsilon(plan, 1e-6, 4.0) == pytest.approx(order_4, abs=0.006)
    assert accountant.filter_epsilon(plan, 1e-6, 8.0) == pytest.approx(order_8, abs=0.6)


@pytest.mark.parametrize(("rounds", "budget", "fits"), [(98, 8, True), (99, 8, False)])
def test_how_many_rounds_fit_a_budget(rounds: int, budget: float, *, fits: bool) -> None:
    plan = Plan((Spend(ROUNDS.event, rounds),))
    assert (DpAccountant().epsilon(plan, 1e-6) <= budget) is fits
