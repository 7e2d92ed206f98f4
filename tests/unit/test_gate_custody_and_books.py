"""Custody: failing disks, other writers, and records that this release cannot read."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from tests.fakes.gate_site import (
    IDENTITY,
    PATIENTS,
    SITE,
    FaultyHeads,
    FaultyJournal,
    MemoryHeads,
    MemoryJournal,
    Site,
    arrays,
    exchange,
    plan,
    private_arrays,
)

from comity.core.chain.canonical import encode
from comity.core.chain.heads import head_message
from comity.core.chain.record import Head
from comity.errors import JournalBehind, UnavailableError, Verification, VersionMismatch
from comity.ports import Entry, SignedHead
from comity.release import Released


@dataclass
class Failing:
    """Fails at one named point once it is armed."""

    point: str = ""
    seen: list[str] = field(default_factory=list)

    def __call__(self, point: str) -> None:
        self.seen.append(point)
        if point == self.point:
            raise UnavailableError(f"the disk failed {point}")


@pytest.mark.parametrize(
    ("point", "spent"),
    [("before commit", 0.0), ("after commit", 0.5), ("before keep", 0.5), ("after keep", 0.5)],
)
def test_a_disk_that_fails_lets_nothing_leave_and_what_was_committed_counts(
    point: str, spent: float
) -> None:
    failing = Failing()
    site = Site(
        journal=FaultyJournal(MemoryJournal(), failing), heads=FaultyHeads(MemoryHeads(), failing)
    )
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(4), purpose="study")
    failing.point = point
    with pytest.raises(UnavailableError):
        gate.release(exchange(), [private_arrays(reservation)])
    failing.point = ""
    (again,) = gate.release(exchange(), [private_arrays(reservation)])
    assert isinstance(again, Released)
    assert gate.budget(PATIENTS).epsilon_spent == 0.5
    exchanges = [record for record in site.records() if record.kind == "exchange"]
    assert len(exchanges) == 1
    assert site.gate().budget(PATIENTS).epsilon_spent == 0.5 >= spent


def test_a_record_that_somebody_else_wrote_meanwhile_is_noticed() -> None:
    site = Site()
    gate = site.gate()
    site.journal.commit([Entry("policy", encode({"schema_version": 1}))])
    with pytest.raises(Verification, match="written by somebody else"):
        gate.release(exchange(), [arrays()])


def stamped(**fields: object) -> bytes:
    return encode({"schema_version": 1, "at_ms": 0, "kept": 0, **fields})


EXCHANGE = {"exchange": "e", "request": "r", "asker": "a", "day": 1}


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (Entry("policy", b"{"), Verification),
        (Entry("policy", b'{"schema_version": 1}'), Verification),
        (Entry("policy", stamped()), Verification),
        (Entry("policy", encode({"schema_version": 1, "digest": "x"})), Verification),
        (Entry("policy", stamped(digest="x", kept=True)), Verification),
        (Entry("policy", stamped(schema_version=2)), VersionMismatch),
        (Entry("poem", stamped()), VersionMismatch),
        (Entry("exchange", stamped(**EXCHANGE)), Verification),
        (Entry("exchange", stamped(**EXCHANGE, parts=[1])), Verification),
        (Entry("exchange", stamped(**EXCHANGE, parts=[{"passages": 1}])), Verification),
        (Entry("ledger.bound", stamped(dataset=1, source="s")), Verification),
        (
            Entry(
                "ledger.committed",
                stamped(reservation="r", exchange="e", plan=[{"count": 1, "schema_version": 9}]),
            ),
            Verification,
        ),
    ],
)
def test_a_record_that_this_release_cannot_read_stops_the_gate(
    entry: Entry, error: type[Exception]
) -> None:
    site = Site()
    site.journal.commit([entry])
    with pytest.raises(error):
        site.gate()


def signed(sequence: int, digest: bytes) -> SignedHead:
    head = Head(sequence, digest)
    return SignedHead(SITE, head, IDENTITY.sign(head_message(SITE, head)))


def test_an_empty_journal_agrees_with_the_head_of_nothing() -> None:
    site = Site()
    site.heads.keep(signed(0, bytes(32)))
    site.gate().observe(signed(0, bytes(32)))


def test_a_peers_older_head_on_our_chain_changes_nothing() -> None:
    site = Site()
    gate = site.gate()
    early = gate.head()
    gate.release(exchange(), [arrays()])
    gate.observe(early)
    gate.release(exchange("e2"), [arrays()])


def test_a_fork_below_the_kept_head_closes_this_gate_and_keeps_the_newer_head() -> None:
    site = Site()
    gate = site.gate()
    gate.release(exchange(), [arrays()])
    kept = site.heads.load()
    with pytest.raises(JournalBehind, match="the journal was replaced"):
        gate.observe(signed(1, bytes(32)))
    assert site.heads.load() == kept
    with pytest.raises(JournalBehind):
        gate.release(exchange("e2"), [arrays()])
    gate.restore()
    assert gate.budget(PATIENTS).closed
