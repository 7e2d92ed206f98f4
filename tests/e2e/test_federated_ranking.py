"""Federated BM25 on SciFact, split by topic over four sites, against one pooled index."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from comity.adapters.store.passages import TantivyPassageStore
from comity.core.retrieval.fuse import Candidate, fuse
from comity.core.retrieval.statistics import TermStatistics, pooled
from comity.core.retrieval.text import terms
from comity.ids import CollectionName, DocumentId, PassageId, SiteName
from comity.ports import Document, Passage

DATA = Path(__file__).parents[3] / "shared" / "data" / "scifact"
PAPERS = CollectionName("papers")
INSIDE = frozenset({PAPERS})

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.exists(), reason="the shared data are not here"),
]


def lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def judgements() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in (DATA / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        question, document, grade = line.split()
        found.setdefault(question, {})[document] = int(grade)
    return found


def paper(row: Mapping[str, str]) -> Document:
    text, name = row["text"], DocumentId(row["_id"])
    passage = Passage(PassageId(name), name, PAPERS, row["title"], 0, len(text), text)
    return Document(name, PAPERS, b"", (passage,))


def ndcg(ranking: Sequence[str], grades: Mapping[str, int]) -> float:
    gain = sum(grades.get(name, 0) / math.log2(at + 2) for at, name in enumerate(ranking[:10]))
    best = sorted(grades.values(), reverse=True)[:10]
    return gain / sum(grade / math.log2(at + 2) for at, grade in enumerate(best))


def topics(rows: Sequence[Mapping[str, str]], sites: int) -> list[int]:
    """A skewed split: papers by their nearest of `sites` random papers in hashed term space."""
    vectors = np.zeros((len(rows), 512))
    for at, row in enumerate(rows):
        for term in set(terms(row["text"])):
            vectors[at, sum(term.encode()) * 31 % 512] += 1
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centres = vectors[np.random.default_rng(0).choice(len(rows), sites, replace=False)]
    return list(np.argmax(vectors @ centres.T, axis=1))


def test_shared_statistics_rank_like_the_pooled_index(tmp_path: Path) -> None:
    rows, grades = lines("corpus.jsonl"), judgements()
    questions = {row["_id"]: terms(row["text"]) for row in lines("queries.jsonl")}
    whole = TantivyPassageStore(tmp_path / "whole")
    whole.write([paper(row) for row in rows])
    sites = {SiteName(f"s{at}"): TantivyPassageStore(tmp_path / f"s{at}") for at in range(4)}
    split = topics(rows, 4)
    for at, store in enumerate(sites.values()):
        store.write([paper(row) for row, topic in zip(rows, split, strict=True) if topic == at])

    def federated(question: Sequence[str], shared: TermStatistics | None) -> list[str]:
        answers = {
            name: [
                Candidate(hit.passage, hit.collection, hit.score)
                for hit in store.search(question, INSIDE, 50, shared)
            ]
            for name, store in sites.items()
        }
        return [candidate.opaque for _, candidate in fuse(answers, 10)]

    totals = np.zeros(3)
    for name, known in grades.items():
        question = questions[name]
        shared = pooled(store.statistics(question, INSIDE) for store in sites.values())
        rankings = (
            [hit.passage for hit in whole.search(question, INSIDE, 10)],
            federated(question, shared),
            federated(question, None),
        )
        totals += [ndcg(ranking, known) for ranking in rankings]
    pooled_ndcg, shared_ndcg, own_ndcg = totals / len(grades)
    print(f"pooled {pooled_ndcg:.3f}, shared {shared_ndcg:.3f}, own {own_ndcg:.3f}")
    assert pooled_ndcg > 0.67
    assert abs(shared_ndcg - pooled_ndcg) <= 0.005
    assert own_ndcg < shared_ndcg
