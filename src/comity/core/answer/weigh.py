"""What each sentence at hand is worth as an answer, and what stands behind it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.core.answer import shape
from comity.core.answer.ground import Grounds
from comity.core.answer.kin import families
from comity.core.answer.question import Analyse, Asked
from comity.core.answer.sentence import Placed, placed_sentences

_HEADED: Final = 0.9
"""What a word of the question counts that stands in the title or the heading over a sentence."""
_MEANT: Final = 0.8
"""Likewise, in the sentence that this one refers back to."""
_BESIDE: Final = 0.5
"""Likewise, in the sentence next to it in the same section."""
_AROUND: Final = 0.3
"""Likewise, elsewhere in the document, as far as it was released."""
_LOOSE_FOR_A_FIGURE: Final = 0.5
"""A figure belongs to what its own sentence names: the last two count this much of themselves."""
_DEED: Final = 1.5
"""How often is asked of a deed, so the word for it counts this much more."""
_DATED: Final = 0.6
_YEAR: Final = re.compile(r"(?:19|20)\d\d")


@dataclass(frozen=True, slots=True)
class Source:
    """A released passage, as far as extraction looks at it.

    Attributes:
        site: Whose it is.
        document: Its document's id there.
        text: The passage; untrusted.
        context: Title of its document, which says what the sentences are about.
        score: Its rank's score over the best one's, in [0, 1].
        start: Where it begins in its document.
    """

    site: str
    document: str
    text: str
    context: str
    score: float
    start: int = 0


@dataclass(frozen=True, slots=True)
class Weighed:
    """A sentence that could be quoted: ``sources[source].text[start:end]``."""

    source: int
    start: int
    end: int
    site: str
    terms: frozenset[str]
    worth: float
    grounds: Grounds


def weighed(asked: Asked, sources: Sequence[Source], analyse: Analyse) -> Iterator[Weighed]:
    """All sentences of `sources` whose shape an answer can have."""
    read = [_Read.of(source, analyse, asked) for source in sources]
    documents: dict[tuple[str, str], frozenset[str]] = {}
    for source, one in zip(sources, read, strict=True):
        name = (source.site, source.document)
        documents[name] = documents.get(name, frozenset()) | one.everywhere
    weights = _weights(asked, [held for one in read for held in one.kin])
    for number, (source, one) in enumerate(zip(sources, read, strict=True)):
        around = documents[source.site, source.document]
        passage = _share(weights, dict.fromkeys(around, 1.0))
        ranked = (0.7 + 0.3 * source.score) * (0.55 + 0.45 * _specificity(asked, one))
        for at, place in enumerate(one.places):
            text = source.text[place.start : place.end]
            carried = _share(weights, one.credits(at, text, around, figure=asked.figure))
            early = 0.9 + 0.1 / (1 + source.start / 400 + at / 2)
            said = 0.7 * carried + 0.3 * _said(asked, one, at)
            worth = _fit(asked, text, one.kin[at]) * said * ranked * early
            if worth:
                span = (place.start, place.end)
                grounds = Grounds(passage, carried)
                yield Weighed(number, *span, source.site, one.terms[at], worth, grounds)


@dataclass(frozen=True, slots=True)
class _Read:
    """A passage, read for one question; `kin` are the telling words that stand in a sentence."""

    places: Sequence[Placed]
    terms: Sequence[frozenset[str]]
    kin: Sequence[frozenset[str]]
    headed: Sequence[frozenset[str]]
    title: frozenset[str]
    titled: frozenset[str]

    @classmethod
    def of(cls, source: Source, analyse: Analyse, asked: Asked) -> _Read:
        places = placed_sentences(source.text)
        title = frozenset(analyse(source.context))
        own = [frozenset(analyse(source.text[one.start : one.end])) for one in places]
        headings = [frozenset(analyse(one.heading)) for one in places]
        kin = families(asked.telling, frozenset[str]().union(title, *own, *headings), analyse)
        titled = _of_family(kin, title)
        return cls(
            places,
            own,
            [_of_family(kin, terms) for terms in own],
            [titled | _of_family(kin, terms) for terms in headings],
            title,
            titled,
        )

    @property
    def everywhere(self) -> frozenset[str]:
        return frozenset[str]().union(self.titled, *self.kin, *self.headed)

    def credits(
        self, at: int, text: str, around: frozenset[str], *, figure: bool
    ) -> Mapping[str, float]:
        """What telling words count for the sentence at `at`, by the nearest place they stand in."""
        loose = _LOOSE_FOR_A_FIGURE if figure else 1.0
        counted = dict.fromkeys(around, _AROUND * loose)
        place = self.places[at]
        for beside in (at + 1, at - 1):
            if 0 <= beside < len(self.places) and self.places[beside].section == place.section:
                before = beside < at and self.places[beside].unit == place.unit
                meant = before and shape.refers_back(text)
                credit = _MEANT if meant else _BESIDE * loose
                counted |= dict.fromkeys(self.kin[beside], credit)
        counted |= dict.fromkeys(self.headed[at], _HEADED)
        return counted | dict.fromkeys(self.kin[at], 1.0)


def _of_family(kin: Mapping[str, frozenset[str]], terms: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*(kin.get(term, frozenset()) for term in terms))


def _weights(asked: Asked, found: Sequence[frozenset[str]]) -> dict[str, float]:
    """How telling each word of the question is among the sentences at hand."""
    holding = Counter(term for held in found for term in held)
    weights = {}
    for term in sorted(asked.telling):
        weight = math.log1p((len(found) + 1) / (holding[term] + 1))
        weights[term] = weight * (_DEED if term in asked.deeds else 1.0)
    return weights


def _share(weights: Mapping[str, float], counted: Mapping[str, float]) -> float:
    total = sum(weights.values())
    found = sum(weight * counted.get(term, 0.0) for term, weight in weights.items())
    return found / total if total else 0.0


def _said(asked: Asked, one: _Read, at: int) -> float:
    """The share of the question that a sentence says itself, beyond what its title says for all."""
    beyond = asked.terms - one.title - one.titled
    return len(beyond & (one.terms[at] | one.kin[at])) / len(beyond) if beyond else 1.0


def _specificity(asked: Asked, one: _Read) -> float:
    """How much of the title the question names: a general question wants the general document.

    What a title says of the kind of document counts for neither; a year that was not asked for says
    that the document records one day, not what holds.
    """
    topic = one.title - asked.genre
    named = (len(topic & asked.terms) + 1) / (len(topic) + 1)
    dated = any(_YEAR.fullmatch(term) for term in topic - asked.terms)
    return named * (_DATED if dated and not asked.past else 1.0)


def _fit(asked: Asked, sentence: str, held: frozenset[str]) -> float:
    """How well the form of a sentence fits the question; 0 where it cannot be an answer."""
    fit = math.prod(1.0 if one.pattern.search(sentence) else one.without for one in asked.shapes)
    if asked.counts_nothing(sentence):
        return 0.0
    if asked.definition and not (held and re.search(r"^[^,;:]{0,60} (?:is|are|means?) ", sentence)):
        return 0.0
    if asked.action and not shape.INSTRUCTION.search(sentence):
        fit *= 0.75
    if asked.past != shape.narrates(sentence):
        fit *= 0.85 if asked.past else 0.6
    return fit
