"""The extractive answer: the sentences that say most of what was asked, word for word."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from comity.core.answer.ground import Grounds, GroundSettings, supports
from comity.core.answer.sentence import sentences

Analyse = Callable[[str], Sequence[str]]
"""Text to terms, as the search counted them."""

_WANTS_FIGURE: Final = re.compile(
    r"\b(?:how (?:soon|long|much|many|often|fast|high|low|old|late|quickly)|when)\b", re.IGNORECASE
)
_FIGURE: Final = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|once|twice|daily|hourly|"
    r"weekly|monthly|immediately|at once)\b",
    re.IGNORECASE,
)
_FIGURE_BONUS: Final = 1.25
_SAME_SITE: Final = 0.7
"""Each sentence that a site already gave makes its next one worth this much of itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """A released passage, as far as extraction looks at it.

    Attributes:
        site: Whose it is.
        text: The passage; untrusted.
        context: Title and headings, which say what the sentences are about.
        score: Its rank's score over the best one's, in [0, 1].
        coverage: Share of the question's weight that it holds, in [0, 1].
    """

    site: str
    text: str
    context: str
    score: float
    coverage: float


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


@dataclass(frozen=True, slots=True)
class _Sentence:
    quote: Quote
    site: str
    terms: frozenset[str]
    worth: float
    grounds: Grounds


def extract(
    question: str,
    sources: Sequence[Source],
    analyse: Analyse,
    settings: ExtractSettings,
    grounding: GroundSettings,
) -> list[Pick]:
    """The sentences that answer `question`; none when nothing found supports an answer.

    Guarantees: every quote is a verbatim span of its source; the same input gives the same picks.
    """
    asked = frozenset(analyse(question))
    left = list(_weighed(question, asked, sources, analyse))
    left = [sentence for sentence in left if supports(sentence.grounds, grounding)]
    picks: list[Pick] = []
    given: Counter[str] = Counter()
    bar = 0.0
    while left and len(picks) < settings.max_sentences:
        best = min(
            left, key=lambda one: (-_worth_now(one, given), one.quote.source, one.quote.start)
        )
        worth = _worth_now(best, given)
        if worth < bar:
            break
        bar = bar or worth * settings.keep_share
        same = [one for one in left if one is best or _alike(one, best) >= settings.near_equal]
        picks.append(_pick(best, same, settings.max_quotes))
        given[best.site] += 1
        left = [one for one in left if one not in same]
    return picks


def _pick(best: _Sentence, same: Sequence[_Sentence], max_quotes: int) -> Pick:
    quotes = {best.quote.source: best.quote}
    for one in same:
        quotes.setdefault(one.quote.source, one.quote)
    return Pick(tuple(quotes.values())[:max_quotes], best.grounds)


def _weighed(
    question: str, asked: frozenset[str], sources: Sequence[Source], analyse: Analyse
) -> Iterator[_Sentence]:
    found = [
        (index, span, frozenset(analyse(source.text[slice(*span)])))
        for index, source in enumerate(sources)
        for span in sentences(source.text)
    ]
    weights = _weights(asked, [held for _, _, held in found])
    wants_figure = bool(_WANTS_FIGURE.search(question))
    context = [frozenset(analyse(source.context)) for source in sources]
    for index, (start, end), held in found:
        source = sources[index]
        own = _share(weights, asked & held)
        if not own:
            continue
        grounds = Grounds(source.coverage, _share(weights, asked & (held | context[index])))
        worth = (own + grounds.sentence_coverage) / 2 * (0.5 + 0.5 * source.score)
        if wants_figure and _FIGURE.search(source.text, start, end):
            worth *= _FIGURE_BONUS
        yield _Sentence(Quote(index, start, end), source.site, held, worth, grounds)


def _weights(asked: frozenset[str], found: Sequence[frozenset[str]]) -> dict[str, float]:
    """How telling each term of the question is among the sentences at hand."""
    holding = Counter(term for held in found for term in asked & held)
    return {term: math.log1p((len(found) + 1) / (holding[term] + 1)) for term in sorted(asked)}


def _share(weights: dict[str, float], held: frozenset[str]) -> float:
    total = sum(weights.values())
    return sum(weights[term] for term in sorted(held)) / total if total else 0.0


def _worth_now(sentence: _Sentence, given: Counter[str]) -> float:
    worth: float = sentence.worth * _SAME_SITE ** given[sentence.site]
    return worth


def _alike(one: _Sentence, other: _Sentence) -> float:
    return len(one.terms & other.terms) / len(one.terms | other.terms)
