"""What a closed collection holds changes nothing of what an open one answers, to the last bit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.asking import OPEN, SECRET, SHORT, document

from comity.adapters.store.passages import StoreSettings, TantivyPassageStore
from comity.ports import Document, Hit

WORDS = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta"]), min_size=1, max_size=6)
TEXTS = st.lists(WORDS.map(" ".join), max_size=12)
OPENED = frozenset({OPEN, SHORT})


def asked(batches: Sequence[Sequence[Document]]) -> Sequence[Hit]:
    with tempfile.TemporaryDirectory() as folder:
        store = TantivyPassageStore(Path(folder) / "store", StoreSettings(depth=3))
        for batch in batches:
            store.write(batch)
        hits = store.search(["alpha", "beta"], OPENED, 3)
        store.close()
        return hits


@settings(max_examples=12, deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_hits_are_the_same_whatever_closed_collections_hold(
    first: list[str], second: list[str], closed: list[str]
) -> None:
    opened = [document(f"a{at}", text) for at, text in enumerate(first)]
    short = [document(f"b{at}", text, SHORT) for at, text in enumerate(second)]
    secret = [document(f"c{at}", text, SECRET) for at, text in enumerate(closed)]
    alone = asked([opened, short])
    assert asked([secret, opened, short]) == alone
    assert asked([[*secret, *opened], secret[:2], short, secret]) == alone


def test_a_flood_of_one_word_behind_closed_doors_does_not_choose_the_candidates() -> None:
    opened = [document(f"a{at}", "alpha filler") for at in range(200)]
    opened += [document(f"b{at}", "beta filler") for at in range(190)]
    answers = [
        asked([opened, [document(f"c{at}", f"{word} word", SECRET) for at in range(60)]])
        for word in ("beta", "gamma")
    ]
    assert answers[0] == answers[1]
    assert all(hit.score == max(one.score for one in answers[0]) for hit in answers[0])
