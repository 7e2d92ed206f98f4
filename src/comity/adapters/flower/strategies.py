"""Which strategies a secure sum is right for: those whose aggregate is the weighted mean.

The sum gives a strategy one reply, the mean. One that ranks, compares or clips single replies would
take that mean for everything, silently; so this is a list of what is known to work, by class and
without overridden aggregation, and everything else is refused by name before any training.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Final, Protocol

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy

from comity.adapters.flower.parts import SiteMean
from comity.core.policy.rule import PROTECTED
from comity.errors import StrategyRefused

MEANS: Final[frozenset[type[Strategy]]] = frozenset(
    {
        flower.FedAvg,
        flower.FedProx,
        flower.FedAvgM,
        flower.FedAdam,
        flower.FedYogi,
        flower.FedAdagrad,
        SiteMean,
    }
)
_WAY_OUT: Final = (
    "run it without secure sums, or sum explicitly: comity.secure_mean(grid, messages)"
)
_REDUCING: Final = ("aggregate_", "_check_and_log_replies", "start")


class Admitting(Protocol):
    """A grid that lets a strategy's exchanges through once the strategy is known."""

    def admit(self, strategy: Strategy) -> contextlib.AbstractContextManager[None]:
        """Checks `strategy` and lets its exchanges through while it runs."""


def check_strategy(strategy: Strategy, weight_key: str, summed: frozenset[str] = PROTECTED) -> None:
    """Checks that one reply, the weighted mean, gives `strategy` the right result.

    Args:
        strategy: The strategy.
        weight_key: The metric that the sum weighs by.
        summed: The categories of messages whose replies it gets as one.

    Raises:
        StrategyRefused: It is not known to be of that kind; says which part of it is not.
    """
    kind = type(strategy)
    known = next((cls for cls in kind.__mro__ if cls in MEANS), None)
    if known is None:
        raise StrategyRefused(
            f"{kind.__name__} does more with single replies than take their weighted mean, and a "
            "secure sum gives it the mean alone",
            hint=_WAY_OUT,
        )
    own = [vars(cls) for cls in kind.__mro__[: kind.__mro__.index(known)]]
    for names in (vars(strategy), *own):
        changed = [name for name in names if name.startswith(_REDUCING)]
        if changed:
            raise StrategyRefused(
                f"{kind.__name__} changes {', '.join(changed)} of {known.__name__}: what it would "
                "make of the mean alone is not known",
                hint=_WAY_OUT,
            )
    _check_callbacks(strategy, summed)
    weighed = getattr(strategy, "weighted_by_key", weight_key)
    if weighed != weight_key:
        raise StrategyRefused(
            f"{kind.__name__} weighs by {weighed!r}, and secure sums of this run by {weight_key!r}",
            hint=f"leave weighted_by_key out, and return the weight as {weight_key}",
        )


def _check_callbacks(strategy: Strategy, summed: frozenset[str]) -> None:
    plain = FedAvg()
    for category in sorted(summed):
        name = f"{category}_metrics_aggr_fn"
        if getattr(strategy, name) is not getattr(plain, name):
            raise StrategyRefused(
                f"{type(strategy).__name__} has a {name} of its own, which would see one reply",
                hint=f"leave {name} out: metrics come as their weighted mean",
            )


@contextlib.contextmanager
def strategies_checked() -> Iterator[None]:
    """While this holds, a strategy that starts on an `Admitting` grid is checked first."""
    original = Strategy.start

    @functools.wraps(original)
    def start(self: Strategy, grid: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as in flwr
        if not hasattr(grid, "admit"):
            return original(self, grid, *args, **kwargs)
        with grid.admit(self):
            return original(self, grid, *args, **kwargs)

    Strategy.start = start  # type: ignore[method-assign]  # the public entry of every strategy
    try:
        yield
    finally:
        Strategy.start = original  # type: ignore[method-assign]
