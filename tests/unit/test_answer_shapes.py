"""What a question asks for, what a sentence has the shape of, and which words stand for which."""

from __future__ import annotations

import re
import time

import pytest

from comity.core.answer import shape
from comity.core.answer.extract import ExtractSettings, extract
from comity.core.answer.ground import GroundSettings
from comity.core.answer.kin import families
from comity.core.answer.question import read_question
from comity.core.answer.sentence import placed_sentences, sentences
from comity.core.answer.weigh import Source
from comity.core.retrieval.text import terms


def said(question: str, *texts: str, title: str = "", most: int = 1) -> list[str]:
    """The sentences that answer a question over one document a text."""
    sources = [Source("a", str(at), text, title, 1.0) for at, text in enumerate(texts)]
    settings = ExtractSettings(max_sentences=most)
    picks = extract(question, sources, terms, settings, GroundSettings())
    quotes = [pick.quotes[0] for pick in picks]
    return [texts[one.source][one.start : one.end] for one in quotes]


@pytest.mark.parametrize(
    ("question", "pattern"),
    [
        ("How often is it oiled?", shape.FREQUENCY),
        ("How soon is it oiled?", shape.DURATION),
        ("How many hours does it last?", shape.DURATION),
        ("What does the card cost?", shape.MONEY),
        ("What is the dose of aspirin?", shape.AMOUNT),
        ("Which oil temperature is right?", shape.TEMPERATURE),
        ("At what pressure does it stop?", shape.PRESSURE),
        ("How many wheels has it?", shape.NUMBER),
        ("What is the speed limit?", shape.NUMBER),
        ("How is gout treated?", shape.DOSE),
        ("Who oils it?", shape.ROLE),
        ("Why is it oiled?", shape.REASON),
        ("When is it oiled?", shape.MOMENT),
        ("May I oil it?", shape.RULING),
    ],
)
def test_a_question_says_what_shape_its_answer_has(question: str, pattern: re.Pattern[str]) -> None:
    assert [one.pattern for one in read_question(question, terms).shapes] == [pattern]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (shape.FREQUENCY, "Oil it every week.", "Oil it with care."),
        (shape.FREQUENCY, "Change it after 4,000 operating hours.", "Change it after dinner."),
        (shape.DURATION, "It takes five full days.", "It takes long."),
        (shape.DOSE, "Aspirin 300 mg at once.", "Call at 500 mL."),
        (shape.TEMPERATURE, "Warm it to 35 °C.", "Warm it to room temperature."),
        (shape.PRESSURE, "Set 10 to 16 kPa.", "Set a low pressure."),
        (shape.INSTRUCTION, "When it beeps, close the clamp.", "The clamp is red."),
        (shape.INSTRUCTION, "Never press twice.", "It pressed twice."),
        (shape.ROLE, "The foreman locks it.", "It is locked."),
    ],
)
def test_a_sentence_has_a_shape_or_has_not(pattern: re.Pattern[str], yes: str, no: str) -> None:
    assert pattern.search(yes)
    assert not pattern.search(no)


def test_what_happened_once_is_told_from_what_holds() -> None:
    assert shape.narrates("A patient came with a cough and went home.")
    assert not shape.narrates("A patient with a cough is seen at once.")
    assert not shape.narrates("Since it fell, lower the bed and lock it.")


def test_words_that_ask_do_not_count_unless_nothing_else_was_said() -> None:
    assert read_question("How is delirium treated?", terms).telling == {"delirium"}
    assert read_question("How should it be treated?", terms).telling == {"treat"}


def test_forms_families_and_near_synonyms_stand_for_each_other() -> None:
    kin = families(
        {"visit", "check", "bring"}, terms("visitors inspected brought visitation x"), terms
    )
    assert kin == {
        "visitor": {"visit"},
        "inspect": {"check"},
        "brought": {"bring"},
        "visit": {"visit"},
    }


def test_a_title_counts_for_every_sentence_and_is_never_cited() -> None:
    text = "# Gout\n\nGive colchicine 0.5 mg twice a day. Rest the joint."
    found = said("How is gout treated?", text, title="Gout", most=3)
    assert found == ["Give colchicine 0.5 mg twice a day.", "Rest the joint."]


def test_headings_of_plain_text_are_no_sentences() -> None:
    text = "GOUT: IN SHORT\n\nRest the joint.\n\nAt home\n\nDrink water\nand tea.\n\nEnd"
    placed = placed_sentences(text)
    assert [text[one.start : one.end] for one in placed] == [
        "Rest the joint.",
        "Drink water\nand tea.",
        "End",
    ]
    assert [one.heading for one in placed] == ["GOUT: IN SHORT", "At home", "At home"]
    assert sentences("x" * 91 + "\n\nBody.")[0] == (0, 91)


def test_a_figure_must_stand_with_what_it_is_of() -> None:
    text = "Blood leaves the fridge late. A rise of temperature of 2 °C is bad."
    assert said("What temperature must the fridge have?", text, title="Blood") == []
    assert said("What temperature must the fridge have?", "Keep the fridge at 4 °C.") == [
        "Keep the fridge at 4 °C."
    ]


def test_how_many_wants_the_number_of_the_thing() -> None:
    asked = "How many turbines are there?"
    assert said(asked, "Turbine 7 stands still.") == []
    assert said(asked, "The park has 12 large turbines.") == ["The park has 12 large turbines."]
    assert said("How many visitors come to a bed?", "Two at one bed.", title="Visitors") == [
        "Two at one bed."
    ]


def test_what_something_is_wants_a_sentence_that_says_so() -> None:
    assert said("What is gout?", "Treat gout with colchicine.") == []
    assert said("What is gout?", "Gout is a disease of joints.") == ["Gout is a disease of joints."]


def test_a_sentence_that_refers_back_is_about_the_one_before() -> None:
    text = "The lamp of the scanner hums. It is replaced after 3,000 hours. Doors stay shut."
    assert said("When is the lamp of the scanner replaced?", text) == [
        "It is replaced after 3,000 hours."
    ]


def test_the_general_document_comes_before_the_special_and_the_dated_one() -> None:
    text = "Antibiotics in sepsis start within {} hours."
    sources = [
        Source("a", "1", text.format("six"), "Sepsis in pregnancy and after birth", 1.0),
        Source("b", "2", "The board wants antibiotics in sepsis in 5 hours.", "Sepsis 2025", 1.0),
        Source("c", "3", text.format("two"), "Sepsis in adults", 1.0),
    ]
    asked = "How soon are antibiotics given in sepsis?"
    picks = extract(asked, sources, terms, ExtractSettings(near_equal=1.0), GroundSettings())
    assert [pick.quotes[0].source for pick in picks] == [2, 0, 1]


def test_what_happened_is_answered_by_what_is_told() -> None:
    text = "Cylinders are full. The cylinder was empty on the way."
    assert said("What happened with the cylinder?", text) == ["The cylinder was empty on the way."]


@pytest.mark.parametrize("piece", ["1,", "1-", "a-", "x", "and ", "**", "not ", "it ", "one "])
def test_a_hostile_passage_costs_no_time(piece: str) -> None:
    text = "Gout " + piece * (20_000 // len(piece))
    began = time.monotonic()
    for asked in ("How is gout treated?", "How many gouts are there?", "How often is gout seen?"):
        said(asked, text, title="Gout")
    assert time.monotonic() - began < 3
