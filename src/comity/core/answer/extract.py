"""The extractive answer: the sentences that say most of what was asked, word for word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity.core.answer.ground import Grounds, GroundSettings, supports
from comity.core.answer.question import Analyse, read_question
from comity.core.answer.weigh import Source, Weighed, weighed

_SAME_SITE: Final = 0.8
"""Each sentence that a site already gave makes its next one worth this much of itself."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A sentence to quote: ``sources[source].text[start:end]``."""

    source: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Pick:
    """One sentence of the answer and who else says nearly the same.

    Attributes:
        quotes: The sentence that is shown, then its near-equals at other passages.
        grounds: What stands behind it.
    """

    quotes: tuple[Quote, ...]
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class ExtractSettings:
    """Bounds on an answer.

    Attributes:
        max_sentences: Sentences of the answer.
        max_quotes: Passages that one sentence cites.
        near_equal: Sentences whose terms overlap this much (Jaccard) say the same.
        keep_share: A further sentence needs this share of the best one's worth.
    """

    max_sentences: int = 3
    max_quotes: int = 3
    near_equal: float = 0.6
    keep_share: float = 0.55


def extract(
    question: str,
    sources: Sequence[Source],
    analyse: Analyse,
    settings: ExtractSettings,
    grounding: GroundSettings,
) -> list[Pick]:
    """The sentences that answer `question`; none when nothing found supports an answer.

    Guarantees: every quote is a verbatim span of its source and no heading; the same input gives
    the same picks.
    """
    asked = read_question(question, analyse)
    if not asked.terms:
        return []
    left = [one for one in weighed(asked, sources, analyse) if supports(one.grounds, grounding)]
    picks: list[Pick] = []
    given: Counter[str] = Counter()
    bar = 0.0
    while left and len(picks) < settings.max_sentences:
        best = min(left, key=lambda one: (-_worth_now(one, given), one.source, one.start))
        bar = bar or best.worth * settings.keep_share
        same = [one for one in left if one is best or _alike(one, best) >= settings.near_equal]
        picks.append(_pick(best, same, settings.max_quotes))
        given[best.site] += 1
        left = [one for one in left if one not in same and one.worth >= bar]
    return picks


def _pick(best: Weighed, same: Sequence[Weighed], max_quotes: int) -> Pick:
    quotes = {best.source: _quote(best)}
    for one in same:
        quotes.setdefault(one.source, _quote(one))
    return Pick(tuple(quotes.values())[:max_quotes], best.grounds)


def _quote(one: Weighed) -> Quote:
    return Quote(one.source, one.start, one.end)


def _worth_now(sentence: Weighed, given: Counter[str]) -> float:
    worth: float = sentence.worth * _SAME_SITE ** given[sentence.site]
    return worth


def _alike(one: Weighed, other: Weighed) -> float:
    both = one.terms | other.terms
    return len(one.terms & other.terms) / len(both) if both else 1.0
