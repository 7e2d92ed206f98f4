"""Flower apps on threads, with and without secure sums; each says what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.app import RecordDict as Records
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy

from comity.adapters.flower.app import LoadedApp
from comity.adapters.flower.engine import EngineSettings, RunOutcome, run_app
from comity.adapters.flower.site_engine import SimulatedSite
from comity.bootstrap.sums import with_sums
from comity.events import Event
from comity.ids import FederationName, SiteName
from comity.services.gate import UnsafeSimulationGate
from comity.services.sum_plan import SumSettings

FEDERATION = FederationName("simulation")
EVERYTHING = frozenset({"train", "evaluate"})

ServerMain = Callable[[Grid, Context], None]
Train = Callable[["Asked"], Records]


@dataclass(frozen=True)
class Asked:
    """One call of an app: by which site, in which call of its own, and what it was sent."""

    site: int
    number: int
    message: Message

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays that came in."""
        (record,) = self.message.content.array_records.values()
        return {name: array.numpy() for name, array in record.items()}


@dataclass
class Seen:
    """What the sites of a run were asked, and what happened."""

    calls: list[tuple[int, str]] = field(default_factory=list)
    contents: list[Records] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def of(self, kind: str) -> list[int]:
        """The sites that an app was called at for `kind`, in order."""
        return [site for site, asked in self.calls if asked == kind]


def records(
    arrays: dict[str, Any] | None = None, metrics: dict[str, Any] | None = None, **more: Any
) -> Records:
    """A reply or request of one array record and one metric record."""
    content = Records()
    if arrays is not None:
        content["arrays"] = ArrayRecord(
            {name: Array(np.asarray(value)) for name, value in arrays.items()}
        )
    if metrics is not None:
        content["metrics"] = MetricRecord(metrics)
    if more:
        content["config"] = ConfigRecord(more)
    return content


def client(seen: Seen, train: Train, evaluate: Train | None = None, **queries: Train) -> ClientApp:
    """A `ClientApp` of functions from what is asked to the reply's records."""
    app = ClientApp()

    def told(kind: str, answer: Train) -> Callable[[Message, Context], Message]:
        def called(message: Message, context: Context) -> Message:
            site = int(context.node_config["partition-id"])
            seen.calls.append((site, kind))
            seen.contents.append(message.content)
            number = seen.calls.count((site, kind))
            return Message(answer(Asked(site, number, message)), reply_to=message)

        return called

    app.train()(told("train", train))
    app.evaluate()(told("evaluate", evaluate or scored))
    for name, answer in queries.items():
        app.query(name)(told(f"query.{name}", answer))
    return app


def scored(asked: Asked) -> Records:
    """An evaluate reply that depends on site and model."""
    total = sum(float(np.sum(array)) for array in asked.arrays.values())
    examples = 500 + 100 * asked.site
    return records(None, {"num-examples": examples, "loss": total / 7 + asked.site, "n": 3})


def fitted(asked: Asked) -> Records:
    """A train reply: a step towards the site's own optimum, with some of the app's own noise."""
    rng = np.random.RandomState(int(np.random.randint(2**31)))  # noqa: NPY002 - as apps draw
    arrays = {}
    for place, (name, array) in enumerate(asked.arrays.items()):
        goal = np.cos(np.arange(array.size) + asked.site + place).reshape(array.shape)
        step = 0.25 * (goal - array) + 0.01 * rng.standard_normal(array.shape)
        arrays[name] = (array + step).astype(array.dtype)
    loss = float(abs(arrays[next(iter(arrays))]).sum())
    return records(arrays, {"num-examples": 500 + 100 * asked.site, "loss": loss, "steps": 5})


def simulated(count: int) -> list[SimulatedSite]:
    """So many sites of the caller's own."""
    return [
        SimulatedSite(SiteName(f"site-{index + 1}"), UnsafeSimulationGate())
        for index in range(count)
    ]


def ran(
    main: ServerMain,
    app: ClientApp,
    *,
    sites: int | Sequence[SimulatedSite] = 4,
    secure: SumSettings | None = None,
    seen: Seen | None = None,
    **how: Any,
) -> RunOutcome:
    """Runs an app on threads; with secure sums where settings are given."""
    server = ServerApp()
    server.main()(main)
    here = simulated(sites) if isinstance(sites, int) else list(sites)
    sums = None
    if secure is not None:
        here, sums = with_sums(here, secure, EVERYTHING, FEDERATION)
    told = seen.events.append if seen is not None else _ignore
    settings = EngineSettings(threads=True, **how)
    return run_app(LoadedApp("test", server, app), here, settings, told, sums)


def _ignore(event: Event) -> None:
    del event


def starting(
    make: Callable[[], Strategy], start: dict[str, Any], rounds: int = 3, **how: Any
) -> ServerMain:
    """A ``main`` that runs a strategy and leaves arrays and histories in the state."""

    def main(grid: Grid, context: Context) -> None:
        first = ArrayRecord({name: Array(np.asarray(value)) for name, value in start.items()})
        keep(make().start(grid, first, num_rounds=rounds, **how), context)

    return main


def keep(result: Result, context: Context) -> None:
    """Leaves a result in the state: arrays, and each metric as a list over rounds."""
    if result.arrays:
        context.state["arrays"] = result.arrays
    for name, history in (
        ("train", result.train_metrics_clientapp),
        ("evaluate", result.evaluate_metrics_clientapp),
    ):
        names = sorted({key for record in history.values() for key in record})
        context.state[name] = MetricRecord(
            {
                "rounds": sorted(history),
                **{key: [float(history[r][key]) for r in sorted(history)] for key in names},  # type: ignore[arg-type]  # scalars
            }
        )
