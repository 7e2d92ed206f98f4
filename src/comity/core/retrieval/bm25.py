"""BM25, with the statistics as an argument: a site's own, or the whole federation's.

Robertson and Zaragoza 2009, with the never-negative idf of Lucene.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from comity.core.retrieval.statistics import TermStatistics

K1: Final = 1.2
B: Final = 0.75


def idf(term: str, statistics: TermStatistics) -> float:
    """How much finding `term` says; above 0, and highest for a term that no passage holds."""
    holding = statistics.frequencies.get(term, 0)
    return math.log1p((statistics.passages - holding + 0.5) / (holding + 0.5))


def score(
    question: Iterable[str],
    counts: Mapping[str, int],
    length: int,
    statistics: TermStatistics,
) -> float:
    """The BM25 score of one passage.

    Args:
        question: Distinct terms of the question.
        counts: How often the passage holds each of them; absent means 0.
        length: The passage's length in terms.
        statistics: Of the corpus that it is ranked in.
    """
    mean = statistics.mean_length or 1.0
    norm = K1 * (1 - B + B * length / mean)
    total = 0.0
    for term in sorted(question):  # one order of summation, so that sites and gateway agree
        count = counts.get(term, 0)
        if count:
            total += idf(term, statistics) * count * (K1 + 1) / (count + norm)
    return total


def coverage(
    question: Iterable[str], counts: Mapping[str, int], statistics: TermStatistics
) -> float:
    """The share of the question's weight that a passage holds, in [0, 1].

    A term weighs its idf, so words that the corpus does not know count most. It is what abstention
    looks at: a score says which passage is best, coverage says whether it is good.
    """
    weights = {term: idf(term, statistics) for term in sorted(question)}
    total = sum(weights.values())
    found = sum(weight for term, weight in weights.items() if counts.get(term, 0))
    return min(1.0, found / total) if total else 0.0
