"""The one place where adapters meet services."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from comity.errors import ConfigError
from comity.events import EventSink, ignore
from comity.ids import SiteName

if TYPE_CHECKING:
    from comity.adapters.flower.engine import EngineSettings, RunOutcome

# --- comity run -------------------------------------------------------------------------------


def run_flower_app(
    folder: Path,
    sites: int,
    settings: EngineSettings,
    overrides: Sequence[str] = (),
    policy: Path | None = None,
    events: EventSink = ignore,
) -> RunOutcome:
    """Runs the Flower app in `folder` over `sites` simulated sites of the caller's own.

    Args:
        folder: Holds the app's ``pyproject.toml``.
        sites: How many sites.
        settings: How to run it.
        overrides: ``key=value`` over the app's run configuration.
        policy: A site file that every site follows; None lets everything pass.
        events: Told what happens.

    Raises:
        ConfigError: The app or the overrides are wrong.
    """
    from comity.adapters.flower.app_file import read_app  # noqa: PLC0415 - flwr only where it is used
    from comity.adapters.flower.engine import run_app  # noqa: PLC0415 - likewise
    from comity.adapters.flower.site_engine import SimulatedSite  # noqa: PLC0415 - likewise
    from comity.services.gate import UnsafeSimulationGate  # noqa: PLC0415 - likewise

    if policy is not None:
        raise ConfigError("--site-policy cannot be used yet")
    app = read_app(folder, overrides)
    names = [SiteName(f"site-{index}") for index in range(1, sites + 1)]
    here = [SimulatedSite(name, UnsafeSimulationGate()) for name in names]
    return run_app(app, here, settings, events)
