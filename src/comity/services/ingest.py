"""From a feed of documents to passages in a site's store, by what changed.

A document that cannot be taken in is named in the report and kept out, whole; the others go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from comity.core.retrieval.chunk import ChunkSettings, chunk
from comity.errors import DataError
from comity.events import DocumentsIngested, EventSink, ignore
from comity.ids import CollectionName, DocumentId, PassageId, SiteName
from comity.ports import Clock, Document, Feed, Passage, PassageStore
from comity.services.markup import is_read, text_of


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Bounds on what is taken in.

    Attributes:
        chunk: Bounds on a passage.
        max_line_bytes: The longest line of a document.
        max_documents: Documents of one collection.
        batch_characters: Text that is written in one transaction, at least one document.
    """

    chunk: ChunkSettings = field(default_factory=ChunkSettings)
    max_line_bytes: int = 2**20
    max_documents: int = 1_000_000
    batch_characters: int = 4_000_000


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that was not taken in, and why; the reason may name paths of this site."""

    document: DocumentId
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion did to a collection.

    Attributes:
        added: Documents that are new.
        replaced: Documents whose content changed.
        removed: Documents that are gone, or can no longer be read.
        unchanged: Documents that were there before.
        passages: Passages that were written.
        refused: Documents that were not taken in.
        skipped: Files of a kind that is not read, such as pictures.
    """

    added: int
    replaced: int
    removed: int
    unchanged: int
    passages: int
    refused: tuple[Refused, ...]
    skipped: int = 0


@dataclass(slots=True)
class _Tally:
    """What one ingestion found so far."""

    before: dict[DocumentId, bytes]
    seen: set[DocumentId] = field(default_factory=set)
    refused: list[Refused] = field(default_factory=list)
    skipped: int = 0


class Ingest:
    """Takes documents into one site's store.

    Args:
        site: The site, for events.
        store: Where passages go.
        clock: Measures.
        settings: Bounds.
        events: Hears of what was taken in.
    """

    def __init__(
        self,
        site: SiteName,
        store: PassageStore,
        clock: Clock,
        settings: IngestSettings | None = None,
        events: EventSink = ignore,
    ) -> None:
        self._site = site
        self._store = store
        self._clock = clock
        self._settings = settings or IngestSettings()
        self._events = events

    def collection(self, name: CollectionName, feed: Feed) -> IngestReport:
        """Makes a collection hold what the feed holds now.

        Raises:
            ConfigError: The feed cannot be reached.
            DataError: It holds more documents than `max_documents`; nothing was removed.
            UnavailableError: The store cannot be written; documents are whole or absent.
        """
        began = self._clock.monotonic_s()
        before = dict(self._store.digests(name))
        tally = _Tally(before)
        added = replaced = passages = 0
        batch: list[Document] = []
        waiting = 0
        for document, characters in self._changed(name, feed, tally):
            added += document.document not in before
            replaced += document.document in before
            passages += len(document.passages)
            batch.append(document)
            waiting += characters
            if waiting >= self._settings.batch_characters:
                self._store.write(batch)
                batch, waiting = [], 0
        gone = sorted(before.keys() - tally.seen)
        self._store.write(batch, gone)
        unchanged = len(tally.seen) - added - replaced
        report = IngestReport(
            added,
            replaced,
            len(gone),
            unchanged,
            passages,
            tuple(tally.refused),
            tally.skipped,
        )
        self._events(
            DocumentsIngested(
                site=self._site,
                collection=name,
                added=added,
                replaced=replaced,
                removed=len(gone),
                passages=passages,
                seconds=self._clock.monotonic_s() - began,
            )
        )
        return report

    def _changed(
        self, name: CollectionName, feed: Feed, tally: _Tally
    ) -> Iterator[tuple[Document, int]]:
        """Documents whose digest is new, with their length; fills `tally`."""
        for number, item in enumerate(feed.items()):
            if number >= self._settings.max_documents:
                raise DataError(
                    f"collection {name} has more than {self._settings.max_documents} documents",
                    hint="split the collection, or raise the limit",
                )
            document = DocumentId(f"{name}/{item.name}")
            suffixed = "." in PurePosixPath(item.name).name
            if suffixed and not is_read(item.name):
                tally.skipped += 1
                continue
            try:
                content = item.read()
                if not suffixed:  # only now it is known to be a file, and no link to a folder
                    tally.skipped += 1
                    continue
                digest = self._digest(content)
                if tally.before.get(document) != digest:
                    yield self._document(document, name, digest, content)
            except DataError as error:
                tally.refused.append(Refused(document, error.message, error.hint))
                continue
            tally.seen.add(document)

    def _document(
        self, document: DocumentId, collection: CollectionName, digest: bytes, content: bytes
    ) -> tuple[Document, int]:
        name = document.removeprefix(f"{collection}/")
        title, text = text_of(name, content, max_line_bytes=self._settings.max_line_bytes)
        passages = tuple(
            Passage(
                passage=_passage_id(document, digest, span.start, span.end),
                document=document,
                collection=collection,
                title=title,
                start=span.start,
                end=span.end,
                text=text[span.start : span.end],
            )
            for span in chunk(text, self._settings.chunk)
        )
        return Document(document, collection, digest, passages), len(text)

    def _digest(self, content: bytes) -> bytes:
        # The bounds belong to it: under other ones the same content makes other passages.
        bounds = repr((self._settings.chunk, self._settings.max_line_bytes))
        return hashlib.sha256(bounds.encode() + b"\0" + content).digest()


def _passage_id(document: DocumentId, digest: bytes, start: int, end: int) -> PassageId:
    what = f"{document}\0{digest.hex()}\0{start}\0{end}"
    return PassageId(hashlib.sha256(what.encode()).hexdigest()[:32])
