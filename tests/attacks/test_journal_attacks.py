"""What an attacker with a hand on a site's state may try, and how each attempt is named.

Each row: a sentence, the steps, and what refuses.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.fakes.gate_site import (
    IDENTITY,
    PATIENTS,
    SITE,
    Site,
    UnsafeCountingRng,
    arrays,
    exchange,
    plan,
    private_arrays,
)

from comity.adapters.pki import Identity, load_identity, write_identity
from comity.adapters.store.heads import FileHeadKeeper, read_head, write_head
from comity.adapters.store.journal import SqliteJournal
from comity.adapters.store.layout import StateLayout, state_layout
from comity.cli.audit import command as audit
from comity.cli.journal import command as journal_command
from comity.cli.ledger import command as ledger
from comity.core.chain.heads import head_message
from comity.core.chain.record import Head, link
from comity.core.policy.rule import SitePolicy
from comity.errors import (
    BudgetExhausted,
    ComityError,
    ConfigError,
    JournalBehind,
    UnavailableError,
    Verification,
    VersionMismatch,
)
from comity.ids import FederationName, SiteName
from comity.ports import SignedHead
from comity.release import Released
from comity.services.gate import Gate, SiteIdentity


@dataclass
class OnDisk:
    """A site whose journal and head lie in a folder."""

    layout: StateLayout
    journal: SqliteJournal | None = None
    starts: int = 0

    def open(self) -> tuple[Site, Gate]:
        self.close()
        self.journal = SqliteJournal(self.layout.journal)
        self.starts += 1_000
        rng = UnsafeCountingRng(self.starts)
        site = Site(journal=self.journal, heads=FileHeadKeeper(self.layout.head), rng=rng)
        return site, site.gate()

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    def sql(self, *statements: str) -> None:
        with sqlite3.connect(self.layout.journal) as db:
            for statement in statements:
                db.execute(statement)
        db.close()

    def copy(self, name: str) -> None:
        shutil.copytree(self.layout.journal.parent, self.layout.journal.parent.parent / name)

    def put_back(self, name: str, which: Path) -> None:
        source = self.layout.journal.parent.parent / name
        shutil.copy(source / which.relative_to(self.layout.journal.parent), which)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[OnDisk]:
    """Ten records: a policy, a plan, an opening, three spends with exchanges, a plain exchange."""
    disk = OnDisk(state_layout(tmp_path / "state", create=True))
    write_identity(disk.layout.identity, IDENTITY)
    _, gate = disk.open()
    reservation = gate.reserve(PATIENTS, plan(6), purpose="a study that a person named")
    gate.release(exchange("e1"), [private_arrays(reservation)])
    disk.close()
    disk.copy("old")
    _, gate = disk.open()
    gate.release(exchange("e2"), [private_arrays(reservation)])
    gate.release(exchange("e3"), [private_arrays(reservation)])
    gate.release(exchange("e4"), [arrays()])
    disk.close()
    yield disk
    disk.close()


def rechained(disk: OnDisk, *, without: int) -> None:
    """Takes a record out and links all that follow anew, as who knows the format can."""
    with sqlite3.connect(disk.layout.journal) as db:
        rows = db.execute("SELECT sequence, kind, body FROM record ORDER BY sequence").fetchall()
        db.execute("DELETE FROM record")
        head = Head()
        for sequence, kind, body in rows:
            if sequence != without:
                record = link(head, kind, body)
                head = Head(record.sequence, record.hash)
                db.execute(
                    "INSERT INTO record VALUES (?, ?, ?, ?, ?)",
                    (record.sequence, kind, body, record.previous, record.hash),
                )
    db.close()


FIELDS = {
    "kind": "'ledger.freed'",
    "body": "CAST('{}' AS BLOB)",
    "previous": "zeroblob(32)",
    "hash": "zeroblob(32)",
    "sequence": "sequence + 1000",
}
COUNT = 10

TAMPERED: list[tuple[str, str]] = [
    *(
        (
            f"record {number} gets another {name}",
            f"UPDATE record SET {name} = {value} WHERE sequence = {number}",  # noqa: S608 - from this table
        )
        for number in range(1, COUNT + 1)
        for name, value in FIELDS.items()
        if (number, name) != (1, "previous")
    ),
    *(
        (f"record {number} is taken out", f"DELETE FROM record WHERE sequence = {number}")  # noqa: S608 - from this table
        for number in range(1, COUNT + 1)
    ),
]


@pytest.mark.parametrize(("sentence", "statement"), TAMPERED, ids=[row[0] for row in TAMPERED])
def test_an_altered_or_missing_record_is_named_by_gate_and_command(
    disk: OnDisk, sentence: str, statement: str
) -> None:
    disk.sql(statement)
    with pytest.raises((Verification, JournalBehind)) as caught:
        disk.open()[1].release(exchange("e9"), [arrays()])
    assert "record" in caught.value.message, sentence
    disk.close()
    verified_and_named(disk, "record")


def verified_and_named(disk: OnDisk, what: str) -> None:
    for command in (ledger, audit):
        result = CliRunner().invoke(command, ["verify", "--state", str(disk.layout.journal.parent)])
        assert isinstance(result.exception, Verification), result.output
        assert result.exception.exit_code == 4
        assert re.search(what, result.exception.message)


def reorder(disk: OnDisk) -> None:
    disk.sql(
        "UPDATE record SET sequence = 99 WHERE sequence = 6",
        "UPDATE record SET sequence = 6 WHERE sequence = 8",
        "UPDATE record SET sequence = 8 WHERE sequence = 99",
    )


def forge_head(disk: OnDisk, head: Head) -> None:
    forger = Identity.from_seed(bytes(32))
    signed = SignedHead(SITE, head, forger.sign(head_message(SITE, head)))
    disk.layout.head.write_bytes(write_head(signed))


def cut(disk: OnDisk) -> None:
    disk.sql("DELETE FROM record WHERE sequence > 5")


def both_parts(disk: OnDisk) -> None:
    cut(disk)
    forge_head(disk, Head(5, bytes(32)))


def alter_and_hash_anew(disk: OnDisk) -> None:
    with sqlite3.connect(disk.layout.journal) as db:
        row = db.execute("SELECT kind, previous, body FROM record WHERE sequence = 6").fetchone()
        forged = link(Head(5, row[1]), row[0], row[2].replace(b'"e2"', b'"e7"'))
        db.execute(
            "UPDATE record SET body = ?, hash = ? WHERE sequence = 6", (forged.body, forged.hash)
        )
    db.close()


def cut_and_old_head(disk: OnDisk) -> None:
    disk.sql("DELETE FROM record WHERE sequence > 8")
    disk.put_back("old", disk.layout.head)


ATTACKS: list[tuple[str, Callable[[OnDisk], object], str]] = [
    ("two records change places", reorder, "one of them was replaced|was altered"),
    (
        "a record is altered and its hash made anew",
        alter_and_hash_anew,
        "record 7 does not follow record 6",
    ),
    ("the tail is cut off", cut, "5 records were cut off"),
    (
        "an old journal is put back",
        lambda disk: disk.put_back("old", disk.layout.journal),
        "5 records were cut off",
    ),
    (
        "an old head is put back",
        lambda disk: disk.put_back("old", disk.layout.head),
        "the kept head is an old copy",
    ),
    ("the tail is cut, an old head put back", cut_and_old_head, "the kept head is an old copy"),
    ("the head is removed", lambda disk: disk.layout.head.unlink(), "the kept head is gone"),
    (
        "the journal is removed",
        lambda disk: disk.layout.journal.unlink(),
        "10 records were cut off|is gone, yet its head was kept",
    ),
    (
        "a record is taken out and the chain linked anew",
        lambda disk: rechained(disk, without=6),
        "1 records were cut off",
    ),
    ("both parts are replaced by a forger", both_parts, "the kept head was altered: a signature"),
    (
        "the head file is cut",
        lambda disk: disk.layout.head.write_bytes(disk.layout.head.read_bytes()[:-9]),
        "the kept head was altered",
    ),
]


@pytest.mark.parametrize(("sentence", "steps", "named"), ATTACKS, ids=[row[0] for row in ATTACKS])
def test_an_attack_on_the_state_lets_nothing_leave_and_is_named(
    disk: OnDisk, sentence: str, steps: Callable[[OnDisk], object], named: str
) -> None:
    del sentence  # the test's id
    steps(disk)
    with pytest.raises((Verification, JournalBehind), match=named):
        disk.open()[1].release(exchange("e9"), [arrays()])
    with pytest.raises((Verification, JournalBehind), match=named):
        disk.open()[1].reserve(PATIENTS, plan(1), purpose="x")
    disk.close()
    verified_and_named(disk, named)


def test_an_untouched_state_verifies(disk: OnDisk) -> None:
    for command in (ledger, audit):
        result = CliRunner().invoke(command, ["verify", "--state", str(disk.layout.journal.parent)])
        assert result.exit_code == 0, result.output
        assert "10 records verified" in result.output


def test_old_copies_of_both_parts_are_noticed_by_the_head_that_a_peer_holds(disk: OnDisk) -> None:
    peers = read_head(disk.layout.head.read_bytes())
    disk.put_back("old", disk.layout.journal)
    disk.put_back("old", disk.layout.head)
    _, gate = disk.open()
    with pytest.raises(JournalBehind, match="5 records were cut off"):
        gate.observe(peers)
    with pytest.raises(JournalBehind):
        gate.release(exchange("e9"), [arrays()])
    _, gate = disk.open()
    with pytest.raises(JournalBehind):
        gate.release(exchange("e9"), [arrays()])


def test_the_journal_of_another_site_is_refused(disk: OnDisk) -> None:
    journal = SqliteJournal(disk.layout.journal)
    other = Site(journal=journal, heads=FileHeadKeeper(disk.layout.head))
    ports = other.gate()._ports
    with pytest.raises(Verification, match="this is the journal of site-b, not of site-x"):
        Gate(SiteIdentity(FederationName("hospitals"), SiteName("site-x")), SitePolicy(), ports)
    journal.close()


def test_a_kept_head_of_another_site_is_refused(disk: OnDisk) -> None:
    kept, other = read_head(disk.layout.head.read_bytes()), SiteName("site-x")
    signature = IDENTITY.sign(head_message(other, kept.head))
    disk.layout.head.write_bytes(write_head(SignedHead(other, kept.head, signature)))
    with pytest.raises(Verification, match="a head of site-x was given as one of site-b"):
        disk.open()


def test_a_head_that_this_site_did_not_sign_closes_nothing(disk: OnDisk) -> None:
    _, gate = disk.open()
    forged = SignedHead(SITE, Head(99, bytes(32)), bytes(64))
    with pytest.raises(Verification):
        gate.observe(forged)
    with pytest.raises(Verification):
        gate.observe(replace(gate.head(), site=SiteName("site-x")))
    gate.observe(gate.head())
    (outcome,) = gate.release(exchange("e9"), [arrays()])
    assert isinstance(outcome, Released)


def test_a_head_of_a_fork_closes_the_site(disk: OnDisk) -> None:
    _, gate = disk.open()
    fork = Head(4, bytes(31) + b"\x01")
    with pytest.raises(JournalBehind, match="record 4 is not the one that was signed"):
        gate.observe(SignedHead(SITE, fork, IDENTITY.sign(head_message(SITE, fork))))


def restore(disk: OnDisk, *options: str) -> str:
    disk.close()
    arguments = ["restore", "--yes", "--state", str(disk.layout.journal.parent), *options]
    result = CliRunner().invoke(journal_command, arguments, catch_exceptions=False)
    return result.output


def test_after_a_restore_everything_that_is_unknown_counts_as_spent(disk: OnDisk) -> None:
    cut(disk)
    told = restore(disk, "--reason", "disk failed")
    assert "every privacy budget counts as spent" in told
    site, gate = disk.open()
    assert [record.kind for record in site.records()][5:] == [
        *["journal.lost"] * 5,
        "journal.restored",
        "ledger.closed",
    ]
    state = gate.budget(PATIENTS)
    assert (state.epsilon_spent, state.epsilon_remaining, state.closed) == (8.0, 0.0, True)
    with pytest.raises(BudgetExhausted, match="records of this journal were lost"):
        gate.reserve(PATIENTS, plan(1), purpose="x")
    (reservation,) = site.gate()._custody.books.ledger.holders
    with pytest.raises(BudgetExhausted, match="records of this journal were lost"):
        gate.release(exchange("e9"), [private_arrays(reservation)])
    (outcome,) = gate.release(exchange("e10"), [arrays()])
    assert isinstance(outcome, Released)
    assert b"disk failed" in b"".join(
        note for record in site.records() if (note := _note(disk, record.body))
    )


def _note(disk: OnDisk, body: bytes) -> bytes:
    assert disk.journal is not None
    start = body.find(b'"note":"') + 8
    digest = body[start : start + 64].decode()
    return disk.journal.note(digest) or b""


def test_heads_of_the_lost_branch_close_a_restored_site_no_more_but_a_second_loss_does(
    disk: OnDisk,
) -> None:
    before = read_head(disk.layout.head.read_bytes())
    cut(disk)
    restore(disk)
    _, gate = disk.open()
    gate.observe(before)
    gate.release(exchange("e9"), [arrays()])
    disk.close()
    disk.sql("DELETE FROM record WHERE sequence > 12")
    with pytest.raises(JournalBehind, match="cut off"):
        disk.open()[1].release(exchange("e10"), [arrays()])


def test_a_peers_copy_that_equals_the_journals_head_shows_that_nothing_was_lost(
    disk: OnDisk, tmp_path: Path
) -> None:
    known = tmp_path / "peers-head.json"
    shutil.copy(disk.layout.head, known)
    disk.put_back("old", disk.layout.head)
    assert "nothing was lost" in restore(disk, "--known", str(known))
    _, gate = disk.open()
    assert not gate.budget(PATIENTS).closed
    gate.reserve(PATIENTS, plan(1), purpose="x")


def test_a_peers_copy_above_or_below_the_journals_head_shows_a_loss(
    disk: OnDisk, tmp_path: Path
) -> None:
    known = tmp_path / "peers-head.json"
    shutil.copy(disk.layout.head, known)
    disk.put_back("old", disk.layout.journal)
    disk.layout.head.unlink()
    assert "every privacy budget counts as spent" in restore(disk, "--known", str(known))
    site, _ = disk.open()
    assert [record.kind for record in site.records()].count("journal.lost") == 5
    disk.close()
    disk.layout.head.unlink()
    assert "every privacy budget counts as spent" in restore(disk, "--known", str(known))


def test_an_old_head_without_a_peers_copy_costs_the_budgets(disk: OnDisk) -> None:
    disk.put_back("old", disk.layout.head)
    assert "every privacy budget counts as spent" in restore(disk)


def test_a_gate_restores_itself_on_the_record(disk: OnDisk) -> None:
    cut(disk)
    _, gate = disk.open()
    head = gate.restore(reason="disk failed")
    assert head.head.sequence == 12
    (outcome,) = gate.release(exchange("e9"), [arrays()])
    assert isinstance(outcome, Released)
    with pytest.raises(ConfigError, match="there is nothing to restore"):
        gate.restore()


def test_a_whole_journal_is_not_restored(disk: OnDisk) -> None:
    with pytest.raises(ConfigError, match="there is nothing to restore"):
        restore(disk)


@pytest.mark.parametrize("place", ["file", "schema", "table", "body", "hash"])
def test_a_damaged_file_is_an_error_of_ours_and_no_traceback(disk: OnDisk, place: str) -> None:
    content = disk.layout.journal.read_bytes()
    last = read_head(disk.layout.head.read_bytes()).head.hash
    starts = {"file": 0, "schema": 100, "table": 4096}
    starts |= {"body": content.index(b'"exchange":'), "hash": content.index(last)}
    with disk.layout.journal.open("r+b") as file:
        file.seek(starts[place])
        file.write(b"\xff" * 16)
    with pytest.raises(ComityError):
        disk.open()
    result = CliRunner().invoke(audit, ["verify", "--state", str(disk.layout.journal.parent)])
    assert isinstance(result.exception, ComityError), result.output


def test_a_journal_of_a_newer_release_is_left_alone(disk: OnDisk) -> None:
    disk.sql("PRAGMA user_version = 99")
    with pytest.raises(VersionMismatch, match="schema version 99"):
        disk.open()


def test_a_second_writer_is_refused(disk: OnDisk) -> None:
    disk.open()
    with pytest.raises(UnavailableError, match="another process writes this journal"):
        SqliteJournal(disk.layout.journal)


def test_a_private_key_that_others_may_read_is_refused(disk: OnDisk) -> None:
    disk.layout.identity.chmod(0o640)
    with pytest.raises(ConfigError, match="others than its owner may read"):
        load_identity(disk.layout.identity)
