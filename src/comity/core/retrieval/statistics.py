"""Term statistics: what BM25 needs to know of a corpus, addable over its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class TermStatistics:
    """What BM25 needs to know of a whole corpus.

    Attributes:
        passages: Number of passages.
        length: Sum of the passages' lengths, in terms.
        frequencies: Number of passages that hold a term, by term; 0 where a term is absent.
    """

    passages: int = 0
    length: int = 0
    frequencies: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def mean_length(self) -> float:
        """Mean length of a passage in terms; 0 for an empty corpus."""
        return self.length / self.passages if self.passages else 0.0


def pooled(parts: Iterable[TermStatistics]) -> TermStatistics:
    """The statistics of all parts together: what one index over all of them would count."""
    passages = length = 0
    frequencies: Counter[str] = Counter()
    for part in parts:
        passages += part.passages
        length += part.length
        frequencies.update(part.frequencies)
    return TermStatistics(passages, length, MappingProxyType(dict(frequencies)))
