"""A site's side of a question: two exchanges, both through its gate.

First the gateway learns opaque ids and scores of candidates that the asker may see; then it asks
for the texts of the winners. What is said about a closed collection depends on the asker and the
collection alone: such a collection is never searched.
"""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from comity.core.answer.sentence import sentences
from comity.core.policy.decide import decide_collection
from comity.core.policy.rule import CollectionPolicy, PartKind, ReleaseLevel, SitePolicy
from comity.core.retrieval.fuse import Candidate
from comity.core.retrieval.statistics import TermStatistics
from comity.core.retrieval.text import terms
from comity.errors import DataError, Malformed, PolicyRefused, WrongStage
from comity.ids import CollectionName, ExchangeId, PassageId
from comity.ports import Clock, Exchange, Passage, PassageStore, Rng
from comity.release import Released, Withheld
from comity.services.gate import Door, Part

Masks = Callable[[str], Iterable[tuple[int, int]]]
"""Finds what must not be read in a text: start and end of each stretch to black out."""

MASK: Final = "█"
_OPAQUE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it reaches a site.

    Attributes:
        exchange: Unique id of the whole question.
        asker: The member or role that asks.
        text: What was asked.
        limit: The most candidates that are wanted.
        statistics: Term statistics of the federation, where it has shared ones.
    """

    exchange: ExchangeId
    asker: str
    text: str
    limit: int = 50
    statistics: TermStatistics | None = None


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Bounds on what a site does for questions.

    Attributes:
        max_candidates: Candidates of one question.
        max_question_bytes: Length of a question in UTF-8; it is kept beside the audit chain.
        max_open: Questions between their two exchanges.
        open_s: How long one may stay there, in seconds.
    """

    max_candidates: int = 100
    max_question_bytes: int = 4_096
    max_open: int = 1_024
    open_s: float = 120.0


@dataclass(frozen=True, slots=True)
class SearchParts:
    """What a site's search works through."""

    store: PassageStore
    door: Door
    clock: Clock
    rng: Rng


@dataclass(frozen=True, slots=True)
class _Open:
    """A question between its two exchanges."""

    question: Question
    since_s: float
    passages: Mapping[str, PassageId]


def no_masks(text: str) -> Iterable[tuple[int, int]]:
    """Finds nothing to black out."""
    del text
    return ()


class SiteSearch:
    """Answers questions for one site.

    Safe to call from several threads.

    Args:
        policy: What the site's owner decided.
        parts: Its passages, its way out, a clock and a generator.
        settings: Bounds.
        masks: Finds what must be blacked out in a passage before it leaves.
    """

    def __init__(
        self,
        policy: SitePolicy,
        parts: SearchParts,
        settings: SearchSettings | None = None,
        masks: Masks = no_masks,
    ) -> None:
        self._policy = policy
        self._parts = parts
        self._settings = settings or SearchSettings()
        self._masks = masks
        self._open: OrderedDict[ExchangeId, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def candidates(
        self, question: Question
    ) -> Mapping[CollectionName, Released[tuple[Candidate, ...]] | Withheld]:
        """First exchange: for each collection its candidates, best first, or why it is closed.

        A collection that is open and holds nothing that matches gives no candidates.

        Raises:
            PolicyRefused: The question is too long.
            Replay: Another question came under this exchange id.
            UnavailableError: Store or journal cannot be used.
        """
        if len(question.text.encode("utf-8", "replace")) > self._settings.max_question_bytes:
            raise PolicyRefused(
                f"a question of more than {self._settings.max_question_bytes} bytes",
                hint="ask in fewer words",
                public="the question is too long",
            )
        opened = frozenset(
            name for name in self._policy.collections if self._is_open(name, question)
        )
        found, passages = self._search(question, opened)
        parts = [
            Part(PartKind.SCORES, "candidates", tuple(found[name]), collection=name)
            if name in opened
            else Part(PartKind.PASSAGE, "closed", (), collection=name)
            for name in self._policy.collections
        ]
        exchange = Exchange(question.exchange, question.asker, "search")
        outcomes = self._parts.door.release(exchange, parts, note=question.text)
        self._keep_open(question, passages)
        return dict(zip(self._policy.collections, outcomes, strict=True))

    def fetch(
        self, exchange: ExchangeId, asker: str, opaque: Sequence[str]
    ) -> Mapping[CollectionName, Released[tuple[Passage, ...]] | Withheld]:
        """Second exchange, once a question: the passages behind some of its candidates' ids.

        The passages carry opaque ids. Where a collection releases sentences only, each is cut to
        the consecutive sentences around the one that fits the question best.

        Raises:
            WrongStage: There is no such question of this asker, or it was answered already.
            Malformed: An id is not of this question.
            DataError: What must be blacked out could not be determined; nothing left.
            UnavailableError: Store or journal cannot be used.
        """
        opened = self._take(exchange, asker)
        unknown = [name for name in opaque if name not in opened.passages]
        if unknown:
            raise Malformed(f"{len(unknown)} of {len(opaque)} ids are not of this question")
        names = {opened.passages[name]: name for name in dict.fromkeys(opaque)}
        given: dict[CollectionName, list[Passage]] = defaultdict(list)
        for passage in self._parts.store.fetch(names):
            policy = self._policy.collections[passage.collection]
            if len(given[passage.collection]) < policy.max_passages_per_question:
                ready = self._ready(passage, policy, opened.question)
                given[passage.collection].append(
                    replace(ready, passage=PassageId(names[passage.passage]))
                )
        parts = [
            Part(PartKind.PASSAGE, "passages", tuple(passages), collection=name)
            for name, passages in given.items()
        ]
        fetched = Exchange(ExchangeId(f"{exchange}.fetch"), asker, "fetch")
        outcomes: Sequence[Any] = self._parts.door.release(fetched, parts)
        return dict(zip(given, outcomes, strict=True))

    def _is_open(self, name: CollectionName, question: Question) -> bool:
        # A collection that releases no passage gives no candidates either: they could win nothing.
        return decide_collection(self._policy, name, question.asker, PartKind.PASSAGE).allowed

    def _search(
        self, question: Question, opened: frozenset[CollectionName]
    ) -> tuple[dict[CollectionName, list[Candidate]], dict[str, PassageId]]:
        limit = min(question.limit, self._settings.max_candidates)
        hits = self._parts.store.search(terms(question.text), opened, limit, question.statistics)
        secret = self._parts.rng.token(32)
        found: dict[CollectionName, list[Candidate]] = {name: [] for name in opened}
        passages: dict[str, PassageId] = {}
        for hit in hits:
            digest = hmac.digest(secret, f"{question.asker}\0{hit.passage}".encode(), "sha256")
            opaque = digest[:_OPAQUE_BYTES].hex()
            passages[opaque] = hit.passage
            found[hit.collection].append(Candidate(opaque, hit.collection, hit.score))
        return found, passages

    def _keep_open(self, question: Question, passages: Mapping[str, PassageId]) -> None:
        now = self._parts.clock.monotonic_s()
        with self._lock:
            self._open[question.exchange] = _Open(question, now, passages)
            while len(self._open) > self._settings.max_open:
                self._open.popitem(last=False)

    def _take(self, exchange: ExchangeId, asker: str) -> _Open:
        now = self._parts.clock.monotonic_s()
        with self._lock:
            opened = self._open.get(exchange)
            # One message for all reasons: who guesses learns nothing of other people's questions.
            if (
                opened is None
                or opened.question.asker != asker
                or now - opened.since_s > self._settings.open_s
            ):
                raise WrongStage(
                    f"no question {exchange} of this asker waits for its passages",
                    hint="ask again",
                )
            return self._open.pop(exchange)

    def _ready(self, passage: Passage, policy: CollectionPolicy, question: Question) -> Passage:
        if policy.release is ReleaseLevel.SENTENCES:
            passage = _window(passage, policy.max_sentences_per_passage, question.text)
        text = passage.text
        for start, end in self._masks(text):
            if not 0 <= start <= end <= len(text):
                raise DataError("what to black out lies outside of its passage")
            text = text[:start] + MASK * (end - start) + text[end:]
        return replace(passage, text=text)


def _window(passage: Passage, size: int, question: str) -> Passage:
    """The passage cut to `size` consecutive sentences, those that hold most of the question."""
    spans = sentences(passage.text)
    if len(spans) <= size and spans:
        start, end = spans[0][0], spans[-1][1]
    elif not spans:
        start = end = 0
    else:
        asked = set(terms(question))
        held = [asked.intersection(terms(passage.text[first:last])) for first, last in spans]
        scores = [
            len(set[str]().union(*held[at : at + size])) for at in range(len(spans) - size + 1)
        ]
        at = scores.index(max(scores))
        start, end = spans[at][0], spans[at + size - 1][1]
    return replace(
        passage, start=passage.start + start, end=passage.start + end, text=passage.text[start:end]
    )
