"""A federation whose sites are all on this machine: train with it, ask it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from comity.api.results import SiteReport, TrainResult
from comity.bootstrap import OpenSite, gateway_over, open_site, prepare_run
from comity.bootstrap.tables import check_tables
from comity.config.federation import FederationFile, load_federation_file
from comity.core.chain.record import verified
from comity.core.privacy.event import Plan
from comity.errors import ConfigError
from comity.events import Event, EventSink, JournalStarted, ignore
from comity.ids import DatasetName, FederationName, SiteName
from comity.services.audit import Left, describe, left_for_answers, left_for_run
from comity.services.train import reserved_everywhere

if TYPE_CHECKING:
    from comity.adapters.flower.engine import RunOutcome
    from comity.services.answer import Answer
    from comity.services.ask import Gateway


class Federation:
    """The sites of a federation file, each behind its own gate and journal.

    Example:
        with comity.Federation.local("federation.toml") as federation:
            result = federation.train("diagnosis", dataset="patients")
            answer = federation.ask("How soon are antibiotics given?", asker="clinician")

    Use it as a context manager, or call `close`: an open journal has one owner.
    """

    def __init__(
        self, file: FederationFile, sites: Sequence[OpenSite], stack: contextlib.ExitStack
    ) -> None:
        self._file = file
        self._sites = tuple(sites)
        self._stack = stack
        self._gateway: Gateway | None = None

    @classmethod
    def local(cls, file: Path | str, events: EventSink = ignore) -> Federation:
        """Opens all sites that `file` names, on this machine.

        Args:
            file: A federation file whose sites have site files.
            events: Told what happens; by default a line on standard error where a site with a
                budget begins a fresh journal.

        Raises:
            ConfigError: With all faults of all files at once.
            UnavailableError: A state folder cannot be written, or is in use.
            JournalBehind: A state folder is gone or an old copy, by the head kept beside `file`.
        """
        federation = load_federation_file(Path(file))
        files = federation.load_site_files()
        if not files:
            raise ConfigError(
                f"{file}: no site of this federation is on this machine",
                hint="give each of [[sites]] a file",
            )
        name, folder = FederationName(federation.name), Path(file).absolute().parent
        events = _tell_of_fresh_journals if events is ignore else events
        with contextlib.ExitStack() as stack:
            sites = [
                stack.enter_context(open_site(one, name, events, folder=folder)) for one in files
            ]
            return cls(federation, sites, stack.pop_all())

    @property
    def sites(self) -> tuple[SiteName, ...]:
        """The sites' names, in the file's order."""
        return tuple(site.name for site in self._sites)

    def train(
        self,
        app: Path | str,
        *,
        dataset: str = "",
        plan: Plan | None = None,
        run_config: Mapping[str, object] | None = None,
        seed: int = 0,
        events: EventSink = ignore,
    ) -> TrainResult:
        """Trains with a Flower app; each site's gate decides on what leaves.

        Args:
            app: The folder of a Flower app.
            dataset: The data set at each site; may be left out where each has one.
            plan: The privacy plan, reserved whole at every site before any trains.
            run_config: Over the app's own configuration.
            seed: Of all app randomness but privacy noise.
            events: Told of each exchange.

        Raises:
            BudgetExhausted: The plan does not fit at a site; nothing was trained, nothing spent.
                A run that fails otherwise gives its plan back wherever nothing of it left.
            PolicyRefused: A site releases only into a secure sum.
            ConfigError: App, configuration or data set are wrong.
            DataError: A table lacks, renames or moves a column of its schema, or cannot be
                trained on; nothing was reserved.
        """
        name = DatasetName(dataset) if dataset else self._only_dataset()
        check_tables((site.file for site in self._sites), name)
        overrides = [f"{key}={_toml(value)}" for key, value in (run_config or {}).items()]
        # All that can be wrong with app and data set is found before a budget is touched.
        gates = {site.name: site.gate for site in self._sites} if plan is not None else {}
        purpose = f"train {Path(app).name}"
        with (
            prepare_run(Path(app), self._sites, name, overrides) as prepared,
            reserved_everywhere(gates, name, plan or Plan(()), purpose=purpose) as reserved,
        ):
            outcome = prepared.run(reserved, seed, events)
        return self._result(outcome, name)

    def ask(self, question: str, *, asker: str) -> Answer:
        """Answers a question from what the sites release to `asker`, with checked citations.

        Raises:
            RefusedError: The question is empty or too long.
        """
        if self._gateway is None:
            self._gateway = self._stack.enter_context(gateway_over(self._sites, self._file.ask))
        return self._gateway.ask(question, asker=asker)

    def audit(self, site: str) -> tuple[str, ...]:
        """A site's audit chain as sentences, oldest first, each link checked.

        Raises:
            ConfigError: There is no such site.
            Verification: A record was altered, removed or reordered.
        """
        one = self._site(site)
        chain = verified(one.journal.records())
        return tuple(describe(record, one.name).sentence for record in chain)

    def ledger(self, site: str) -> tuple[str, ...]:
        """A site's privacy budgets in sentences: what was reserved, what ran, what is left.

        Raises:
            ConfigError: There is no such site.
        """
        one = self._site(site)
        return tuple(line for name in one.policy.budgets for line in one.gate.ledger(name))

    def left_for_answers(self, site: str) -> Left:
        """What left a site in answer to questions, counted from its audit chain.

        Raises:
            ConfigError: There is no such site.
            Verification: A record was altered, removed or reordered.
        """
        return left_for_answers(self._site(site).journal.records())

    def close(self) -> None:
        """Closes every site's journal and index."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Federation({self._file.name!r}: {', '.join(self.sites)})"

    def _site(self, name: str) -> OpenSite:
        for one in self._sites:
            if one.name == name:
                return one
        raise ConfigError(f"there is no site {name}", hint=f"the sites are {', '.join(self.sites)}")

    def _only_dataset(self) -> DatasetName:
        names = {name for site in self._sites for name in site.file.datasets}
        if len(names) != 1:
            raise ConfigError(
                f"the sites have {len(names)} data sets: {', '.join(sorted(names)) or 'none'}",
                hint="name one of them with dataset=",
            )
        return DatasetName(names.pop())

    def _result(self, outcome: RunOutcome, dataset: DatasetName) -> TrainResult:
        history = outcome.metrics.get("evaluate-metrics", {})
        return TrainResult(
            run=outcome.run,
            arrays=outcome.arrays.get("arrays", {}),
            history={name: tuple(values) for name, values in history.items()},
            sites=tuple(_site_report(site, outcome, dataset) for site in self._sites),
            dropouts=outcome.site_dropouts,
            withheld=outcome.withheld,
            seconds=outcome.seconds,
        )


def _tell_of_fresh_journals(event: Event) -> None:
    if isinstance(event, JournalStarted):
        sys.stderr.write(f"{event}\n")


def _site_report(site: OpenSite, outcome: RunOutcome, dataset: DatasetName) -> SiteReport:
    left = left_for_run(site.journal.records(), outcome.run)
    budgeted = dataset in site.policy.budgets
    return SiteReport(
        site.name,
        left.size_bytes,
        left.parts,
        left.unprotected,
        site.gate.budget(dataset) if budgeted else None,
    )


def _toml(value: object) -> str:
    """A run-configuration value as TOML; JSON's scalars are TOML's."""
    return json.dumps(value)
