"""The accountant port over Google's dp-accounting.

Which bound is used where:

- `epsilon`: privacy loss distributions (Doroshenko et al. 2022) on a grid of 1e-4 or coarser,
  rounded up: Poisson batches under ``add_or_remove_one``, unsampled Gaussian and Laplace events
  under both adjacencies, randomised response (a local mechanism) under ``replace_one``. Where
  Renyi divergence at its best order already gives more than `_HOPELESS`, that bound is the answer:
  such an epsilon promises nothing, and its distribution takes minutes and gigabytes.
- `filter_epsilon`: Renyi divergence at the one order given (Mironov et al. 2019 for Poisson), and
  the conversion of Canonne, Kamath and Steinke (2020), Proposition 12.

A discrete Gaussian counts as a continuous one of the same noise multiplier; why that is sound, to
1e-77, stands with the sampler in `comity.core.privacy.noise`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.metadata import version
from typing import Final

import dp_accounting
from dp_accounting import pld, rdp

from comity.core.privacy.event import Adjacency, Mechanism, Plan, PrivacyEvent, Sampling
from comity.errors import ConfigError

_GRID: Final = 1e-4
_MAX_COUNT: Final = 1_000_000
_CACHED: Final = 512
_HOPELESS: Final = 50.0
_QUICK_ORDERS: Final = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 64, 128, 256)
_NEIGHBOURS: Final = {
    Adjacency.ADD_OR_REMOVE_ONE: dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    Adjacency.REPLACE_ONE: dp_accounting.NeighboringRelation.REPLACE_ONE,
}


class DpAccountant:
    """Implements `comity.ports.Accountant`; keeps no state but a bounded cache.

    Args:
        grid: Discretisation of privacy losses; the error is upwards.
    """

    def __init__(self, grid: float = _GRID) -> None:
        self._grid = grid

    def epsilon(self, plan: Plan, delta: float) -> float:
        """The epsilon of a multiset fixed before its outputs; an upper bound.

        Raises:
            ConfigError: `delta` is outside (0, 1), the plan mixes adjacencies, counts more than a
                million events, or samples in a way that no bound is known for.
        """
        _check(plan, delta)
        return _plan_epsilon(plan, delta, self._grid)

    def filter_epsilon(self, plan: Plan, delta: float, order: float) -> float:
        """The epsilon of the Renyi filter at one order fixed beforehand.

        Raises:
            ConfigError: As for `epsilon`, or `order` is not above 1.
        """
        _check(plan, delta)
        if not (math.isfinite(order) and order > 1):
            raise ConfigError(f"order is {order}", hint="choose a Renyi order above 1, such as 4")
        return _filter_epsilon(plan, delta, order)

    def version(self) -> str:
        """Name and version of the library, with the grid."""
        return f"dp-accounting {version('dp-accounting')}, grid {self._grid:g}"


@lru_cache(maxsize=_CACHED)
def _plan_epsilon(plan: Plan, delta: float, grid: float) -> float:
    if not plan.spends:
        return 0.0
    quick = rdp.RdpAccountant(_QUICK_ORDERS, _neighbours(plan))
    if all(quick.supports(_dp_event(spend.event)) for spend in plan.spends):
        epsilon = _composed(quick, plan, delta)
        if epsilon > _HOPELESS:
            return epsilon
    return _composed(
        pld.PLDAccountant(_neighbours(plan), value_discretization_interval=grid), plan, delta
    )


@lru_cache(maxsize=_CACHED)
def _filter_epsilon(plan: Plan, delta: float, order: float) -> float:
    if not plan.spends:
        return 0.0
    return _composed(rdp.RdpAccountant([order], _neighbours(plan)), plan, delta)


def _composed(accountant: dp_accounting.PrivacyAccountant, plan: Plan, delta: float) -> float:
    for spend in plan.spends:
        event = _dp_event(spend.event)
        if not accountant.supports(event):
            raise _unsupported(spend.event)
        accountant.compose(event, spend.count)
    return float(accountant.get_epsilon(delta))


def _neighbours(plan: Plan) -> dp_accounting.NeighboringRelation:
    return _NEIGHBOURS[plan.spends[0].event.adjacency]


def _dp_event(event: PrivacyEvent) -> dp_accounting.DpEvent:
    parameter = float(event.parameter)
    match event.mechanism:
        case Mechanism.LAPLACE:
            return _sampled(event, dp_accounting.LaplaceDpEvent(1 / parameter))
        case Mechanism.RANDOMISED_RESPONSE:
            # dp-accounting's noise parameter replaces the answer by a uniform one of two.
            uniform = 2 / (1 + math.exp(parameter))
            return _sampled(event, dp_accounting.RandomizedResponseDpEvent(uniform, 2))
        case Mechanism.GAUSSIAN | Mechanism.DISCRETE_GAUSSIAN:
            # The library itself doubles the sensitivity under replace_one.
            return _sampled(event, dp_accounting.GaussianDpEvent(parameter))


def _sampled(event: PrivacyEvent, inner: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
    if event.sampling is Sampling.NONE:
        return inner
    if event.sampling is Sampling.POISSON and event.adjacency is Adjacency.ADD_OR_REMOVE_ONE:
        return dp_accounting.PoissonSampledDpEvent(float(event.sampling_rate), inner)
    raise _unsupported(event)


def _unsupported(event: PrivacyEvent) -> ConfigError:
    return ConfigError(
        f"no bound is known for {event.mechanism.value} with sampling {event.sampling.value} "
        f"under {event.adjacency.value}",
        hint="draw Poisson batches and account them under add_or_remove_one",
    )


def _check(plan: Plan, delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(f"delta is {delta}", hint="set delta below one over the records")
    if len({spend.event.adjacency for spend in plan.spends}) > 1:
        raise ConfigError("the plan mixes adjacencies", hint="account each adjacency by itself")
    if any(spend.count > _MAX_COUNT for spend in plan.spends):
        raise ConfigError(f"the plan counts one event more than {_MAX_COUNT:,} times")
