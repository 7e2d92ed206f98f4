"""The one place where adapters meet services."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.core.chain.heads import head_message
from comity.errors import ConfigError, JournalBehind, Verification
from comity.events import EventSink, ignore, marked
from comity.ids import CollectionName, DatasetName, FederationName, ReservationId, SiteName

if TYPE_CHECKING:
    from comity.adapters.flower.app import LoadedApp
    from comity.adapters.flower.engine import EngineSettings, RunOutcome
    from comity.adapters.flower.site_engine import SimulatedSite
    from comity.adapters.pki.keys import Identity
    from comity.bootstrap.sums import LastingSite
    from comity.config.federation import AskSection, FederationFile
    from comity.config.site import SiteFile
    from comity.core.policy.rule import SitePolicy
    from comity.ports import Journal, KeyStore, PassageStore, SignedHead
    from comity.services.ask import Gateway
    from comity.services.gate import Gate
    from comity.services.ingest import IngestReport
    from comity.services.search import SiteSearch
    from comity.services.sum_plan import SumSettings

# --- comity run -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a caller of `run_flower_app` may decide.

    Attributes:
        overrides: ``key=value`` over the app's run configuration.
        policy: A site file that every site follows; None lets everything pass.
        secure: Sums replies securely; None does so only where the policy lets parts leave no
            other way.
    """

    overrides: Sequence[str] = ()
    policy: Path | None = None
    secure: SumSettings | None = None


def run_flower_app(
    folder: Path,
    sites: int,
    settings: EngineSettings,
    options: RunOptions | None = None,
    events: EventSink = ignore,
) -> RunOutcome:
    """Runs the Flower app in `folder` over `sites` simulated sites of the caller's own.

    Args:
        folder: Holds the app's ``pyproject.toml``.
        sites: How many sites.
        settings: How to run it.
        options: What the caller decides besides.
        events: Told what happens.

    Raises:
        ConfigError: The app, the overrides or the policy file are wrong; or a policy is to hold
            over an app on threads, and that is not spelled out.
        CohortTooSmall: Too few sites for a secure sum.
        StrategyRefused: The app's strategy would be wrong under a secure sum.
    """
    from comity.adapters.flower.app_file import read_app  # noqa: PLC0415 - flwr where it is used
    from comity.adapters.flower.engine import run_app  # noqa: PLC0415 - likewise
    from comity.adapters.flower.sealed import app_for  # noqa: PLC0415 - likewise
    from comity.adapters.flower.site_engine import SimulatedSite  # noqa: PLC0415 - likewise
    from comity.bootstrap.sums import summed  # noqa: PLC0415 - likewise
    from comity.services.gate import UnsafeSimulationGate  # noqa: PLC0415 - likewise

    options = options or RunOptions()
    names = [SiteName(f"site-{number}") for number in range(1, sites + 1)]
    if options.policy is not None and settings.threads and not settings.unsafe_threads_with_policy:
        raise ConfigError(
            "on threads the app shares its process with the sites' gates, so it can reach past "
            "their policy",
            hint="leave out --threads, or add --unsafe-threads-with-policy",
        )
    with contextlib.ExitStack() as opened:
        if options.policy is None:
            app = read_app(folder, options.overrides)
            joined = [SimulatedSite(name, UnsafeSimulationGate()) for name in names]
        else:
            joined = _guarded_sites(names, options.policy, opened, events)
            policies = [site.policy for site in joined if site.policy]
            app = opened.enter_context(app_for(folder, options.overrides, policies))
        return run_app(app, *summed(joined, settings, events, options.secure))


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A Flower app that was read and checked, and the open sites that it will run over."""

    app: LoadedApp
    sites: Sequence[SimulatedSite]
    lasting: Mapping[SiteName, LastingSite]

    def run(
        self,
        reserved: Mapping[SiteName, ReservationId],
        seed: int,
        events: EventSink = ignore,
    ) -> RunOutcome:
        """Runs the app over the sites, each behind its gate.

        Args:
            reserved: What the run reserved at each site.
            seed: Of all app randomness but privacy noise.
            events: Told what happens.

        Raises:
            ConfigError: The app cannot be loaded, or its ServerApp raised.
            CohortTooSmall: Sites demand a secure sum, and are too few for one.
            StrategyRefused: The app's strategy would be wrong under a secure sum.
        """
        from comity.adapters.flower.engine import (  # noqa: PLC0415 - flwr where it is used
            EngineSettings,
            run_app,
        )
        from comity.adapters.flower.logs import quiet  # noqa: PLC0415 - likewise
        from comity.bootstrap.sums import summed  # noqa: PLC0415 - likewise

        sites = [replace(site, reservation=reserved.get(site.name)) for site in self.sites]
        settings = EngineSettings(seed=seed)
        with quiet():
            return run_app(self.app, *summed(sites, settings, events, None, self.lasting))


@contextlib.contextmanager
def prepare_run(
    folder: Path, sites: Sequence[OpenSite], dataset: DatasetName, overrides: Sequence[str]
) -> Iterator[PreparedRun]:
    """Reads the Flower app in `folder` for open sites; runs none of its code, reserves nothing.

    Args:
        folder: Holds the app's ``pyproject.toml``.
        sites: The sites; the app finds the data set's path as ``data-path``.
        dataset: The data set.
        overrides: ``key=value`` over the app's run configuration.

    Raises:
        ConfigError: App or overrides are wrong, or a site lacks the data set.
    """
    from comity.adapters.flower.sealed import app_for  # noqa: PLC0415 - flwr where it is used
    from comity.adapters.flower.site_engine import SimulatedSite  # noqa: PLC0415 - likewise
    from comity.bootstrap.sums import LastingSite  # noqa: PLC0415 - likewise

    simulated = []
    for site in sites:
        section = site.file.datasets.get(dataset)
        if section is None:
            raise ConfigError(
                f"site {site.name} has no data set {dataset}",
                hint=f"add [datasets.{dataset}] to its site file",
            )
        simulated.append(
            SimulatedSite(
                site.name,
                site.gate,
                site.policy,
                dataset,
                node_config={"data-path": str(section.path), **_bounds(site.file, dataset)},
            )
        )
    policies = [site.policy for site in sites]
    lasting = {site.name: LastingSite(site.identity, site.file.state / "sums") for site in sites}
    with app_for(folder, overrides, policies) as app:
        yield PreparedRun(app, simulated, lasting)


def _bounds(file: SiteFile, dataset: DatasetName) -> dict[str, int]:
    """The most records that a trainer may claim privacy for: what its delta holds for."""
    records, budget = file.datasets[dataset].records, file.budgets.get(dataset)
    if budget is None:
        return {}
    most = math.ceil(1 / budget.delta) - 1
    return {"max-records": most if records is None else min(most, records)}


def _guarded_sites(
    names: Sequence[SiteName], file: Path, journals: contextlib.ExitStack, events: EventSink
) -> list[SimulatedSite]:
    """Simulated sites that each follow the policy in `file`, with journals that last one run."""
    from comity.adapters.flower.site_engine import SimulatedSite  # noqa: PLC0415 - likewise
    from comity.config.site import load_site_file  # noqa: PLC0415 - likewise

    read = load_site_file(file)
    named = [(DatasetName(name), section.path) for name, section in read.datasets.items()]
    dataset, path = named[0] if len(named) == 1 else (DatasetName(""), None)
    config = {} if path is None else {"data-path": str(path)}
    state = Path(journals.enter_context(tempfile.TemporaryDirectory(prefix="comity-")))
    sites = []
    for name in names:
        member = read.model_copy(update={"name": name, "state": state / name})
        site = journals.enter_context(open_site(member, FederationName("simulation"), events))
        sites.append(SimulatedSite(name, site.gate, site.policy, dataset, node_config=config))
    return sites


# --- a site -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenSite:
    """A site on this machine whose gate is open.

    Attributes:
        file: Its site file.
        policy: What its owner decided.
        gate: The one way out.
        journal: Its ledger and audit chain.
        identity: Its identity key.
    """

    file: SiteFile
    policy: SitePolicy
    gate: Gate
    journal: Journal
    identity: Identity

    @property
    def name(self) -> SiteName:
        """The site's name."""
        return SiteName(self.file.name)


@contextlib.contextmanager
def open_site(
    file: SiteFile,
    federation: FederationName,
    events: EventSink = ignore,
    *,
    folder: Path | None = None,
) -> Iterator[OpenSite]:
    """Opens a site's state folder and gate; makes folder and identity key when they are missing.

    Args:
        file: The site file.
        federation: Whose site it is.
        events: Told what happens.
        folder: The federation file's folder, which keeps the site's newest head too, so that an
            old copy of the state folder is noticed.

    Raises:
        JournalBehind: The state folder is gone or an old copy, by the head that `folder` keeps.
        ConfigError: The identity key is missing from a folder that has a journal, or is readable
            by others.
        UnavailableError: The folder cannot be written, or another process holds the journal.
        Verification: The journal was altered.
        PolicyRefused: Two data sets have one source, or a name stands for other data.
    """
    from comity.adapters.accounting.dp_accountant import DpAccountant  # noqa: PLC0415 - takes 1 s
    from comity.adapters.pki.keys import (  # noqa: PLC0415 - likewise
        Identity,
        load_identity,
        write_identity,
    )
    from comity.adapters.store.heads import (  # noqa: PLC0415 - likewise
        FileHeadKeeper,
        MirroredHeads,
    )
    from comity.adapters.store.journal import SqliteJournal  # noqa: PLC0415 - likewise
    from comity.adapters.store.layout import mirror_of, state_layout  # noqa: PLC0415 - likewise
    from comity.adapters.store.system import SystemClock, SystemRng  # noqa: PLC0415 - likewise
    from comity.services.gate import Gate, GateParts, SiteIdentity  # noqa: PLC0415 - likewise

    rng, policy = SystemRng(), file.policy()
    layout = state_layout(file.state, create=True)
    place = None if folder is None else mirror_of(folder, file.name)
    mirror = None if place is None else FileHeadKeeper(place)
    if not layout.identity.exists() and not layout.journal.exists():
        write_identity(layout.identity, Identity.from_seed(rng.token(32)))
    keys = load_identity(layout.identity)
    with contextlib.closing(SqliteJournal(layout.journal)) as journal:
        first, seen = FileHeadKeeper(layout.head), None if mirror is None else mirror.load()
        if seen is not None:
            _check_same_key(seen, keys, place)
        parts = GateParts(
            journal=journal,
            # A head that this journal does not reach is never overwritten, but observed below.
            heads=first
            if mirror is None or _above(seen, journal)
            else MirroredHeads(first, mirror),
            keys=keys,
            accountant=DpAccountant(),
            clock=SystemClock(),
            rng=rng,
        )
        gate = Gate(SiteIdentity(federation, SiteName(file.name)), policy, parts, marked(events))
        if seen is not None:
            gate.observe(seen)
        _bind_sources(gate, file, keys.sign(_SOURCE_KEY))
        yield OpenSite(file, policy, gate, journal, keys)


_SOURCE_KEY: Final = b"comity/source-key/v1"


def _bind_sources(gate: Gate, file: SiteFile, secret: bytes) -> None:
    """Binds each data set to what its source holds and to where it lies."""
    from comity.adapters.store.sources import source_digests  # noqa: PLC0415 - where it is used

    for name, section in file.datasets.items():
        for source in source_digests(section.path, secret):
            gate.bind_dataset(DatasetName(name), source)


def _above(seen: SignedHead | None, journal: Journal) -> bool:
    return seen is not None and seen.head.sequence > journal.head().sequence


def _check_same_key(seen: SignedHead, keys: KeyStore, place: Path | None) -> None:
    try:
        keys.verify(keys.public_key(), head_message(seen.site, seen.head), seen.signature)
    except Verification as error:
        raise JournalBehind(
            f"site {seen.site} began a journal of its own where record {seen.head.sequence} was "
            "signed by another key: its state folder was deleted or replaced",
            hint="put the state folder back; or, to start anew with all budgets whole, remove "
            f"{place}",
        ) from error


# --- asking -----------------------------------------------------------------------------------


@contextlib.contextmanager
def open_passages(file: SiteFile) -> Iterator[PassageStore]:
    """Opens a site's passage store in its state folder; makes it when it is missing.

    Raises:
        UnavailableError: The folder cannot be written.
        VersionMismatch: A newer release wrote it.
    """
    from comity.adapters.store.passages import TantivyPassageStore  # noqa: PLC0415 - native code

    with contextlib.closing(TantivyPassageStore(file.state / "passages")) as store:
        yield store


def ingest_folder(
    file: SiteFile,
    store: PassageStore,
    collection: CollectionName,
    folder: Path,
    events: EventSink = ignore,
) -> IngestReport:
    """Makes a collection of a site hold what lies in `folder` now.

    Raises:
        ConfigError: `folder` is none.
        UnavailableError: The store cannot be written.
    """
    from comity.adapters.store.passage_files import FolderFeed  # noqa: PLC0415 - where it is used
    from comity.adapters.store.system import SystemClock  # noqa: PLC0415 - likewise
    from comity.services.ingest import Ingest, IngestSettings  # noqa: PLC0415 - likewise

    settings = IngestSettings(
        max_line_bytes=file.limits.max_line_bytes, max_documents=file.limits.max_documents
    )
    feed = FolderFeed(folder, max_document_bytes=file.limits.max_document_bytes)
    ingest = Ingest(SiteName(file.name), store, SystemClock(), settings, events)
    return ingest.collection(collection, feed)


def ingest_site(
    file: SiteFile, store: PassageStore, events: EventSink = ignore
) -> dict[CollectionName, IngestReport]:
    """Makes every collection of a site hold what lies in its folder now."""
    return {
        CollectionName(name): ingest_folder(
            file, store, CollectionName(name), section.folder, events
        )
        for name, section in file.collections.items()
    }


def site_search(site: OpenSite, store: PassageStore) -> SiteSearch:
    """A site's side of questions, behind its gate."""
    from comity.adapters.store.system import SystemClock, SystemRng  # noqa: PLC0415 - likewise
    from comity.services.search import SearchParts, SiteSearch  # noqa: PLC0415 - likewise

    return SiteSearch(site.policy, SearchParts(store, site.gate, SystemClock(), SystemRng()))


@contextlib.contextmanager
def open_gateway(
    file: FederationFile,
    *,
    ingest: bool = True,
    events: EventSink = ignore,
    folder: Path | None = None,
) -> Iterator[Gateway]:
    """Opens a gateway over the sites of a federation that run on this machine.

    Args:
        file: The federation file.
        ingest: Bring each site's index up to date with its folders first.
        events: Told what happens.
        folder: The federation file's folder; see `open_site`.

    Raises:
        ConfigError: A site file has faults, or no site runs on this machine.
        UnavailableError: A state folder cannot be used.
    """
    found = file.load_site_files()
    if not found:
        raise ConfigError(
            f"no site of {file.name} runs on this machine",
            hint="set sites.N.file to a site file in the federation file",
        )
    federation = FederationName(file.name)
    with contextlib.ExitStack() as opened:
        sites = [
            opened.enter_context(open_site(one, federation, events, folder=folder)) for one in found
        ]
        yield opened.enter_context(gateway_over(sites, file.ask, ingest=ingest, events=events))


@contextlib.contextmanager
def gateway_over(
    sites: Sequence[OpenSite],
    settings: AskSection,
    *,
    ingest: bool = True,
    events: EventSink = ignore,
) -> Iterator[Gateway]:
    """Opens a gateway over sites that are open already; arguments as for `open_gateway`.

    Raises:
        UnavailableError: A state folder cannot be used.
    """
    from comity.adapters.store.system import SystemClock, SystemRng  # noqa: PLC0415 - likewise
    from comity.services.ask import AskSettings, Gateway, LocalSite  # noqa: PLC0415 - likewise

    with contextlib.ExitStack() as opened:
        asked = []
        for site in sites:
            store = opened.enter_context(open_passages(site.file))
            if ingest:
                ingest_site(site.file, store, events)
            asked.append(LocalSite(site.name, site_search(site, store)))
        bounds = AskSettings(
            timeout_s=settings.timeout_s,
            max_question_characters=settings.max_question_characters,
            max_passages=settings.max_passages,
        )
        gateway = Gateway(asked, (SystemClock(), SystemRng()), bounds, events=events)
        opened.callback(gateway.close)
        yield gateway
