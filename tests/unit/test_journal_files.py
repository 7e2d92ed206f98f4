"""The files of a site's state: modes, migration, a full disk, a folder that cannot be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes.gate_site import PATIENTS, SITE, Site, arrays, exchange, plan

from comity.adapters.store.heads import FileHeadKeeper, read_head, write_head
from comity.adapters.store.journal import SCHEMA_VERSION, SqliteJournal
from comity.adapters.store.layout import state_layout
from comity.adapters.store.system import SystemClock, SystemRng
from comity.core.chain.canonical import encode
from comity.core.chain.record import Head, link, verified
from comity.errors import (
    ConfigError,
    DataError,
    Malformed,
    UnavailableError,
    Verification,
    VersionMismatch,
)
from comity.ports import Entry, SignedHead

ENTRY = Entry("policy", b"{}")
SIGNED = SignedHead(SITE, Head(3, bytes(32)), bytes(64))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_its_owner_reads_a_sites_state(tmp_path: Path) -> None:
    layout = state_layout(tmp_path / "state", create=True)
    journal = SqliteJournal(layout.journal)
    journal.commit([ENTRY])
    FileHeadKeeper(layout.head).keep(SIGNED)
    assert mode(tmp_path / "state") == mode(layout.head.parent) == 0o700
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert {mode(path) for path in files} == {0o600}
    assert len(files) >= 4
    journal.close()


def test_a_journal_of_schema_version_0_is_brought_forward_with_its_records(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    record = link(Head(), "policy", b"{}")
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE record (sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, "
            "body BLOB NOT NULL, previous BLOB NOT NULL, hash BLOB NOT NULL) STRICT"
        )
        db.execute(
            "INSERT INTO record VALUES (1, ?, ?, ?, ?)",
            (record.kind, record.body, record.previous, record.hash),
        )
    db.close()
    journal = SqliteJournal(path)
    journal.commit([ENTRY], notes=[b"salt and text"])
    assert len(list(verified(journal.records()))) == 2
    journal.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    db.close()


def test_a_note_is_read_by_its_digest_and_erased_from_the_file(tmp_path: Path) -> None:
    site = Site(journal=SqliteJournal(tmp_path / "journal.db"))
    gate = site.gate()
    gate.reserve(PATIENTS, plan(1), purpose="the Miller case")
    assert isinstance(site.journal, SqliteJournal)
    body = site.records()[-1].body
    start = body.index(b'"purpose":"') + 11
    digest = body[start : start + 64].decode()
    note = site.journal.note(digest)
    assert note is not None
    assert note.endswith(b"the Miller case")
    site.journal.erase_note(digest)
    assert site.journal.note(digest) is None
    for path in tmp_path.iterdir():
        assert b"Miller" not in path.read_bytes(), path
    site.gate().release(exchange(), [arrays()])
    site.journal.close()


def test_a_journal_at_its_bound_refuses_a_commit_whole_and_reads_on(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db", max_bytes=64 * 1024)
    head = journal.commit([ENTRY])
    with pytest.raises(UnavailableError, match=r"journal.db: .*full") as caught:
        journal.commit([ENTRY, Entry("policy", bytes(128 * 1024))])
    assert "make room" in caught.value.hint
    assert journal.head() == head
    assert journal.commit([ENTRY]).sequence == 2
    assert len(list(verified(journal.records()))) == 2
    journal.close()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from comity.adapters.store.journal import SqliteJournal
from comity.errors import UnavailableError
from tests.fakes.gate_site import Site, MemoryHeads, arrays, exchange
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
site = Site(journal=SqliteJournal(Path(sys.argv[1])))
gate = site.gate()
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
left = 0
for number in range(200):
    try:
        gate.release(exchange(f"e{number}"), [arrays()])
        left += 1
    except UnavailableError as error:
        print(left, error.message)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
gate.release(exchange("after"), [arrays()])
print(sum(record.kind == "exchange" for record in site.records()))
"""


def test_a_disk_that_fills_up_loses_nothing_and_work_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "journal.db")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told, count = done.stdout.splitlines()
    left = int(told.split()[0])
    assert left > 0
    assert "journal.db" in told
    assert int(count) == left + 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no-such/journal.db.lock: No such file"):
        SqliteJournal(tmp_path / "no-such" / "journal.db")
    with pytest.raises(UnavailableError, match=r"no-such/head.json: No such file"):
        FileHeadKeeper(tmp_path / "no-such" / "head.json").keep(SIGNED)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"Not a directory|File exists"):
        state_layout(tmp_path / "file", create=True)
    with pytest.raises(UnavailableError, match="Is a directory"):
        FileHeadKeeper(tmp_path).load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes in any folder")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UnavailableError, match="Permission denied"):
            SqliteJournal(tmp_path / "journal.db")
    finally:
        tmp_path.chmod(0o700)


def test_a_journal_opened_to_read_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with pytest.raises(UnavailableError):
        SqliteJournal(path, read_only=True)
    writer = SqliteJournal(path)
    writer.commit([ENTRY])
    reader = SqliteJournal(path, read_only=True)
    assert reader.head() == writer.head()
    with pytest.raises(UnavailableError, match="readonly"):
        reader.commit([ENTRY])
    reader.close()
    writer.close()


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"this is a letter, not a database" * 100)
    with pytest.raises(DataError, match="is damaged or is no journal"):
        SqliteJournal(path)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(DataError, match="no such table"):
        SqliteJournal(tmp_path / "other.db")


def test_a_crash_while_a_head_is_kept_leaves_the_old_one(tmp_path: Path) -> None:
    keeper = FileHeadKeeper(tmp_path / "head.json")
    keeper.keep(SIGNED)
    (tmp_path / "head.json.new").write_bytes(b"half")
    assert keeper.load() == SIGNED
    shutil.rmtree(tmp_path)
    with pytest.raises(UnavailableError):
        keeper.keep(SIGNED)


GOOD = {
    "schema_version": 1,
    "site": "site-b",
    "sequence": 3,
    "hash": "00" * 32,
    "signature": "00" * 64,
}


@pytest.mark.parametrize(
    "changes", [{"sequence": -1}, {"hash": "zz"}, {"signature": 1}, {"site": None}]
)
def test_a_head_that_does_not_parse_is_malformed_and_in_a_file_altered(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    body = encode({**GOOD, **changes})
    with pytest.raises(Malformed):
        read_head(body)
    (tmp_path / "head.json").write_bytes(body)
    with pytest.raises(Verification, match="the kept head was altered"):
        FileHeadKeeper(tmp_path / "head.json").load()


def test_a_head_reads_back_and_one_of_a_newer_version_is_refused() -> None:
    assert read_head(write_head(SIGNED)) == SIGNED == read_head(encode(GOOD))
    with pytest.raises(VersionMismatch):
        read_head(encode({**GOOD, "schema_version": 2}))


def test_the_systems_clock_and_generator_work() -> None:
    clock = SystemClock()
    assert clock.wall_s() > 1_700_000_000
    assert clock.monotonic_s() <= clock.monotonic_s()
    assert SystemRng().token(16) != SystemRng().token(16)
    with pytest.raises(ConfigError, match="nothing to restore"):
        Site().gate().restore()
