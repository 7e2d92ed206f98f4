"""The passage store's tables, and how an older file becomes a newer one."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Final

from comity.core.retrieval.text import ANALYSIS_VERSION, terms
from comity.errors import VersionMismatch

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused: the index knows documents by it
    name TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL,
    digest BLOB NOT NULL,
    generation INTEGER NOT NULL
);
CREATE INDEX documents_by_collection ON documents (collection, name);
CREATE INDEX documents_by_generation ON documents (generation);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    text TEXT NOT NULL,
    length INTEGER NOT NULL,
    terms TEXT NOT NULL
);
CREATE INDEX passages_by_document ON passages (document);
CREATE TABLE removed (document INTEGER PRIMARY KEY, generation INTEGER NOT NULL);
CREATE TABLE collections (
    name TEXT PRIMARY KEY, passages INTEGER NOT NULL, length INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE term_counts (
    collection TEXT NOT NULL,
    term TEXT NOT NULL,
    passages INTEGER NOT NULL,
    PRIMARY KEY (collection, term)
) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 0);
INSERT INTO meta VALUES ('analysis', 0);
"""

_CHANGES: Final = """
ALTER TABLE removed ADD COLUMN collection TEXT NOT NULL DEFAULT '';
CREATE TABLE changes (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO changes SELECT collection, max(generation) FROM documents GROUP BY collection;
DELETE FROM removed;  -- each collection gets an index of its own, made anew
"""

MIGRATIONS: Final = (_TABLES, _CHANGES)
"""Step n leads from schema version n to n + 1; steps are appended, never changed."""


def migrate(connection: sqlite3.Connection) -> None:
    """Brings a file to this release's schema and analysis, in one transaction.

    Raises:
        VersionMismatch: A newer release wrote it.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise VersionMismatch(
            f"the passage store is of schema version {version}; this release reads "
            f"{len(MIGRATIONS)}",
            hint="update comity: a newer release wrote this store",
        )
    if version == len(MIGRATIONS) and meta(connection, "analysis") == ANALYSIS_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        for step in MIGRATIONS[connection.execute("PRAGMA user_version").fetchone()[0] :]:
            for statement in step.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        if meta(connection, "analysis") != ANALYSIS_VERSION:
            _analyse_again(connection)


def meta(connection: sqlite3.Connection, key: str) -> int:
    """A figure that the store keeps of itself: ``generation`` or ``analysis``."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return int(row[0])


def set_meta(connection: sqlite3.Connection, key: str, value: int) -> None:
    """Sets a figure that the store keeps of itself."""
    connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))


def change(connection: sqlite3.Connection, collection: str, generation: int) -> None:
    """Notes that a collection changed, which is what its index has to follow."""
    connection.execute(
        "INSERT INTO changes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET "
        "generation = excluded.generation",
        (collection, generation),
    )


def count(
    connection: sqlite3.Connection, collection: str, analysed: Iterable[list[str]], sign: int
) -> None:
    """Adds passages to a collection's term statistics, or with `sign` -1 takes them away.

    Args:
        connection: Inside a transaction.
        collection: Where the passages lie.
        analysed: The terms of each passage.
        sign: 1 or -1.
    """
    frequencies: Counter[str] = Counter()
    passages = length = 0
    for found in analysed:
        frequencies.update(set(found))
        passages += 1
        length += len(found)
    connection.execute(
        "INSERT INTO collections VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
        "passages = passages + excluded.passages, length = length + excluded.length",
        (collection, sign * passages, sign * length),
    )
    connection.executemany(
        "INSERT INTO term_counts VALUES (?, ?, ?) ON CONFLICT (collection, term) DO UPDATE SET "
        "passages = passages + excluded.passages",
        ((collection, term, sign * found) for term, found in sorted(frequencies.items())),
    )
    if sign < 0:
        connection.execute(
            "DELETE FROM term_counts WHERE collection = ? AND passages = 0", (collection,)
        )
        connection.execute("DELETE FROM collections WHERE passages = 0")


def _analyse_again(connection: sqlite3.Connection) -> None:
    """Derives terms and statistics from the texts once more, under this release's analysis."""
    generation = meta(connection, "generation") + 1
    connection.execute("DELETE FROM term_counts")
    connection.execute("DELETE FROM collections")
    for document, collection in connection.execute("SELECT id, collection FROM documents"):
        rows = connection.execute(
            "SELECT id, title, text FROM passages WHERE document = ?", (document,)
        ).fetchall()
        analysed = [(row, terms(f"{title}\n{text}")) for row, title, text in rows]
        connection.executemany(
            "UPDATE passages SET length = ?, terms = ? WHERE id = ?",
            ((len(found), " ".join(found), row) for row, found in analysed),
        )
        count(connection, collection, (found for _, found in analysed), 1)
    # A tombstone for each document makes the index drop what it holds under the old analysis.
    connection.execute(
        "INSERT OR REPLACE INTO removed SELECT id, ?, collection FROM documents", (generation,)
    )
    connection.execute("UPDATE changes SET generation = ?", (generation,))
    connection.execute("UPDATE documents SET generation = ?", (generation,))
    set_meta(connection, "generation", generation)
    set_meta(connection, "analysis", ANALYSIS_VERSION)
