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


class Bm25:
    """Scores passages for one question under one corpus' statistics.

    Args:
        question: Terms of the question; repetitions count once.
        statistics: Of the corpus that passages are ranked in.
    """

    def __init__(self, question: Iterable[str], statistics: TermStatistics) -> None:
        # Sorted, so that every site and the gateway add in one order and agree to the last bit.
        self._weights = {term: idf(term, statistics) for term in sorted(set(question))}
        self._mean = statistics.mean_length or 1.0

    def score(self, counts: Mapping[str, int], length: int) -> float:
        """The score of a passage.

        Args:
            counts: How often it holds each term of the question; absent means 0.
            length: Its length in terms.
        """
        norm = K1 * (1 - B + B * length / self._mean)
        return sum(
            weight * count * (K1 + 1) / (count + norm)
            for term, weight in self._weights.items()
            if (count := counts.get(term, 0))
        )
