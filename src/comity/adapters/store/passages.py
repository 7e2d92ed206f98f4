"""A site's documents on disk: SQLite is the truth, tantivy indexes beside it are a cache.

The passages, digests and term statistics are committed by SQLite (WAL, `synchronous=FULL`); the
indexes then follow, and after a crash in between they follow at the next opening.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.adapters.store.passage_index import IndexedPassage, PassageIndexes
from comity.adapters.store.passage_schema import change, count, meta, migrate, set_meta
from comity.core.retrieval.bm25 import Bm25
from comity.core.retrieval.statistics import TermStatistics
from comity.core.retrieval.text import terms as terms_of
from comity.errors import UnavailableError
from comity.ids import CollectionName, DocumentId, PassageId
from comity.ports import Document, Hit, Passage


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Bounds on a search.

    Attributes:
        depth: How many of the index's candidates are rescored exactly, at least.
        max_terms: Distinct terms of a question that are looked at.
        busy_timeout_s: How long a commit waits for another process's.
    """

    depth: int = 50
    max_terms: int = 64
    busy_timeout_s: float = 5.0


class TantivyPassageStore:
    """Implements `comity.ports.PassageStore`.

    Safe to call from several threads and processes; one process writes at a time.

    Args:
        folder: Holds ``passages.sqlite`` and the index; made when missing.
        settings: Bounds on a search.

    Raises:
        UnavailableError: The folder cannot be written.
        VersionMismatch: A newer release wrote it.
    """

    def __init__(self, folder: Path, settings: StoreSettings | None = None) -> None:
        self._settings = settings or StoreSettings()
        self._folder = folder
        self._lock = threading.RLock()
        with self._unavailable():
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                folder / "passages.sqlite",
                timeout=self._settings.busy_timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            migrate(self._connection)
            self._indexes = PassageIndexes(folder / "index")
        self._followed = -1
        self._catch_up()

    def write(self, puts: Sequence[Document], removes: Sequence[DocumentId] = ()) -> None:
        """Adds or replaces documents whole and removes others, in one durable transaction."""
        if not puts and not removes:
            return
        with self._lock, self._unavailable(), self._writing():
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                generation = meta(connection, "generation") + 1
                touched = {
                    self._remove(name, generation)
                    for name in (*removes, *(document.document for document in puts))
                }
                for document in puts:
                    self._put(document, generation)
                touched |= {document.collection for document in puts}
                for collection in sorted(touched - {None}, key=str):
                    change(connection, str(collection), generation)
                set_meta(connection, "generation", generation)
            self._follow()

    def digests(self, collection: CollectionName) -> Mapping[DocumentId, bytes]:
        """Content digests of the documents of a collection."""
        rows = self._rows("SELECT name, digest FROM documents WHERE collection = ?", [collection])
        return {DocumentId(name): digest for name, digest in rows}

    def search(
        self,
        terms: Sequence[str],
        collections: frozenset[CollectionName],
        limit: int,
        statistics: TermStatistics | None = None,
    ) -> Sequence[Hit]:
        """The best `limit` passages by BM25 among `collections` only, best first."""
        question = tuple(dict.fromkeys(terms))[: self._settings.max_terms]
        if not question or not collections or limit < 1:
            return []
        self._catch_up()
        held = {name for (name,) in self._rows("SELECT name FROM collections", [])}
        depth = max(limit, self._settings.depth)
        with self._unavailable():
            rows = self._indexes.candidates(question, held & collections, depth)
        ranking = Bm25(question, statistics or self.statistics(question, collections))
        hits = []
        # Whether a passage may be seen is read from the truth, not from the index.
        for name, collection, length, joined in self._analysed(rows, collections):
            words = joined.split(" ")
            counts = {term: words.count(term) for term in question}
            hits.append(
                Hit(
                    passage=PassageId(name),
                    collection=CollectionName(collection),
                    score=ranking.score(counts, length),
                )
            )
        hits.sort(key=lambda hit: (-hit.score, hit.passage))
        return hits[:limit]

    def statistics(
        self, terms: Sequence[str], collections: frozenset[CollectionName]
    ) -> TermStatistics:
        """The statistics of `collections` for `terms`; exact, also after removals."""
        inside, wanted = _json(sorted(collections)), list(dict.fromkeys(terms))
        passages, length = self._rows(
            "SELECT coalesce(sum(passages), 0), coalesce(sum(length), 0) FROM collections "
            "WHERE name IN (SELECT value FROM json_each(?))",
            [inside],
        )[0]
        found = self._rows(
            "SELECT term, sum(passages) FROM term_counts WHERE "
            "collection IN (SELECT value FROM json_each(?)) AND "
            "term IN (SELECT value FROM json_each(?)) GROUP BY term",
            [inside, _json(wanted)],
        )
        return TermStatistics(passages, length, {**dict.fromkeys(wanted, 0), **dict(found)})

    def fetch(self, passages: Iterable[PassageId]) -> Sequence[Passage]:
        """The passages that still exist, in the order asked."""
        wanted = list(passages)
        rows = self._rows(
            "SELECT p.name, d.name, d.collection, p.title, p.start, p.end, p.text "
            "FROM passages p JOIN documents d ON d.id = p.document "
            "WHERE p.name IN (SELECT value FROM json_each(?))",
            [_json(wanted)],
        )
        found = {row[0]: Passage(*row) for row in rows}
        return [found[name] for name in wanted if name in found]

    def close(self) -> None:
        """Releases files and locks."""
        with self._lock:
            self._connection.close()

    def _put(self, document: Document, generation: int) -> None:
        row = self._connection.execute(
            "INSERT INTO documents (name, collection, digest, generation) VALUES (?, ?, ?, ?)",
            (document.document, document.collection, document.digest, generation),
        ).lastrowid
        analysed = [terms_of(f"{passage.title}\n{passage.text}") for passage in document.passages]
        self._connection.executemany(
            'INSERT INTO passages (name, document, title, start, "end", text, length, terms) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (p.passage, row, p.title, p.start, p.end, p.text, len(found), " ".join(found))
                for p, found in zip(document.passages, analysed, strict=True)
            ),
        )
        count(self._connection, document.collection, analysed, 1)

    def _remove(self, name: DocumentId, generation: int) -> str | None:
        """Removes a document and says from which collection."""
        connection = self._connection
        row = connection.execute(
            "SELECT id, collection FROM documents WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return None
        held = connection.execute("SELECT terms FROM passages WHERE document = ?", (row[0],))
        count(connection, row[1], [text.split() for (text,) in held.fetchall()], -1)
        connection.execute("DELETE FROM documents WHERE id = ?", (row[0],))
        connection.execute("INSERT INTO removed VALUES (?, ?, ?)", (row[0], generation, row[1]))
        return str(row[1])

    def _catch_up(self) -> None:
        """Brings the indexes to the store's state; leaves them where another process writes."""
        with self._lock, self._unavailable():
            now = meta(self._connection, "generation")
            if self._followed == now:
                return
            if not self._behind():
                self._followed = now
                return
            try:
                with self._writing():
                    self._follow()
            except UnavailableError:
                self._behind()  # the other writer is about to commit the same

    def _behind(self) -> list[tuple[str, int]]:
        """Collections whose index lacks a change, or is ahead, with their last change."""
        found = []
        for collection, changed in self._rows("SELECT name, generation FROM changes", []):
            index = self._indexes.of(collection)
            index.refresh()
            if index.generation != changed:
                found.append((collection, changed))
        return found

    def _follow(self) -> None:
        now = meta(self._connection, "generation")
        for collection, changed in self._behind():
            index = self._indexes.of(collection)
            if index.generation > changed:  # an older copy of the truth was put back
                index.clear()
            before = index.generation
            removed = self._rows(
                "SELECT document FROM removed WHERE collection = ? AND generation > ?",
                [collection, before],
            )
            added = self._connection.execute(
                "SELECT p.id, p.document, p.terms FROM passages p "
                "JOIN documents d ON d.id = p.document WHERE d.collection = ? AND d.generation > ? "
                "ORDER BY p.id",
                (collection, before),
            )
            # An index stands for its own collection's last change alone: what others hold or when
            # they were written leaves no trace in it.
            index.follow(
                (row for (row,) in removed), (IndexedPassage(*row) for row in added), changed
            )
        self._connection.execute("DELETE FROM removed WHERE generation <= ?", (now,))
        self._followed = now

    def _analysed(
        self, rows: Sequence[int], collections: frozenset[CollectionName]
    ) -> Iterator[tuple[str, str, int, str]]:
        found = self._rows(
            "SELECT p.name, d.collection, p.length, p.terms FROM passages p "
            "JOIN documents d ON d.id = p.document WHERE p.id IN (SELECT value FROM json_each(?))",
            [_json(rows)],
        )
        # The filter stands here: in SQL it lures the planner into scanning the collections.
        return (row for row in found if row[1] in collections)

    def _rows(self, statement: str, values: Sequence[object]) -> list[Any]:
        with self._lock, self._unavailable():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with (self._folder / "write.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UnavailableError(
                    f"another process is writing to {self._folder}",
                    hint="let it finish, then try again",
                ) from error
            yield

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise UnavailableError(
                f"the passage store in {self._folder} cannot be used: {error}",
                hint="check that the folder is writable and the disk is not full",
            ) from error


def _json(values: Sequence[object]) -> str:
    return json.dumps(values)
