"""A Flower app behind the mod for secure sums, and sites by their members' folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from flwr.app import RecordDict as Records
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Strategy
from tests.fakes.summing import (
    Asked,
    Seen,
    Train,
    client,
    ran,
    records,
    starting,
)

import comity
from comity.adapters.flower.engine import RunOutcome
from comity.adapters.flower.site_engine import SimulatedSite
from comity.ids import SiteName
from comity.services.gate import UnsafeSimulationGate
from comity.services.sum_plan import SumSettings

SITES, ROUNDS = 5, 3
START: dict[str, Any] = {"w": np.linspace(-1, 1, 30), "b": np.full((2, 3), 0.25, np.float32)}


def stepped(asked: Asked) -> Records:
    """A train reply without noise: calls of the protocol would move an app's generators."""
    arrays = {}
    for name, array in asked.arrays.items():
        goal = np.cos(np.arange(array.size) + asked.site).reshape(array.shape)
        arrays[name] = (array + 0.25 * (goal - array)).astype(array.dtype)
    return records(arrays, {"num-examples": 500 + 100 * asked.site, "loss": asked.site / 7})


def modded(app: ClientApp, *outside: Any) -> ClientApp:
    """`app` behind the mod; mods `outside` see what it sends."""
    shielded = ClientApp(mods=[*outside, comity.secure_aggregation_mod])
    for decorate in (shielded.train(), shielded.evaluate(), shielded.query()):
        decorate(app)
    return shielded


def nodes(folders: Sequence[Path]) -> list[SimulatedSite]:
    return [
        SimulatedSite(
            SiteName(f"site-{number}"),
            UnsafeSimulationGate(),
            node_config={"comity-member": str(folder)},
        )
        for number, folder in enumerate(folders, start=1)
    ]


def own_folders(members: Path, sites: int = SITES) -> list[Path]:
    return [members / f"site-{number}" for number in range(1, sites + 1)]


def wrapped(make: Callable[[], Strategy], members: Path) -> Callable[[], Strategy]:
    settings = SumSettings(first_max_weight=2**11)
    return lambda: cast("Strategy", comity.SecureAggregation(make(), members, settings))


def secure_run(
    members: Path,
    *,
    make: Callable[[], Strategy] = FedAvg,
    train: Train = stepped,
    folders: Sequence[Path] | None = None,
    seen: Seen | None = None,
    outside: Sequence[Any] = (),
) -> RunOutcome:
    seen = seen or Seen()
    app = modded(client(seen, train), *outside)
    sites = nodes(own_folders(members) if folders is None else folders)
    return ran(starting(wrapped(make, members), START, ROUNDS), app, sites=sites, seen=seen)
