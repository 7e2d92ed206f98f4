"""Secure sums from an app's own code: explicit in hand-written loops, and on stock Flower."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from comity.errors import ConfigError
from comity.services.sum_plan import SumSettings

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp.typing import ClientAppCallable
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Result, Strategy

MEMBER_KEY: Final = "comity-member"
MEMBERS_KEY: Final = "comity-members"


def secure_mean(
    grid: Grid, messages: Iterable[Message], *, timeout: float | None = None
) -> Message:
    """The weighted mean of the replies to equal messages, as one reply: for hand-written loops.

    Args:
        grid: The grid that the engine gave to ``main``, in a run with secure sums.
        messages: One for each site, of one type and content.
        timeout: Seconds until sites without a reply have dropped out.

    Raises:
        StrategyRefused: The run has no secure sums, or the messages differ.
        CohortTooSmall: Too few sites for a secure sum.
        UnavailableError: No attempt gave a sum.
    """
    from comity.adapters.flower import secure_grid  # noqa: PLC0415 - flwr is an extra

    return secure_grid.secure_mean(grid, messages, timeout=timeout)


def secure_aggregation_mod(
    message: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    """A mod for stock Flower: ``ClientApp(mods=[comity.secure_aggregation_mod])``.

    The site's member folder is ``comity-member`` of the node's configuration; in Flower's
    simulation ``comity-members`` of the run's, the folder of all of them. It runs in the app's own
    process, so it protects against the coordinator, not against the app.

    Raises:
        ConfigError: There is no member folder.
    """
    from comity.adapters.flower.secure_mod import through_sums  # noqa: PLC0415 - flwr is an extra
    from comity.bootstrap.members import summing_member  # noqa: PLC0415 - likewise

    return through_sums(summing_member(_member_folder(context)), message, context, call_next)


class SecureAggregation:
    """A strategy whose replies are summed securely, on stock Flower.

    Args:
        strategy: One of Flower's mean strategies.
        members: The coordinator's member folder, or the folder that holds it.
        settings: What the run asks for.

    Raises:
        StrategyRefused: The strategy needs single replies.
        ConfigError: There is no such member folder.
    """

    def __init__(
        self, strategy: Strategy, members: Path | str, settings: SumSettings | None = None
    ) -> None:
        from comity.adapters.flower.strategies import (  # noqa: PLC0415 - flwr is an extra
            check_strategy,
        )
        from comity.bootstrap.members import coordinating_member  # noqa: PLC0415 - likewise
        from comity.bootstrap.sums import COORDINATOR  # noqa: PLC0415 - likewise

        settings = settings or SumSettings()
        check_strategy(strategy, settings.terms.weight_key)
        folder = Path(members)
        folder = folder if folder.name == COORDINATOR else folder / COORDINATOR
        self._strategy = strategy
        self._parts = coordinating_member(folder, settings)

    def start(self, grid: Grid, *args: Any, **kwargs: Any) -> Result:  # noqa: ANN401 - as Strategy.start
        """Runs the strategy; arguments as of flwr's ``Strategy.start``.

        Raises:
            CohortTooSmall: Too few sites for a secure sum.
            UnavailableError: No attempt gave a sum.
        """
        from comity.adapters.flower.secure_grid import SecureGrid  # noqa: PLC0415 - flwr is an extra
        from comity.adapters.flower.secure_mod import run_name  # noqa: PLC0415 - likewise
        from comity.services.sum_run import SumRun  # noqa: PLC0415 - likewise

        parts = self._parts
        sums = SumRun(parts.coordinator, run_name(grid.run.run_id), parts.settings)
        outer = SecureGrid(grid, sums, in_band=True)
        with outer.admit(self._strategy):
            return self._strategy.start(outer, *args, **kwargs)


def _member_folder(context: Context) -> Path:
    own = context.node_config.get(MEMBER_KEY)
    if own:
        return Path(str(own))
    members = context.run_config.get(MEMBERS_KEY)
    if members and "partition-id" in context.node_config:
        return Path(str(members)) / f"site-{int(context.node_config['partition-id']) + 1}"
    raise ConfigError(
        "this node has no member folder for secure sums",
        hint=f"set {MEMBER_KEY} in the node's configuration; in simulation, {MEMBERS_KEY} in the "
        "run's",
    )
