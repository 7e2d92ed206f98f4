"""The inverted indexes of a passage store, one a collection; rebuilt from the store when in doubt.

One a collection, since an index ranks candidates by statistics of all that it holds: in a shared
one, what a closed collection holds would decide which passages of an open one are found.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tantivy

from comity.errors import UnavailableError

_GENERATION: Final = "generation"
_WRITER_BYTES: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class IndexedPassage:
    """What the index knows of a passage: numbers of the store's, and its analysed terms."""

    row: int
    document: int
    terms: str


class PassageIndexes:
    """The index of each collection, opened when it is first asked for.

    Args:
        folder: Holds a folder for each; an older release's single index in it is dropped.

    Raises:
        UnavailableError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, PassageIndex] = {}
        if (folder / "meta.json").exists():  # the truth has all that it takes to build them
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)

    def of(self, collection: str) -> PassageIndex:
        """The index of a collection."""
        if collection not in self._open:
            name = hashlib.sha256(collection.encode()).hexdigest()[:32]
            self._folder.mkdir(exist_ok=True)
            self._open[collection] = PassageIndex(self._folder / name)
        return self._open[collection]

    def candidates(self, terms: Sequence[str], collections: Iterable[str], depth: int) -> list[int]:
        """Rows of about the best `depth` passages of each collection for any of `terms`."""
        return [
            row
            for collection in sorted(collections)
            for row in self.of(collection).candidates(terms, depth)
        ]


class PassageIndex:
    """Finds candidates; knows no text, and is never asked what may be seen.

    The generation that it stands for is committed with its content, so that after a crash it is
    known which of the store's changes it lacks.

    Args:
        folder: Holds the index and nothing else; made when missing, replaced when unreadable.

    Raises:
        UnavailableError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._schema = _schema()
        self._open()

    @property
    def generation(self) -> int:
        """The store's generation that the index stands for; 0 when it is empty."""
        return self._generation

    def candidates(self, terms: Sequence[str], depth: int) -> list[int]:
        """Rows of about the best `depth` passages for any of `terms`.

        Args:
            terms: Distinct analysed terms; at least one.
            depth: How many.
        """
        query = tantivy.Query.boolean_query(
            [(tantivy.Occur.Should, self._term("terms", term, "freq")) for term in terms]
        )
        searcher = self._searcher
        hits = searcher.search(query, depth, count=False).hits
        rows = searcher.fast_field_values("row", [address for _, address in hits])
        return [int(row) for row in rows if row is not None]

    def follow(
        self, removed: Iterable[int], added: Iterable[IndexedPassage], generation: int
    ) -> None:
        """Takes over the store's changes, in one commit.

        Args:
            removed: Documents whose passages go.
            added: Passages that come.
            generation: What the index stands for afterwards.

        Raises:
            UnavailableError: The index cannot be written; it is as before.
        """
        with self._told():
            writer = self._index.writer(heap_size=_WRITER_BYTES, num_threads=1)
            for document in removed:
                writer.delete_documents_by_term("document", str(document))
            for passage in added:
                entry = tantivy.Document()
                entry.add_text("terms", passage.terms)
                entry.add_text("document", str(passage.document))
                entry.add_unsigned("row", passage.row)
                writer.add_document(entry)
            writer.delete_documents_by_term("document", _GENERATION)
            mark = tantivy.Document()
            mark.add_text("document", _GENERATION)
            mark.add_unsigned(_GENERATION, generation)
            writer.add_document(mark)
            writer.commit()
            writer.wait_merging_threads()
        self.refresh()

    def refresh(self) -> None:
        """Looks at the last commit, also one of another process."""
        self._index.reload()
        self._searcher = self._index.searcher()
        self._generation = self._read_generation()

    def _open(self) -> None:
        try:
            self._load()
        except (ValueError, OSError):  # unreadable: the store has all that it takes to build it
            self.clear()

    def clear(self) -> None:
        """Starts again with an empty index, at generation 0.

        Raises:
            UnavailableError: The folder cannot be written.
        """
        with self._told():
            shutil.rmtree(self._folder)
            self._load()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:  # tantivy raises the former for the latter
            raise UnavailableError(
                f"the index in {self._folder} cannot be written: {error}",
                hint="free disk space, or let the other writer finish",
            ) from error

    def _load(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._index = tantivy.Index(self._schema, path=str(self._folder))
        self.refresh()

    def _read_generation(self) -> int:
        hits = self._searcher.search(self._term("document", _GENERATION, "basic"), 1).hits
        return int(self._searcher.doc(hits[0][1])[_GENERATION][0]) if hits else 0

    def _term(self, field: str, value: str, option: str) -> tantivy.Query:
        return tantivy.Query.term_query(self._schema, field, value, option)


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    # Terms come analysed, joined by spaces: sites and gateway must count exactly the same ones.
    builder.add_text_field("terms", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("document", tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("row", fast=True)
    builder.add_unsigned_field(_GENERATION, stored=True)
    return builder.build()
