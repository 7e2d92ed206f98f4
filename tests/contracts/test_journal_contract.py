"""What every `Journal` and every `HeadKeeper` does, over each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.gate_site import IDENTITY, SITE, MemoryHeads, MemoryJournal

from comity.adapters.store.heads import FileHeadKeeper
from comity.adapters.store.journal import SqliteJournal
from comity.core.chain.heads import head_message
from comity.core.chain.record import Head, head_after, verified
from comity.ports import Entry, HeadKeeper, Journal, SignedHead

ENTRIES = [Entry("a", b"{}"), Entry("b", b'{"x":1}')]


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    opened = SqliteJournal(tmp_path / "journal.db")
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "file"])
def heads(request: pytest.FixtureRequest, tmp_path: Path) -> HeadKeeper:
    return MemoryHeads() if request.param == "memory" else FileHeadKeeper(tmp_path / "head.json")


def test_an_empty_journal_has_the_empty_head_and_no_records(journal: Journal) -> None:
    assert journal.head() == Head()
    assert list(journal.records()) == []


def test_a_commit_links_all_entries_in_order_and_returns_the_new_head(journal: Journal) -> None:
    head = journal.commit(ENTRIES)
    records = list(verified(journal.records()))
    assert [(record.kind, record.body) for record in records] == [
        (entry.kind, entry.body) for entry in ENTRIES
    ]
    assert journal.head() == head == head_after(records[-1])


def test_records_are_read_from_after_a_sequence(journal: Journal) -> None:
    journal.commit(ENTRIES)
    journal.commit(ENTRIES)
    assert [record.sequence for record in journal.records(after=2)] == [3, 4]
    assert list(journal.records(after=4)) == []


def test_a_commit_of_nothing_changes_nothing(journal: Journal) -> None:
    head = journal.commit(ENTRIES)
    assert journal.commit([]) == head


def test_a_commit_during_a_reading_does_not_disturb_it(journal: Journal) -> None:
    journal.commit(ENTRIES)
    reading = journal.records()
    first = next(reading)
    journal.commit(ENTRIES)
    assert first.sequence == 1
    assert [record.sequence for record in reading][:1] == [2]


def test_a_failing_commit_leaves_nothing(journal: Journal) -> None:
    head = journal.commit(ENTRIES)
    with pytest.raises(Exception):  # noqa: B017, PT011 - each adapter fails in its own way
        journal.commit([Entry("a", b"{}"), Entry("b", None)])  # type: ignore[arg-type]
    assert journal.head() == head
    assert len(list(journal.records())) == head.sequence


def test_the_kept_head_is_the_last_one(heads: HeadKeeper) -> None:
    assert heads.load() is None
    for sequence in (1, 2):
        head = Head(sequence, hashlib.sha256(bytes([sequence])).digest())
        signed = SignedHead(SITE, head, IDENTITY.sign(head_message(SITE, head)))
        heads.keep(signed)
        assert heads.load() == signed


def test_two_adapters_give_one_chain(tmp_path: Path) -> None:
    makers: list[Callable[[], Journal]] = [
        MemoryJournal,
        lambda: SqliteJournal(tmp_path / "journal.db"),
    ]
    assert len({make().commit(ENTRIES) for make in makers}) == 1
