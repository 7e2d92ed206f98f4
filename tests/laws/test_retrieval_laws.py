"""Passages are exact, terms are stable, and one merge of raw scores is the pooled ranking."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.core.answer.plain import plain
from comity.core.answer.sentence import sentences
from comity.core.retrieval.bm25 import Bm25
from comity.core.retrieval.chunk import ChunkSettings, chunk
from comity.core.retrieval.fuse import Candidate, fuse
from comity.core.retrieval.statistics import TermStatistics, pooled
from comity.core.retrieval.text import MAX_TERM_CHARS, normalise, terms
from comity.errors import ConfigError
from comity.ids import CollectionName, SiteName

pieces = st.sampled_from(
    [
        "# ",
        "## Heading",
        "\n",
        "\n\n",
        "- ",
        "1. ",
        "a word",
        ". ",
        "Is it? ",
        "| cell ",
        "\t",
        " ",
        "naïve ",
        "Straße",
        "\u202e",
        "\u00a0",
        "\r\n",
        "e.g. x",
        "0.5 mg",
        "漢字。",
        "😀",
        "x" * 40,
    ]
)
texts = st.one_of(st.text(), st.lists(pieces, max_size=60).map("".join))
bounds = st.integers(1, 60).flatmap(
    lambda target: st.integers(target, 90).map(lambda most: ChunkSettings(target, most))
)


@given(texts, bounds)
def test_passages_hold_every_visible_character_once_and_in_order(
    text: str, settings: ChunkSettings
) -> None:
    spans = chunk(text, settings)
    end = 0
    for span in spans:
        assert text[end : span.start].strip() == ""
        assert 0 < span.end - span.start <= settings.max_chars
        assert text[span.start : span.end] == text[span.start : span.end].strip()
        end = span.end
    assert text[end:].strip() == ""


@given(texts)
def test_sentences_are_spans_without_outer_space_that_do_not_overlap(text: str) -> None:
    end = 0
    for start, stop in sentences(text):
        assert end <= start < stop <= len(text)
        assert text[start:stop] == text[start:stop].strip()
        end = stop


@given(texts)
def test_terms_fit_a_whitespace_index_and_do_not_depend_on_case(text: str) -> None:
    found = terms(text)
    assert " ".join(found).split() == found
    assert all(term for term in found)
    assert all(len(term) <= MAX_TERM_CHARS + 1 for term in found)
    assert normalise(normalise(text)) == normalise(text) or not text.isascii()


@given(st.text())
def test_what_is_shown_holds_no_hidden_character(text: str) -> None:
    shown = plain(text)
    assert not set(shown) & {chr(code) for code in (0, 7, 10, 27, 0x200B, 0x202E, 0x2066, 0xE0041)}
    assert plain(shown) == shown


candidates = st.lists(
    st.tuples(st.text("abc", min_size=1, max_size=3), st.integers(0, 5)), max_size=8
).map(
    lambda rows: sorted(
        (Candidate(name, CollectionName("c"), float(score)) for name, score in rows),
        key=lambda one: -one.score,
    )
)


@given(st.dictionaries(st.sampled_from("stuv").map(SiteName), candidates), st.integers(0, 12))
def test_fusing_is_sorting_the_union_and_cutting_it(
    answers: dict[SiteName, list[Candidate]], limit: int
) -> None:
    union = [
        (-one.score, site, place, one)
        for site, found in answers.items()
        for place, one in enumerate(found)
    ]
    union.sort(key=lambda row: row[:3])
    fused = fuse(answers, limit)
    assert fused == [(site, one) for _, site, _, one in union[:limit]]
    assert fused == fuse(dict(reversed(answers.items())), limit)


words = st.sampled_from(["pump", "alarm", "clamp", "dose", "bed"])
corpora = st.lists(
    st.lists(st.lists(words, min_size=1, max_size=8), max_size=6), min_size=1, max_size=4
)


def _count(corpus: list[list[str]]) -> TermStatistics:
    holding = Counter(word for passage in corpus for word in set(passage))
    return TermStatistics(len(corpus), sum(map(len, corpus)), dict(holding))


@given(corpora, st.lists(words, min_size=1, max_size=5))
def test_shared_statistics_give_every_passage_its_pooled_score(
    corpora: list[list[list[str]]], question: list[str]
) -> None:
    shared = pooled(_count(corpus) for corpus in corpora)
    whole = _count([passage for corpus in corpora for passage in corpus])
    assert (shared.passages, shared.length) == (whole.passages, whole.length)
    assert dict(shared.frequencies) == dict(whole.frequencies)
    for passage in (passage for corpus in corpora for passage in corpus):
        counts = Counter(passage)
        here, there = Bm25(question, shared), Bm25(reversed(question), whole)
        assert here.score(counts, len(passage)) == there.score(counts, len(passage))


def test_a_passage_bound_below_its_target_is_refused() -> None:
    with pytest.raises(ConfigError, match="target_chars is 10, max_chars 5"):
        ChunkSettings(10, 5)
