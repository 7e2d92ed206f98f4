"""What every passage store keeps to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from comity.adapters.store.passages import TantivyPassageStore
from comity.core.retrieval.bm25 import Bm25
from comity.core.retrieval.statistics import TermStatistics
from comity.core.retrieval.text import terms as analyse
from comity.ids import CollectionName, DocumentId, PassageId
from comity.ports import Document, Hit, Passage, PassageStore

GUIDES, MINUTES = CollectionName("guides"), CollectionName("minutes")
BOTH = frozenset({GUIDES, MINUTES})


class MemoryPassageStore:
    """The same by brute force; what the adapter is compared with."""

    def __init__(self) -> None:
        self._documents: dict[DocumentId, Document] = {}

    def write(self, puts: Sequence[Document], removes: Sequence[DocumentId] = ()) -> None:
        for name in removes:
            self._documents.pop(name, None)
        self._documents |= {document.document: document for document in puts}

    def digests(self, collection: CollectionName) -> Mapping[DocumentId, bytes]:
        return {
            one.document: one.digest
            for one in self._documents.values()
            if one.collection == collection
        }

    def search(
        self,
        terms: Sequence[str],
        collections: frozenset[CollectionName],
        limit: int,
        statistics: TermStatistics | None = None,
    ) -> Sequence[Hit]:
        ranking = Bm25(terms, statistics or self.statistics(terms, collections))
        hits = []
        for passage in self._passages(collections):
            found = analyse(f"{passage.title}\n{passage.text}")
            counts = Counter(found)
            if any(counts[term] for term in terms):
                score = ranking.score(counts, len(found))
                hits.append(Hit(passage.passage, passage.collection, score))
        return sorted(hits, key=lambda hit: (-hit.score, hit.passage))[: max(limit, 0)]

    def statistics(
        self, terms: Sequence[str], collections: frozenset[CollectionName]
    ) -> TermStatistics:
        found = [analyse(f"{one.title}\n{one.text}") for one in self._passages(collections)]
        frequencies = {term: sum(term in held for held in found) for term in terms}
        return TermStatistics(len(found), sum(map(len, found)), frequencies)

    def fetch(self, passages: Iterable[PassageId]) -> Sequence[Passage]:
        held = {one.passage: one for one in self._passages(BOTH)}
        return [held[name] for name in passages if name in held]

    def close(self) -> None:
        pass

    def _passages(self, collections: frozenset[CollectionName]) -> list[Passage]:
        return [
            passage
            for one in self._documents.values()
            if one.collection in collections
            for passage in one.passages
        ]


def document(name: str, *texts: str, collection: CollectionName = GUIDES) -> Document:
    """A document of one passage a text."""
    whole = DocumentId(f"{collection}/{name}")
    passages = tuple(
        Passage(PassageId(f"{whole}:{at}"), whole, collection, "title", 0, len(text), text)
        for at, text in enumerate(texts)
    )
    digest = hashlib.sha256("\0".join(texts).encode()).digest()
    return Document(whole, collection, digest, passages)


@pytest.fixture(params=["memory", "tantivy"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], PassageStore]]:
    made: list[PassageStore] = []
    memory = MemoryPassageStore()

    def open_again() -> PassageStore:
        made.append(memory if request.param == "memory" else TantivyPassageStore(tmp_path / "s"))
        return made[-1]

    yield open_again
    for store in made:
        store.close()


def names(hits: Sequence[Hit]) -> list[str]:
    return [hit.passage for hit in hits]


def test_what_was_written_is_found_at_once_best_first(opened: Callable[[], PassageStore]) -> None:
    store = opened()
    store.write([document("a", "pump alarm alarm", "bed rail"), document("b", "pump clamp")])
    assert names(store.search(["pump", "alarm"], BOTH, 10)) == ["guides/a:0", "guides/b:0"]
    assert names(store.search(["pump", "alarm"], BOTH, 1)) == ["guides/a:0"]
    assert store.search([], BOTH, 10) == []
    assert store.search(["pump"], frozenset(), 10) == []
    assert store.search(["pump"], BOTH, 0) == []
    assert store.search(["absent"], BOTH, 10) == []


def test_a_write_of_nothing_changes_nothing(opened: Callable[[], PassageStore]) -> None:
    store = opened()
    store.write([])
    assert store.digests(GUIDES) == {}


def test_a_replaced_document_leaves_nothing_behind(opened: Callable[[], PassageStore]) -> None:
    store = opened()
    store.write([document("a", "pump alarm")])
    store.write([document("a", "bed rail")])
    assert names(store.search(["pump"], BOTH, 10)) == []
    assert names(store.search(["bed"], BOTH, 10)) == ["guides/a:0"]
    assert store.statistics(["pump", "bed"], BOTH).frequencies == {"pump": 0, "bed": 1}
    assert store.digests(GUIDES) == {"guides/a": document("a", "bed rail").digest}


def test_a_removed_document_is_gone_from_search_statistics_and_fetch(
    opened: Callable[[], PassageStore],
) -> None:
    store = opened()
    store.write([document("a", "pump"), document("b", "pump")])
    store.write([], [DocumentId("guides/a"), DocumentId("guides/never")])
    assert names(store.search(["pump"], BOTH, 10)) == ["guides/b:0"]
    assert store.statistics(["pump"], BOTH).passages == 1
    assert store.fetch([PassageId("guides/a:0")]) == []


def test_other_collections_leave_no_trace_in_hits_or_scores(
    opened: Callable[[], PassageStore],
) -> None:
    store = opened()
    store.write([document("a", "pump alarm"), document("b", "clamp")])
    before = store.search(["pump", "alarm"], frozenset({GUIDES}), 10)
    store.write([document(f"m{at}", "pump pump", collection=MINUTES) for at in range(9)])
    assert store.search(["pump", "alarm"], frozenset({GUIDES}), 10) == before
    assert len(store.search(["pump"], BOTH, 20)) == 10


def test_ties_are_broken_by_passage_id(opened: Callable[[], PassageStore]) -> None:
    store = opened()
    store.write([document(name, "pump") for name in ("c", "a", "b")])
    found = store.search(["pump"], BOTH, 10)
    assert names(found) == ["guides/a:0", "guides/b:0", "guides/c:0"]
    assert len({hit.score for hit in found}) == 1


def test_scores_under_given_statistics_are_bm25_of_these(
    opened: Callable[[], PassageStore],
) -> None:
    store = opened()
    store.write([document("a", "pump alarm"), document("b", "pump")])
    shared = TermStatistics(1000, 9000, {"pump": 900, "alarm": 1})
    ranking = Bm25(["pump", "alarm"], shared)
    best = store.search(["pump", "alarm"], BOTH, 10, shared)[0]
    # The title counts: "title pump alarm" has three terms.
    assert best.score == ranking.score({"pump": 1, "alarm": 1}, 3)


def test_passages_come_in_the_order_asked(opened: Callable[[], PassageStore]) -> None:
    store = opened()
    first, second = document("a", "one"), document("b", "two")
    store.write([first, second])
    wanted = [PassageId("guides/b:0"), PassageId("none"), PassageId("guides/a:0")]
    assert list(store.fetch(wanted)) == [*second.passages, *first.passages]


def test_a_reopened_store_holds_what_was_written(opened: Callable[[], PassageStore]) -> None:
    store = opened()
    store.write([document("a", "pump alarm")])
    again = opened()
    assert names(again.search(["alarm"], BOTH, 10)) == ["guides/a:0"]
    again.write([document("b", "alarm")])
    assert len(store.search(["alarm"], BOTH, 10)) == 2
