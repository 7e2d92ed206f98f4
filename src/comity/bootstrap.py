"""The one place where adapters meet services."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comity.events import EventSink, ignore
from comity.ids import DatasetName, FederationName, SiteName

if TYPE_CHECKING:
    from comity.adapters.flower.engine import EngineSettings, RunOutcome
    from comity.adapters.flower.site_engine import SimulatedSite
    from comity.config.site import SiteFile
    from comity.core.policy.rule import SitePolicy
    from comity.ports import Journal
    from comity.services.gate import Gate

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
        ConfigError: The app, the overrides or the policy file are wrong.
        PolicyRefused: The policy lets parts leave only inside a secure sum, and there is none.
    """
    from comity.adapters.flower.app_file import read_app  # noqa: PLC0415 - flwr where it is used
    from comity.adapters.flower.engine import run_app  # noqa: PLC0415 - likewise
    from comity.adapters.flower.site_engine import SimulatedSite  # noqa: PLC0415 - likewise
    from comity.services.gate import UnsafeSimulationGate  # noqa: PLC0415 - likewise

    names = [SiteName(f"site-{number}") for number in range(1, sites + 1)]
    app = read_app(folder, overrides)
    if policy is None:
        own = [SimulatedSite(name, UnsafeSimulationGate()) for name in names]
        return run_app(app, own, settings, events)
    with contextlib.ExitStack() as journals:
        return run_app(app, _guarded_sites(names, policy, journals, events), settings, events)


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
    federation = FederationName("simulation")
    sites = []
    for name in names:
        member = read.model_copy(update={"name": name, "state": state / name})
        site = journals.enter_context(open_site(member, federation, events))
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
    """

    file: SiteFile
    policy: SitePolicy
    gate: Gate
    journal: Journal

    @property
    def name(self) -> SiteName:
        """The site's name."""
        return SiteName(self.file.name)


@contextlib.contextmanager
def open_site(
    file: SiteFile, federation: FederationName, events: EventSink = ignore
) -> Iterator[OpenSite]:
    """Opens a site's state folder and gate; makes folder and identity key when they are missing.

    Raises:
        ConfigError: The identity key is missing from a folder that has a journal, or is readable
            by others.
        UnavailableError: The folder cannot be written, or another process holds the journal.
        Verification: The journal was altered.
    """
    from comity.adapters.accounting.dp_accountant import DpAccountant  # noqa: PLC0415 - takes 1 s
    from comity.adapters.pki.keys import (  # noqa: PLC0415 - likewise
        Identity,
        load_identity,
        write_identity,
    )
    from comity.adapters.store.heads import FileHeadKeeper  # noqa: PLC0415 - likewise
    from comity.adapters.store.journal import SqliteJournal  # noqa: PLC0415 - likewise
    from comity.adapters.store.layout import state_layout  # noqa: PLC0415 - likewise
    from comity.adapters.store.system import SystemClock, SystemRng  # noqa: PLC0415 - likewise
    from comity.services.gate import Gate, GateParts, SiteIdentity  # noqa: PLC0415 - likewise

    rng, policy = SystemRng(), file.policy()
    layout = state_layout(file.state, create=True)
    if not layout.identity.exists() and not layout.journal.exists():
        write_identity(layout.identity, Identity.from_seed(rng.token(32)))
    with contextlib.closing(SqliteJournal(layout.journal)) as journal:
        parts = GateParts(
            journal=journal,
            heads=FileHeadKeeper(layout.head),
            keys=load_identity(layout.identity),
            accountant=DpAccountant(),
            clock=SystemClock(),
            rng=rng,
        )
        gate = Gate(SiteIdentity(federation, SiteName(file.name)), policy, parts, events)
        yield OpenSite(file, policy, gate, journal)
