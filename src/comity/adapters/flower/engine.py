"""The `local` engine: runs a Flower app on this machine, with its sites in worker processes."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.exception import InconsistentMessageReplies
from numpy.typing import NDArray

from comity.adapters.flower.app import AppSource, LoadedApp, load_client, load_server
from comity.adapters.flower.calls import print_app_traceback
from comity.adapters.flower.crew import Crew
from comity.adapters.flower.grid import LocalGrid, RunIdentity, Tally
from comity.adapters.flower.private_names import COORDINATOR_NODE, empty_run, enter_run
from comity.adapters.flower.processes import CrewSettings, ProcessCrew
from comity.adapters.flower.refusals import withheld_needed
from comity.adapters.flower.secure_grid import SecureGrid
from comity.adapters.flower.seeds import (
    GeneratorStates,
    call_seed,
    seed_generators,
    simulated_secret,
)
from comity.adapters.flower.site_engine import SimulatedSite
from comity.adapters.flower.strategies import strategies_checked
from comity.adapters.flower.threads import ThreadCrew
from comity.core.policy.rule import PROTECTED
from comity.core.secagg.mask import apply_streams
from comity.errors import ComityError, ConfigError, UnavailableError
from comity.events import (
    Event,
    EventSink,
    ExchangeFinished,
    RunFinished,
    ignore,
    marked,
    raised_by_listener,
)
from comity.ids import RunId, SiteName
from comity.services.sum_epoch import Coordinator
from comity.services.sum_plan import SumSettings
from comity.services.sum_run import SumRun, Unmask


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How a local run is carried out.

    Attributes:
        threads: Run the sites in this process instead of worker processes.
        parallel_threads: Let calls in this process overlap, which gives determinism up.
        workers: Worker processes or parallel threads; None for one a core.
        seed: What all app randomness comes from; the same seed gives the same bits.
        threads_per_call: Threads that numeric libraries use in one app call.
        max_reply_bytes: Bound on what one app call may answer.
        start_timeout_s: How long importing the app may take, in seconds.
        unsafe_threads_with_policy: Let the app share the process with gates that keep a policy:
            then it can reach past them.
    """

    threads: bool = False
    parallel_threads: bool = False
    workers: int | None = None
    seed: int = 0
    threads_per_call: int = 1
    max_reply_bytes: int = 1 << 31
    start_timeout_s: float = 120.0
    unsafe_threads_with_policy: bool = False

    def __post_init__(self) -> None:
        for name in ("workers", "threads_per_call", "max_reply_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", hint=f"set {name} to 1 or more")
        if self.parallel_threads and not self.threads:
            raise ConfigError("parallel_threads needs threads", hint="add --threads")


@dataclass(frozen=True, slots=True)
class SumParts:
    """What a run with secure sums needs besides its sites.

    Attributes:
        coordinator: Who asks, and the roster.
        settings: What the run asks for.
        protected: Categories of messages whose replies are summed.
        unmask: How masks are taken off.
    """

    coordinator: Coordinator
    settings: SumSettings = field(default_factory=SumSettings)
    protected: frozenset[str] = PROTECTED
    unmask: Unmask = apply_streams


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run left behind.

    Attributes:
        run: Its id.
        seed: Its seed.
        exchanges: How many times the ServerApp sent messages.
        replies: Usable replies over all exchanges.
        dropouts: Messages without a usable reply, by error class.
        site_dropouts: The same by site.
        withheld: Parts that sites withheld, counted by the policy that said so.
        released_bytes: Array bytes that left each site.
        seconds: Wall time of the whole run.
        first_exchange_s: Wall time of the first exchange.
        arrays: Array records that the ServerApp left in its state, by record name.
        metrics: Metric records that it left there, by record name.
    """

    run: RunId
    seed: int
    exchanges: int
    replies: int
    dropouts: Mapping[str, int]
    site_dropouts: Mapping[SiteName, Mapping[str, int]]
    withheld: Mapping[str, int]
    released_bytes: Mapping[SiteName, int]
    seconds: float
    first_exchange_s: float
    arrays: Mapping[str, Mapping[str, NDArray[Any]]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))


def run_app(
    app: LoadedApp,
    sites: Sequence[SimulatedSite],
    settings: EngineSettings | None = None,
    events: EventSink = ignore,
    sums: SumParts | None = None,
) -> RunOutcome:
    """Runs a Flower app over simulated sites on this machine.

    Guarantees: equal app, sites, seed give equal bits, in worker processes or on threads, however
    many workers; replies pass their site's door; no worker, no shared memory and, on Linux, nothing
    that an app left running under its worker's environment outlives the call.

    Args:
        app: What to run.
        sites: At least one; their order is the order of sums.
        settings: How to run it.
        events: Told of each exchange, dropout and the end.
        sums: Sums replies securely; None leaves them to each site's own rules.

    Raises:
        ConfigError: The app cannot be loaded, or its ServerApp raised.
        PolicyRefused: Sites release only into a secure sum, and this run has none.
        StrategyRefused: The app's strategy would be wrong under a secure sum.
        RefusedError: Every site's gate refused an exchange, or withheld what the strategy needs.
        UnavailableError: The workers do not start, no site ever answered, or none ever trained.
    """
    settings = settings or EngineSettings()
    if not sites:
        raise ConfigError("a run needs sites", hint="give at least one, such as --sites 2")
    if not _RUNNING.acquire(blocking=False):
        raise UnavailableError("another run is under way in this process", hint="wait for it")
    started, states = time.monotonic(), GeneratorStates.now()
    number = secrets.randbits(63)
    identity = RunIdentity(number, RunId(f"{number:016x}"), settings.seed, app.digest)
    timed = _Timed(marked(events))
    try:
        crew = _crew(app, number, len(sites), settings)
        try:
            server = _ready(app, crew)
            grid = LocalGrid(empty_run(number), identity, sites, crew, timed)
            with _torch_threads(settings.threads_per_call), strategies_checked():
                state = _run_server(server, app, identity, (grid, _outer(grid, sums, timed)))
        finally:
            crew.close()
    finally:
        states.restore()
        _RUNNING.release()
    seconds = time.monotonic() - started
    events(RunFinished(identity.name, grid.tally.exchanges, seconds))
    return _outcome(identity, grid.tally, (seconds, timed.first_exchange_s), state)


def _outer(grid: LocalGrid, sums: SumParts | None, events: EventSink) -> Grid:
    """The grid that the ServerApp sees."""
    if sums is None:
        return grid
    run = SumRun(sums.coordinator, grid.name, sums.settings, events, sums.unmask)
    return SecureGrid(grid, run, events, sums.protected)


@dataclass(slots=True)
class _Timed:
    """Passes events on and notes how long the first exchange took."""

    events: EventSink
    first_exchange_s: float = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, ExchangeFinished):
            self.first_exchange_s = self.first_exchange_s or event.seconds
        self.events(event)


_RUNNING = threading.Lock()


def _crew(app: LoadedApp, run_id: int, sites: int, settings: EngineSettings) -> Crew:
    cores = len(os.sched_getaffinity(0))
    workers = min(settings.workers or cores, sites)
    if settings.threads:
        client = load_client(app.client) if isinstance(app.client, AppSource) else app.client
        return ThreadCrew(client, run_id, app.config, workers if settings.parallel_threads else 1)
    if isinstance(app.client, ClientApp):
        raise ConfigError(
            "an app made in this process cannot run in worker processes",
            hint="run it on threads, or put it into a module and give its folder",
        )
    limits = CrewSettings(
        workers, settings.threads_per_call, settings.max_reply_bytes, settings.start_timeout_s
    )
    return ProcessCrew(app.client, run_id, app.config, limits)


def _ready(app: LoadedApp, crew: Crew) -> ServerApp:
    """The `ServerApp`, imported while worker processes start; the crew can take calls then."""
    if not isinstance(crew, ProcessCrew):
        return load_server(app)
    crew.start()
    server = load_server(app)
    crew.wait_ready()
    return server


def _run_server(
    server: ServerApp, app: LoadedApp, identity: RunIdentity, grids: tuple[LocalGrid, Grid]
) -> RecordDict:
    grid, outer = grids
    enter_run(identity.run)
    context = Context(identity.run, COORDINATOR_NODE, {}, RecordDict(), dict(app.config))
    secret = simulated_secret(identity.seed, "coordinator")
    seed_generators(call_seed(secret, identity.seed, "coordinator"))
    _call_server(server, grid, outer, context)
    if grid.tally.exchanges and not grid.tally.replies:
        seen = ", ".join(f"{name} ({count})" for name, count in grid.tally.dropouts.items())
        raise UnavailableError(
            f"no site ever gave a usable reply: {seen or 'time ran out'}",
            hint="the sites' own output above says why",
        )
    grid.refusals.check_trained()
    return context.state


def _call_server(server: ServerApp, grid: LocalGrid, outer: Grid, context: Context) -> None:
    try:
        server(outer, context)
    except (ComityError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the wall: a ServerApp may call sys.exit
        if raised_by_listener(error):
            raise  # a progress display failed, not the app
        if isinstance(error, SystemExit) and error.code in (None, 0):
            return
        refused = withheld_needed(grid.tally.withheld)
        if isinstance(error, InconsistentMessageReplies) and refused is not None:
            raise refused from error
        print_app_traceback(error)
        grid.refusals.check_trained()
        withheld = ", ".join(grid.tally.withheld)
        raise ConfigError(
            f"the ServerApp raised {type(error).__name__}: {error}",
            hint=f"sites withheld what it may need: {withheld}"
            if withheld
            else "its traceback stands above; run the app's own tests",
        ) from error


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """Holds an imported torch to so many threads: their number decides bits."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _outcome(
    identity: RunIdentity, tally: Tally, seconds: tuple[float, float], state: RecordDict
) -> RunOutcome:
    arrays = {
        name: {key: array.numpy() for key, array in record.items()}
        for name, record in state.items()
        if isinstance(record, ArrayRecord)
    }
    metrics = {n: dict(record) for n, record in state.items() if isinstance(record, MetricRecord)}
    return RunOutcome(
        identity.name,
        identity.seed,
        tally.exchanges,
        tally.replies,
        tally.dropouts,
        tally.site_dropouts,
        tally.withheld,
        tally.released_bytes,
        *seconds,
        arrays,
        metrics,
    )
