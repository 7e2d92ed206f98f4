"""BM25 worked out by hand, and the analysis of known sentences."""

from __future__ import annotations

import math

import pytest

from comity.core.retrieval.bm25 import Bm25, idf
from comity.core.retrieval.chunk import chunk, first_heading
from comity.core.retrieval.statistics import TermStatistics
from comity.core.retrieval.text import terms

# Three passages of 4, 2 and 3 terms; "alarm" stands in two of them, "clamp" in one.
CORPUS = TermStatistics(3, 9, {"alarm": 2, "clamp": 1})


def test_idf_is_the_logarithm_of_one_plus_the_odds_of_absence() -> None:
    assert idf("alarm", CORPUS) == pytest.approx(math.log(1 + 1.5 / 2.5))
    assert idf("clamp", CORPUS) == pytest.approx(math.log(1 + 2.5 / 1.5))
    assert idf("unknown", CORPUS) == pytest.approx(math.log(1 + 3.5 / 0.5))


def test_a_score_is_the_sum_over_terms_worked_out_by_hand() -> None:
    # Length 4 against a mean of 3: norm = 1.2 * (0.25 + 0.75 * 4 / 3) = 1.5.
    by_hand = math.log(1.6) * 2 * 2.2 / (2 + 1.5) + math.log(8 / 3) * 1 * 2.2 / (1 + 1.5)
    ranking = Bm25(["clamp", "alarm", "alarm"], CORPUS)
    assert ranking.score({"alarm": 2, "clamp": 1}, 4) == pytest.approx(by_hand, rel=1e-12)
    assert ranking.score({}, 4) == 0


def test_an_empty_corpus_scores_without_dividing_by_zero() -> None:
    assert Bm25(["x"], TermStatistics()).score({"x": 1}, 1) > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The occlusion alarms of 2 pumps", ["occlus", "alarm", "2", "pump"]),
        ("Naïve ﬁbres, 0.5 mg/h", ["naiv", "fibr", "0.5", "mg", "h"]),
        ("Straße STRASSE", ["strass", "strass"]),
        ("the of and", []),
        ("x" * 65, []),
    ],
)
def test_known_sentences_have_known_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_headings_begin_passages_and_stay_with_what_they_stand_over() -> None:
    text = "# Pump\n\nFirst.\n\nSecond.\n\n## Alarm\nClose the clamp.\n\n# A\n## B"
    found = [text[span.start : span.end] for span in chunk(text)]
    assert found == ["# Pump\n\nFirst.\n\nSecond.", "## Alarm\nClose the clamp.", "# A\n## B"]
    assert first_heading(text) == "Pump"
    assert first_heading("no heading") == ""
