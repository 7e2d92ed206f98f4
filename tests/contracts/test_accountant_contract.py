"""What every accountant guarantees; run over each adapter."""

from __future__ import annotations

import math

import pytest

from comity.adapters.accounting.dp_accountant import DpAccountant
from comity.core.privacy.event import (
    Adjacency,
    Mechanism,
    Plan,
    PrivacyEvent,
    Sampling,
    Spend,
)
from comity.errors import ConfigError
from comity.ports import Accountant

EMPTY = Plan(())


@pytest.fixture(params=[DpAccountant])
def accountant(request: pytest.FixtureRequest) -> Accountant:
    made: Accountant = request.param()
    return made


def gaussian(noise: str, count: int = 1, **fields: object) -> Plan:
    event = PrivacyEvent(Mechanism.GAUSSIAN, noise, **fields)  # type: ignore[arg-type]  # per table
    return Plan((Spend(event, count),))


def exact_epsilon(noise: float, delta: float) -> float:
    """Balle and Wang (2018), Theorem 8, by bisection: the Gaussian mechanism's exact epsilon."""

    def spent(epsilon: float) -> float:
        def phi(x: float) -> float:
            return 0.5 * math.erfc(-x / math.sqrt(2))

        half = 1 / (2 * noise)
        return phi(half - epsilon * noise) - math.exp(epsilon) * phi(-half - epsilon * noise)

    low, high = 0.0, 100.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize(("noise", "count"), [("1", 1), ("2", 4), ("5", 1), ("4", 30)])
def test_unsampled_gaussians_cost_what_the_exact_formula_says(
    accountant: Accountant, noise: str, count: int
) -> None:
    exact = exact_epsilon(float(noise) / math.sqrt(count), 1e-5)
    assert exact <= accountant.epsilon(gaussian(noise, count), 1e-5) <= exact * 1.001 + 1e-3


def test_a_discrete_gaussian_costs_what_the_continuous_one_costs(accountant: Accountant) -> None:
    discrete = Plan((Spend(PrivacyEvent(Mechanism.DISCRETE_GAUSSIAN, "2"), 3),))
    assert accountant.epsilon(discrete, 1e-6) == accountant.epsilon(gaussian("2", 3), 1e-6)


def test_replacing_a_record_costs_as_much_as_half_the_noise(accountant: Accountant) -> None:
    replaced = gaussian("2", adjacency=Adjacency.REPLACE_ONE)
    assert accountant.epsilon(replaced, 1e-5) == pytest.approx(
        accountant.epsilon(gaussian("1"), 1e-5)
    )


def test_pure_mechanisms_cost_their_epsilon(accountant: Accountant) -> None:
    laplace = Plan((Spend(PrivacyEvent(Mechanism.LAPLACE, "0.7")),))
    response = PrivacyEvent(Mechanism.RANDOMISED_RESPONSE, "1", adjacency=Adjacency.REPLACE_ONE)
    assert accountant.epsilon(laplace, 1e-12) == pytest.approx(0.7, abs=1e-3)
    assert accountant.epsilon(Plan((Spend(response),)), 1e-12) == pytest.approx(1.0, abs=1e-3)


def test_nothing_costs_nothing(accountant: Accountant) -> None:
    assert accountant.epsilon(EMPTY, 1e-5) == 0
    assert accountant.filter_epsilon(EMPTY, 1e-5, 4.0) == 0


def test_more_costs_more_and_sampling_costs_less(accountant: Accountant) -> None:
    sampled = gaussian("1", 10, sampling=Sampling.POISSON, sampling_rate="0.1")
    assert accountant.epsilon(sampled, 1e-5) < accountant.epsilon(gaussian("1", 10), 1e-5)
    assert accountant.epsilon(gaussian("1", 9), 1e-5) < accountant.epsilon(gaussian("1", 10), 1e-5)


def test_the_filter_never_admits_more_than_the_plan_s_own_bound(accountant: Accountant) -> None:
    plan = gaussian("1", 50, sampling=Sampling.POISSON, sampling_rate="0.1")
    for order in (2.0, 4.0, 8.0, 32.0):
        assert accountant.filter_epsilon(plan, 1e-6, order) >= accountant.epsilon(plan, 1e-6)


@pytest.mark.parametrize(
    ("sampling", "adjacency"),
    [
        (Sampling.WITHOUT_REPLACEMENT, Adjacency.ADD_OR_REMOVE_ONE),
        (Sampling.WITHOUT_REPLACEMENT, Adjacency.REPLACE_ONE),
        (Sampling.POISSON, Adjacency.REPLACE_ONE),
    ],
)
def test_sampling_without_a_known_bound_is_never_credited(
    accountant: Accountant, sampling: Sampling, adjacency: Adjacency
) -> None:
    plan = gaussian("1", sampling=sampling, sampling_rate="0.1", adjacency=adjacency)
    with pytest.raises(ConfigError, match="no bound is known"):
        accountant.epsilon(plan, 1e-5)


def test_randomised_response_is_local_so_no_record_is_added_or_removed(
    accountant: Accountant,
) -> None:
    plan = Plan((Spend(PrivacyEvent(Mechanism.RANDOMISED_RESPONSE, "1")),))
    with pytest.raises(ConfigError, match="no bound is known"):
        accountant.epsilon(plan, 1e-5)
    with pytest.raises(ConfigError, match="no bound is known"):
        accountant.filter_epsilon(plan, 1e-5, 4.0)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan])
def test_a_delta_that_says_nothing_is_refused(accountant: Accountant, delta: float) -> None:
    with pytest.raises(ConfigError, match="delta"):
        accountant.epsilon(gaussian("1"), delta)


@pytest.mark.parametrize("order", [1.0, 0.5, math.inf, math.nan])
def test_an_order_that_bounds_nothing_is_refused(accountant: Accountant, order: float) -> None:
    with pytest.raises(ConfigError, match="order"):
        accountant.filter_epsilon(gaussian("1"), 1e-5, order)


def test_a_plan_of_two_adjacencies_is_refused(accountant: Accountant) -> None:
    mixed = gaussian("1") + gaussian("1", adjacency=Adjacency.REPLACE_ONE)
    with pytest.raises(ConfigError, match="adjacencies"):
        accountant.epsilon(mixed, 1e-5)


def test_a_plan_without_end_is_refused(accountant: Accountant) -> None:
    with pytest.raises(ConfigError, match="more than"):
        accountant.epsilon(gaussian("1", 1_000_001), 1e-5)


def test_it_says_who_computed(accountant: Accountant) -> None:
    assert any(digit.isdigit() for digit in accountant.version())


@pytest.mark.parametrize(
    ("mechanism", "text"),
    [
        (Mechanism.LAPLACE, "1e-400"),
        (Mechanism.LAPLACE, "1e400"),
        (Mechanism.DISCRETE_GAUSSIAN, "1e400"),
        (Mechanism.DISCRETE_GAUSSIAN, "1e-9"),
        (Mechanism.RANDOMISED_RESPONSE, "1e5"),
        (Mechanism.GAUSSIAN, "1_0e-2"),
        (Mechanism.GAUSSIAN, "\u0661\u0662"),
        (Mechanism.GAUSSIAN, "1" * 60),
        (Mechanism.GAUSSIAN, "inf"),
        (Mechanism.GAUSSIAN, " 1"),
    ],
)
def test_a_figure_that_no_arithmetic_holds_is_refused_at_construction(
    mechanism: Mechanism, text: str
) -> None:
    with pytest.raises(ConfigError, match="parameter"):
        PrivacyEvent(mechanism, text)


@pytest.mark.parametrize("text", ["1e-400", "1e-19", "\u0661", "1_0e-2"])
def test_a_sampling_rate_that_no_arithmetic_holds_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="sampling_rate"):
        PrivacyEvent(Mechanism.GAUSSIAN, "1", Sampling.POISSON, text)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("mechanism", "text", "sampling", "rate"),
    [
        (Mechanism.DISCRETE_GAUSSIAN, "0.001", Sampling.NONE, "1"),
        (Mechanism.DISCRETE_GAUSSIAN, "0.05", Sampling.POISSON, "0.01"),
        (Mechanism.DISCRETE_GAUSSIAN, "1e9", Sampling.NONE, "1"),
        (Mechanism.LAPLACE, "100", Sampling.NONE, "1"),
        (Mechanism.LAPLACE, "1e-9", Sampling.NONE, "1"),
    ],
)
@pytest.mark.parametrize("count", [1, 1_000_000])
def test_the_extremes_are_answered_soon_and_with_a_bound(
    mechanism: Mechanism, text: str, sampling: Sampling, rate: str, count: int
) -> None:
    plan = Plan((Spend(PrivacyEvent(mechanism, text, sampling, rate), count),))
    for epsilon in (
        DpAccountant().epsilon(plan, 1e-5),
        DpAccountant().filter_epsilon(plan, 1e-5, 4.0),
    ):
        assert epsilon >= 0
        if mechanism is Mechanism.DISCRETE_GAUSSIAN and float(text) < 1:
            assert epsilon > 50
