"""A site whose journal, head and places in sums lie in a folder, as a real site's do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.gate_site import (
    PATIENTS,
    STEP,
    TRAINER,
    FaultPoint,
    FaultyHeads,
    FaultyJournal,
    UnsafeCountingRng,
)
from tests.fakes.sum_sites import REFERENCE, SumSite

from comity.adapters.store.heads import FileHeadKeeper
from comity.adapters.store.journal import SqliteJournal
from comity.adapters.store.layout import state_layout
from comity.adapters.store.sums import FileSumStore
from comity.core.policy.rule import Budget, PartKind, SitePolicy, TrainPolicy
from comity.core.privacy.event import Spend
from comity.ids import ReservationId
from comity.ports import Exchange, KeptSum
from comity.services.gate import Part

POLICY = SitePolicy(
    TrainPolicy(trusted_trainers=frozenset({TRAINER})), budgets={PATIENTS: Budget(8.0, 1e-5)}
)


@dataclass
class FaultyStore:
    """A sum store that calls `fault` before and after each place."""

    inner: FileSumStore
    fault: FaultPoint

    def load(self, run: str) -> KeptSum | None:
        return self.inner.load(run)

    def keep(self, run: str, kept: KeptSum) -> None:
        self.fault("before place")
        self.inner.keep(run, kept)
        self.fault("after place")


def private(site: SumSite, exchange: Exchange) -> Sequence[Part]:
    """A reply that claims one privacy event under the site's first reservation."""
    del exchange
    (reservation, *_) = (
        ReservationId(str(key))
        for account in site.gate._custody.books.ledger.accounts.values()
        for key in account.reservations
    )
    arrays = {name: (array + 0.125).astype(array.dtype) for name, array in REFERENCE.items()}
    return [
        Part(PartKind.ARRAYS, "arrays", arrays, (Spend(STEP, 1),), reservation, REFERENCE, TRAINER),
        Part(PartKind.METRICS, "metrics", {"num-examples": 100, "loss": 1.0}),
    ]


def _nothing(point: str) -> None:
    del point


def lasting(folder: Path, *, start: int = 1, fault: FaultPoint = _nothing) -> SumSite:
    """The site of index 0 over what lies in `folder`; `start` where its generator counts from."""
    layout = state_layout(folder, create=True)
    return SumSite(
        0,
        POLICY,
        private,
        FaultyJournal(SqliteJournal(layout.journal), fault),
        FaultyHeads(FileHeadKeeper(layout.head), fault),
        FaultyStore(FileSumStore(folder / "sums"), fault),
        UnsafeCountingRng(start),
    )


def closed(site: SumSite) -> None:
    """Lets go of the journal, as a process that ends does."""
    journal = site.journal
    assert isinstance(journal, FaultyJournal)
    assert isinstance(journal.inner, SqliteJournal)
    journal.inner.close()
