"""The site journal in SQLite: append-only records, one durable transaction a commit.

Write-ahead log with ``synchronous=FULL``: when `SqliteJournal.commit` returns, a loss of power does
not undo it. One process writes; others may read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

from comity.core.chain.record import Head, Record, head_after, link
from comity.errors import DataError, UnavailableError, VersionMismatch
from comity.ports import Entry

SCHEMA_VERSION: Final = 1

_MIGRATIONS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: """
            CREATE TABLE IF NOT EXISTS record (
                sequence INTEGER PRIMARY KEY,
                kind TEXT NOT NULL,
                body BLOB NOT NULL,
                previous BLOB NOT NULL,
                hash BLOB NOT NULL
            ) STRICT;
            CREATE TABLE note (digest TEXT PRIMARY KEY, salted BLOB NOT NULL) STRICT;
        """,
    }
)
"""What turns a journal of one schema version into one of the next; never edited, only added to."""

_OUT_OF_REACH: Final = "make room or make the folder writable, then try again; nothing was recorded"
_PASSING: Final = tuple(
    f"SQLITE_{name}" for name in ("FULL", "READONLY", "IOERR", "BUSY", "LOCKED", "CANTOPEN", "PERM")
)
"""What may pass: the disk, the folder's mode, another process. All else is damage."""
_PAGE: Final = 1_000
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    "PRAGMA busy_timeout=2000",
)


class SqliteJournal:
    """`Journal` over one SQLite file; created, or brought to the present schema, when opened.

    Args:
        path: The file; its folder must exist.
        read_only: Open for reading beside the one writer; `commit` is refused.
        max_bytes: Bound on the file; a commit beyond it is refused whole.

    Raises:
        UnavailableError: Another process writes it, or the folder is read-only or full.
        DataError: The file is no journal, or it is damaged.
        VersionMismatch: A newer release wrote it.
    """

    def __init__(self, path: Path, *, read_only: bool = False, max_bytes: int = 2**36) -> None:
        self._path = path
        self._read_only = read_only
        self._lock = threading.RLock()
        self._lock_file = -1 if read_only else _locked(path)
        try:
            with self._told():
                self._db = self._connect()
                self._prepare(max_bytes)
                self._head = self._read_head()
        except BaseException:
            self.close()
            raise

    def head(self) -> Head:
        """The last committed head."""
        return self._head

    def commit(self, entries: Sequence[Entry], *, notes: Sequence[bytes] = ()) -> Head:
        """Appends all entries in one durable transaction and returns the new head.

        Args:
            entries: What to append, in order.
            notes: Salted texts, stored under their SHA-256.

        Raises:
            UnavailableError: The disk is full or read-only, or the journal is at its bound.
        """
        with self._lock, self._told():
            head, rows = self._head, []
            for entry in entries:
                record = link(head, entry.kind, entry.body)
                rows.append(
                    (record.sequence, record.kind, record.body, record.previous, record.hash)
                )
                head = head_after(record)
            kept = [(hashlib.sha256(note).hexdigest(), note) for note in notes]
            with self._transaction():
                self._db.executemany("INSERT INTO record VALUES (?, ?, ?, ?, ?)", rows)
                self._db.executemany("INSERT OR IGNORE INTO note VALUES (?, ?)", kept)
            self._head = head
            return head

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The committed records whose sequence is above `after`, in order, unverified.

        Raises:
            DataError: The file is damaged.
        """
        while rows := self._page(after):
            yield from (Record(*row) for row in rows)
            after = rows[-1][0]

    def note(self, digest: str) -> bytes | None:
        """The salted text under `digest`; None where there is none, or it was erased."""
        with self._lock, self._told():
            row = self._db.execute("SELECT salted FROM note WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    def erase_note(self, digest: str) -> None:
        """Erases a text and its salt from the file; the chain keeps a digest of nothing."""
        with self._lock, self._told():
            with self._transaction():
                self._db.execute("DELETE FROM note WHERE digest = ?", (digest,))
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Releases the file and its lock."""
        if hasattr(self, "_db"):
            self._db.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    def _connect(self) -> sqlite3.Connection:
        mode = "ro" if self._read_only else "rwc"
        if not self._read_only:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

    def _prepare(self, max_bytes: int) -> None:
        if self._read_only:
            self._check_version()
            return
        for pragma in _PRAGMAS:
            self._db.execute(pragma)
        page_bytes = self._db.execute("PRAGMA page_size").fetchone()[0]
        self._db.execute(f"PRAGMA max_page_count={max_bytes // page_bytes}")
        version = self._check_version()
        if version < SCHEMA_VERSION:
            steps = "".join(_MIGRATIONS[step] for step in range(version, SCHEMA_VERSION))
            self._db.executescript(
                f"BEGIN IMMEDIATE;{steps}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
            )

    def _check_version(self) -> int:
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise VersionMismatch(
                f"{self._path} is of schema version {version}; this release reads up to "
                f"{SCHEMA_VERSION}",
                hint="update comity: a newer release wrote this journal",
            )
        return version

    def _read_head(self) -> Head:
        row = self._db.execute(
            "SELECT sequence, hash FROM record ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        return Head() if row is None else Head(*row)

    def _page(self, after: int) -> list[tuple[int, str, bytes, bytes, bytes]]:
        with self._lock, self._told():
            return self._db.execute(
                "SELECT sequence, kind, body, previous, hash FROM record WHERE sequence > ? "
                "ORDER BY sequence LIMIT ?",
                (after, _PAGE),
            ).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UnavailableError(f"{self._path}: {error.strerror}", hint=_OUT_OF_REACH) from error
        except (sqlite3.Error, TypeError) as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(_PASSING):
                raise UnavailableError(
                    f"{self._path}: the journal cannot be written: {error}", hint=_OUT_OF_REACH
                ) from error
            raise DataError(
                f"{self._path} is damaged or is no journal: {error}",
                hint="keep it as it is, put a backup in its place, then: comity journal restore",
            ) from error


def _locked(path: Path) -> int:
    lock = path.with_name(path.name + ".lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnavailableError(f"{lock}: {error.strerror}", hint=_OUT_OF_REACH) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise UnavailableError(
            f"{path}: another process writes this journal",
            hint="stop the other process, or give this site a state folder of its own",
        ) from error
    return handle
