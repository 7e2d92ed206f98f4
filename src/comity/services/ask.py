"""The gateway's side: ask all sites, fuse once, fetch the winners, answer and cite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

from comity.core.answer.cite import Citation, check_quoted
from comity.core.answer.extract import ExtractSettings, Pick, extract
from comity.core.answer.ground import GroundSettings, support
from comity.core.answer.plain import plain
from comity.core.answer.weigh import Source
from comity.core.retrieval.fuse import Candidate, fuse
from comity.core.retrieval.statistics import TermStatistics
from comity.core.retrieval.text import terms
from comity.errors import ComityError, ConfigError, Malformed, RefusedError
from comity.events import EventSink, QuestionAnswered, ignore
from comity.ids import CollectionName, ExchangeId, SiteName
from comity.ports import Clock, Passage, Rng
from comity.release import Released, Withheld
from comity.services.answer import Answer, Closed, Silent
from comity.services.search import Question, SiteSearch

NOTHING_FOUND: Final = "No document that is open to you answers this."

ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True, slots=True)
class Offer:
    """A site's reply to the first exchange."""

    candidates: tuple[Candidate, ...]
    closed: tuple[Closed, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A site's reply to the second exchange."""

    passages: tuple[Passage, ...]
    closed: tuple[Closed, ...]


class AskedSite(Protocol):
    """A site as the gateway reaches it."""

    @property
    def name(self) -> SiteName:
        """The site's name."""

    def candidates(self, question: Question) -> Offer:
        """The first exchange."""

    def fetch(self, exchange: ExchangeId, asker: str, opaque: Sequence[str]) -> Given:
        """The second exchange."""


class LocalSite:
    """A site in this process; what its gate released is opened here, at the gateway."""

    def __init__(self, name: SiteName, search: SiteSearch) -> None:
        self._name = name
        self._search = search

    @property
    def name(self) -> SiteName:
        """The site's name."""
        return self._name

    def candidates(self, question: Question) -> Offer:
        """The first exchange."""
        return Offer(*self._opened(self._search.candidates(question)))

    def fetch(self, exchange: ExchangeId, asker: str, opaque: Sequence[str]) -> Given:
        """The second exchange."""
        return Given(*self._opened(self._search.fetch(exchange, asker, opaque)))

    def _opened(
        self, reply: Mapping[CollectionName, Released[tuple[Any, ...]] | Withheld]
    ) -> tuple[tuple[Any, ...], tuple[Closed, ...]]:
        given: list[Any] = []
        closed: list[Closed] = []
        for collection, outcome in reply.items():
            if isinstance(outcome, Withheld):
                closed.append(Closed(self._name, collection, outcome.policy, outcome.reason))
            else:
                given += outcome.value
        return tuple(given), tuple(closed)


@dataclass(frozen=True, slots=True)
class AskSettings:
    """Bounds on a question, and when it is answered.

    Attributes:
        timeout_s: Seconds for each exchange until a site's reply counts as missing.
        max_question_characters: The longest question.
        max_candidates: Candidates that one site may offer.
        max_passages: Passages that are fetched, over all sites.
        max_passage_characters: The longest passage that a site may give.
        max_threads: Exchanges under way at once.
        extract: Bounds on the answer.
        ground: When to answer.
    """

    timeout_s: float = 5.0
    max_question_characters: int = 1_000
    max_candidates: int = 50
    max_passages: int = 6
    max_passage_characters: int = 20_000
    max_threads: int = 32
    extract: ExtractSettings = field(default_factory=ExtractSettings)
    ground: GroundSettings = field(default_factory=GroundSettings)


StatisticsSource = Callable[[Sequence[str]], TermStatistics | None]
"""The federation's shared statistics for the terms of a question; None where it has none."""


def own_statistics(question: Sequence[str]) -> None:
    """Each site ranks by its own statistics, and raw scores are merged."""
    del question


class Gateway:
    """Answers questions over the documents of several sites.

    Args:
        sites: The sites; names are unique.
        clock: Measures.
        rng: Names exchanges.
        settings: Bounds.
        statistics: Shared term statistics, where there are any.
        events: Hears of answered questions.

    Raises:
        ConfigError: No site, or two of one name.
    """

    def __init__(
        self,
        sites: Sequence[AskedSite],
        ports: tuple[Clock, Rng],
        settings: AskSettings | None = None,
        statistics: StatisticsSource = own_statistics,
        events: EventSink = ignore,
    ) -> None:
        self._sites = {site.name: site for site in sites}
        if not sites or len(self._sites) != len(sites):
            raise ConfigError(
                "a gateway needs sites, each of its own name", hint="name each site once"
            )
        self._clock, self._rng = ports
        self._settings = settings or AskSettings()
        self._statistics = statistics
        self._events = events
        self._threads = ThreadPoolExecutor(
            self._settings.max_threads, thread_name_prefix="comity-ask"
        )

    def ask(self, question: str, *, asker: str) -> Answer:
        """Asks all sites and answers from what they release to `asker`.

        Raises:
            RefusedError: The question is empty or too long.
            Verification: A citation does not stand in its passage; nothing is answered.
        """
        began = self._clock.monotonic_s()
        text = question.strip()
        if not text or len(text) > self._settings.max_question_characters:
            raise RefusedError(
                f"a question of {len(text)} characters",
                hint=f"ask in 1 to {self._settings.max_question_characters} characters",
            )
        exchange = ExchangeId(self._rng.token(16).hex())
        asked = Question(
            exchange, asker, text, self._settings.max_candidates, self._statistics(terms(text))
        )
        offers, silent = self._scatter(
            {name: _offer_of(site, asked) for name, site in self._sites.items()}
        )
        ranked = fuse(
            {site: offer.candidates for site, offer in offers.items()}, self._settings.max_passages
        )
        given, late = self._fetch(asked, ranked)
        passages = _in_rank_order(ranked, given)
        picks = self._extract(text, passages)
        closed = [note for offer in offers.values() for note in offer.closed]
        closed += [note for reply in given.values() for note in reply.closed]
        answer = self._answer(text, passages, picks, (closed, [*silent, *late]))
        self._events(
            QuestionAnswered(
                exchange=exchange,
                sites_asked=len(self._sites),
                sites_silent=len(answer.silent),
                candidates=sum(len(offer.candidates) for offer in offers.values()),
                citations=len(answer.citations),
                abstained=answer.abstained,
                seconds=self._clock.monotonic_s() - began,
            )
        )
        return answer

    def close(self) -> None:
        """Takes no more questions; does not wait for sites that are late."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fetch(
        self, question: Question, ranked: Sequence[tuple[SiteName, Candidate]]
    ) -> tuple[dict[SiteName, Given], list[Silent]]:
        wanted: dict[SiteName, list[Candidate]] = {}
        for site, candidate in ranked:
            wanted.setdefault(site, []).append(candidate)
        limit = self._settings.max_passage_characters
        return self._scatter(
            {
                site: _given_by(self._sites[site], question, candidates, limit)
                for site, candidates in wanted.items()
            }
        )

    def _extract(self, question: str, passages: Sequence[_Ranked]) -> list[Pick]:
        top = max((one.candidate.score for one in passages), default=0.0) or 1.0
        sources = [
            Source(
                site=one.site,
                document=one.passage.document,
                text=one.passage.text,
                context=one.passage.title,
                score=one.candidate.score / top,
                start=one.passage.start,
            )
            for one in passages
        ]
        return extract(question, sources, terms, self._settings.extract, self._settings.ground)

    def _answer(
        self,
        question: str,
        passages: Sequence[_Ranked],
        picks: Sequence[Pick],
        notes: tuple[list[Closed], list[Silent]],
    ) -> Answer:
        citations: list[Citation] = []
        said: list[str] = []
        for pick in picks:
            marks = ""
            for quote in pick.quotes:
                one = passages[quote.source]
                citation = _citation(len(citations) + 1, one, quote.start, quote.end)
                check_quoted(citation, one.passage.text, one.passage.start)
                citations.append(citation)
                marks += f"[{citation.number}]"
            said.append(f"{plain(citations[-len(pick.quotes)].quote)} {marks}")
        closed, silent = notes
        return Answer(
            question=question,
            text=" ".join(said) or NOTHING_FOUND,
            citations=tuple(citations),
            closed=tuple(sorted(set(closed), key=lambda one: (one.site, one.collection))),
            silent=tuple(sorted(silent, key=lambda one: one.site)),
            abstained=not said,
            support=support(pick.grounds for pick in picks),
            sites_asked=len(self._sites),
        )

    def _scatter(
        self, calls: Mapping[SiteName, Callable[[], ReplyT]]
    ) -> tuple[dict[SiteName, ReplyT], list[Silent]]:
        """Calls all sites at once; whoever is late or fails is named, and the others count."""
        futures = {site: self._threads.submit(call) for site, call in calls.items()}
        wait(futures.values(), timeout=self._settings.timeout_s)
        replies: dict[SiteName, ReplyT] = {}
        silent: list[Silent] = []
        for site, future in futures.items():
            if not future.done():
                future.cancel()
                silent.append(Silent(site, f"no reply within {self._settings.timeout_s:g} s"))
                continue
            error = future.exception()
            if isinstance(error, ComityError):
                silent.append(Silent(site, error.public))
            else:
                replies[site] = future.result()
        return replies, silent


@dataclass(frozen=True, slots=True)
class _Ranked:
    site: SiteName
    candidate: Candidate
    passage: Passage


def _offer_of(site: AskedSite, question: Question) -> Callable[[], Offer]:
    def call() -> Offer:
        offer = site.candidates(question)
        found = offer.candidates
        if len(found) > question.limit or len({one.opaque for one in found}) != len(found):
            raise Malformed(f"{site.name} offers too many candidates, or one twice")
        for one in found:
            if not math.isfinite(one.score):
                raise Malformed(f"{site.name} offers a score that is no number")
        # The site's own order breaks ties, whichever collections it went through.
        ordered = sorted(found, key=lambda one: -one.score)
        return replace(offer, candidates=tuple(ordered))

    return call


def _given_by(
    site: AskedSite, question: Question, wanted: Sequence[Candidate], max_characters: int
) -> Callable[[], Given]:
    asked = {candidate.opaque: candidate.collection for candidate in wanted}

    def call() -> Given:
        given = site.fetch(question.exchange, question.asker, list(asked))
        for one in given.passages:
            if asked.get(one.passage) != one.collection:
                raise Malformed(f"{site.name} gives a passage that was not asked for")
            if len(one.text) != one.end - one.start or len(one.text) > max_characters:
                raise Malformed(f"{site.name} gives a passage that does not fit its offsets")
        return given

    return call


def _in_rank_order(
    ranked: Sequence[tuple[SiteName, Candidate]], given: Mapping[SiteName, Given]
) -> list[_Ranked]:
    passages = {(site, one.passage): one for site, reply in given.items() for one in reply.passages}
    return [
        _Ranked(site, candidate, passages[key])
        for site, candidate in ranked
        if (key := (site, candidate.opaque)) in passages
    ]


def _citation(number: int, one: _Ranked, start: int, end: int) -> Citation:
    passage = one.passage
    return Citation(
        number=number,
        site=one.site,
        collection=passage.collection,
        document=passage.document,
        title=plain(passage.title),
        start=passage.start + start,
        end=passage.start + end,
        quote=passage.text[start:end],
    )
