"""The gateway: one fusion, checked citations, abstention, and sites that are late."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.fakes.asking import OPEN, SECRET, AskedSite, document, gateway, question
from tests.fakes.gate_site import SetClock, UnsafeCountingRng

from comity.core.answer.extract import ExtractSettings, extract
from comity.core.answer.ground import Grounds, GroundSettings, support, supports
from comity.core.answer.sentence import sentences
from comity.core.answer.weigh import Source
from comity.core.retrieval.statistics import TermStatistics, pooled
from comity.core.retrieval.text import terms
from comity.errors import ConfigError, RefusedError, UnavailableError
from comity.events import Event, QuestionAnswered
from comity.ids import ExchangeId, SiteName
from comity.release import Released
from comity.services.ask import NOTHING_FOUND, AskSettings, Gateway, Given, Offer
from comity.services.search import Question

ASKED = "What should be done when the pump sounds an occlusion alarm?"
NORTH = "When the pump sounds its occlusion alarm, close the clamp first. Then look for kinks."
SOUTH = "If the pump sounds an occlusion alarm, call a nurse. The bed has wheels."


def two_sites(folder: Path) -> tuple[AskedSite, AskedSite]:
    north, south = (AskedSite(folder, SiteName(name)) for name in ("north", "south"))
    north.store.write([document("pump", NORTH), document("bed", "Lower the bed at night.")])
    south.store.write([document("card", SOUTH), document("board", "Closed.", SECRET)])
    return north, south


def test_an_answer_quotes_several_sites_and_says_what_stayed_closed(tmp_path: Path) -> None:
    asked = gateway([one.local() for one in two_sites(tmp_path)])
    answer = asked.ask(f"  {ASKED} ", asker="analyst")
    assert not answer.abstained
    assert {one.site for one in answer.citations} == {"north", "south"}
    assert answer.text.startswith(
        "When the pump sounds its occlusion alarm, close the clamp first. [1]"
    )
    first = answer.citations[0]
    assert NORTH[first.start : first.end] == first.quote
    assert [(one.site, one.collection) for one in answer.closed] == [
        ("north", SECRET),
        ("south", SECRET),
    ]
    assert 'north, pump (guides/pump): "When the pump' in repr(answer)
    assert "south keeps minutes closed: Minutes are for the board." in repr(answer)
    assert answer.question == ASKED
    record = answer.record()
    assert record["abstained"] is False
    assert record["sites_asked"] == 2


def test_the_same_question_gets_the_same_answer(tmp_path: Path) -> None:
    sites = [one.local() for one in two_sites(tmp_path)]
    first, second = (gateway(order) for order in (sites, sites[::-1]))
    answers = [first.ask(ASKED, asker="analyst")]
    second._rng = first._rng
    answers.append(second.ask(ASKED, asker="analyst"))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "asked", ["May pets visit the ward?", "the of and", "Which pump feeds horses on Sundays?"]
)
def test_without_support_it_says_so(tmp_path: Path, asked: str) -> None:
    answer = gateway([one.local() for one in two_sites(tmp_path)]).ask(asked, asker="analyst")
    assert answer.text == NOTHING_FOUND
    assert answer.abstained
    assert answer.citations == ()
    assert answer.support == 0


def test_only_winners_texts_leave_and_the_question_is_on_record(tmp_path: Path) -> None:
    north, south = two_sites(tmp_path)
    asked = gateway([north.local(), south.local()], AskSettings(max_passages=1))
    asked.ask(ASKED, asker="analyst")
    records = [record.body for record in south.journal.rows]
    assert not any(b'"fetch"' in body for body in records)
    assert any(b'"fetch"' in record.body for record in north.journal.rows)
    assert any(ASKED.encode() in note for note in north.journal.notes.values())


@pytest.mark.parametrize("text", ["", "  ", "x" * 1_001])
def test_an_empty_or_endless_question_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RefusedError, match=r"a question of \d+ characters"):
        gateway([AskedSite(tmp_path).local()]).ask(text, asker="analyst")


def test_a_gateway_needs_sites_of_different_names(tmp_path: Path) -> None:
    site = AskedSite(tmp_path).local()
    for sites in ([], [site, site]):
        with pytest.raises(ConfigError, match="each of its own name"):
            gateway(sites)


class SlowSite:
    """Waits in one of the exchanges until it is let go."""

    name = SiteName("slow")

    def __init__(self) -> None:
        self.go = threading.Event()

    def candidates(self, question: Question) -> Offer:
        del question
        self.go.wait(30)
        return Offer((), ())

    def fetch(self, exchange: ExchangeId, asker: str, opaque: Sequence[str]) -> Given:
        raise NotImplementedError


class FailingSite(SlowSite):
    """Cannot be reached, or breaks."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def candidates(self, question: Question) -> Offer:
        del question
        raise self._error


def test_late_and_failed_sites_are_named_and_the_others_answer(tmp_path: Path) -> None:
    north, _ = two_sites(tmp_path)
    slow = SlowSite()
    asked = gateway([north.local(), slow], AskSettings(timeout_s=0.3))
    answer = asked.ask(ASKED, asker="analyst")
    asked.close()
    slow.go.set()
    assert not answer.abstained
    assert repr(answer).endswith("slow is silent: no reply within 0.3 s")
    failing = FailingSite(UnavailableError("the path /secret is gone"))
    other, _ = two_sites(tmp_path / "again")
    answer = gateway([other.local(), failing]).ask(ASKED, asker="analyst")
    assert [one.reason for one in answer.silent] == ["temporarily unavailable"]
    assert answer.record()["silent"] == [{"site": "slow", "reason": "temporarily unavailable"}]


def test_a_fault_of_ours_is_not_passed_off_as_a_silent_site() -> None:
    with pytest.raises(ZeroDivisionError):
        gateway([FailingSite(ZeroDivisionError())]).ask(ASKED, asker="analyst")


def test_an_event_tells_figures_of_a_question(tmp_path: Path) -> None:
    events: list[Event] = []
    ports = (SetClock(), UnsafeCountingRng())
    sites = [one.local() for one in two_sites(tmp_path)]
    Gateway(sites, ports, events=events.append).ask(ASKED, asker="analyst")
    told = events[0]
    assert isinstance(told, QuestionAnswered)
    assert (told.sites_asked, told.sites_silent, told.candidates) == (2, 0, 2)


def test_shared_statistics_make_sites_score_as_one_index(tmp_path: Path) -> None:
    sites = two_sites(tmp_path)
    inside = frozenset({OPEN})

    def shared(question: Sequence[str]) -> TermStatistics:
        return pooled(one.store.statistics(question, inside) for one in sites)

    whole = AskedSite(tmp_path, SiteName("whole"))
    whole.store.write(
        [
            document("pump", NORTH),
            document("bed", "Lower the bed at night."),
            document("card", SOUTH),
        ]
    )
    apart = []
    for site in sites:
        under = Question(ExchangeId("q"), "analyst", ASKED, 50, shared(terms(ASKED)))
        outcome = site.search.candidates(under)[OPEN]
        assert isinstance(outcome, Released)
        apart += [one.score for one in outcome.value]
    together = whole.search.candidates(question(ASKED))[OPEN]
    assert isinstance(together, Released)
    assert sorted(apart) == sorted(one.score for one in together.value)
    ports = (SetClock(), UnsafeCountingRng())
    fused = Gateway([one.local() for one in sites], ports, statistics=shared)
    assert not fused.ask(ASKED, asker="analyst").abstained


def test_sentences_that_say_the_same_share_one_place_and_both_marks() -> None:
    text = "Close the clamp at an occlusion alarm."
    sources = [
        Source("a", "1", text, "Card", 1.0),
        Source("b", "2", f"{text} Then wait.", "Card", 0.9),
    ]
    picks = extract("clamp occlusion alarm", sources, terms, ExtractSettings(), GroundSettings())
    assert [[quote.source for quote in pick.quotes] for pick in picks] == [[0, 1]]


def test_a_question_for_a_figure_prefers_the_sentence_with_one() -> None:
    text = "Antibiotics matter in sepsis. Antibiotics in sepsis start within one hour."
    sources = [Source("a", "1", text, "Sepsis", 1.0)]
    picks = extract(
        "How soon are antibiotics given in sepsis?",
        sources,
        terms,
        ExtractSettings(max_sentences=1),
        GroundSettings(),
    )
    assert text[picks[0].quotes[0].start :].startswith("Antibiotics in sepsis start")


def test_nothing_asked_gives_nothing() -> None:
    sources = [Source("a", "1", "Some text.", "", 1.0)]
    assert extract("the", sources, terms, ExtractSettings(), GroundSettings()) == []


def test_support_needs_the_passage_and_the_sentence() -> None:
    settings = GroundSettings(0.6, 0.3)
    assert supports(Grounds(0.6, 0.3), settings)
    assert not supports(Grounds(0.59, 1.0), settings)
    assert not supports(Grounds(1.0, 0.29), settings)
    assert support([Grounds(0.5, 0.5), Grounds(1.0, 0.25)]) == 0.5
    assert support([]) == 0
    with pytest.raises(ConfigError, match=r"min_passage_coverage is 1\.5"):
        GroundSettings(min_passage_coverage=1.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two!\nThree goes\non?", ["One.", "Two!", "Three goes\non?"]),
        ("# Head\nBody.\n- item one\n- item two\n\nEnd", ["Body.", "item one", "item two", "End"]),
        (
            "Give approx. Five drops e.g. Water. Done.",
            ["Give approx. Five drops e.g. Water.", "Done."],
        ),
        ("1. First step. 2) second", ["First step.", "2) second"]),
        ("| a | b |\n# Head", ["a | b |"]),
        ("", []),
        ("- \n- x", ["x"]),
    ],
)
def test_sentences_are_found_as_a_reader_would(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected
