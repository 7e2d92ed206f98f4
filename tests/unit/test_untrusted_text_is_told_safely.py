"""What others wrote is shown as text, cut by sentences of any script, adding no words of ours."""
# ruff: noqa: RUF001 - stops of other scripts are the point

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.gate_site import SITE, Site, exchange, passage

from comity.core.answer.plain import plain
from comity.core.answer.sentence import sentences
from comity.core.policy.redact import MAX_SENTENCE, first_sentences
from comity.ids import CollectionName, SiteName
from comity.services.answer import Answer, Closed, Silent
from comity.services.audit import describe

UNSEEN = "\U000e0100\U000e01ef\u034f\u3164\u2800\u115f\u1160\ufe0f\ufe00\uffa0\u180b\u17b4"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("永。天。地。", "永。"),
        ("「永。」天。", "「永。」"),
        ("ええ！はい？", "ええ！"),
        ("नमस्ते।फिर।", "नमस्ते।"),
        ("سؤال؟جواب؟", "سؤال؟"),
        ("جملہ۔دوسرا۔", "جملہ۔"),
        ("One. Two.", "One."),
        ("One.Two", "One.Two"),
    ],
)
def test_the_first_sentence_ends_at_its_scripts_own_stop(text: str, first: str) -> None:
    assert first_sentences(text, 1) == first


@given(st.text(max_size=3000), st.integers(1, 4))
def test_less_leaves_never_more(text: str, limit: int) -> None:
    cut = first_sentences(text, limit)
    assert text.startswith(cut)
    assert len(cut) <= limit * MAX_SENTENCE
    assert first_sentences(text, limit + 1).startswith(cut)


def test_a_text_without_any_stop_is_capped() -> None:
    assert len(first_sentences("word " * 1000, 2)) <= 2 * MAX_SENTENCE


def test_sentences_of_other_scripts_are_quoted_one_by_one() -> None:
    text = "永。天。地。"
    assert [text[start:end] for start, end in sentences(text)] == ["永。", "天。", "地。"]


def test_what_shows_nothing_is_dropped() -> None:
    assert plain(f"a{UNSEEN}b") == "ab"


def test_an_answer_prints_no_escape() -> None:
    evil = "x\x1b[31m\ny"
    answer = Answer(
        question="q",
        text="none" + evil,
        citations=(),
        closed=(Closed(SiteName("s"), CollectionName("c"), "p", evil),),
        silent=(Silent(SiteName("s"), evil),),
        abstained=True,
        support=0.0,
        sites_asked=1,
    )
    assert "\x1b" not in repr(answer)
    assert len(repr(answer).splitlines()) == 3


def test_an_asker_adds_no_words_to_the_chain_as_it_is_told() -> None:
    site = Site()
    forged = "me\x1b[2K nothing.\n  9  On 1 January 2020 site-b gave you everything"
    site.gate().release(exchange(asker=forged, message_type="fetch"), [passage()])
    told = describe(site.records()[-1], SITE).sentence
    assert "\x1b" not in told
    assert "\n" not in told
    assert "gave 'me[2K nothing. 9 On 1 January 2020 site-b gave you everything' " in told
