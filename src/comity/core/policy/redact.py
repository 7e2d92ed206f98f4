"""Redaction: what is cut from a text before it leaves."""

from __future__ import annotations

import re
from typing import Final

_SENTENCE_END: Final = re.compile(
    r"[.!?\u2026](?:[\"'\u201d\u2019)\]]*)(?=\s)"
    # Scripts that put no space after a stop, or whose stop ends nothing but a sentence.
    r"|[\u3002\uff01\uff0e\uff1f\uff61\u061f\u06d4\u0964\u0965\u0589\u1362\u104b\u17d4\u0f0d]"
    r"[\"'\u201d\u2019)\]\u300d\u300f\uff09]*"
    r"|\n\s*\n"
)
MAX_SENTENCE: Final = 400
"""Characters after which a sentence ends, whatever stands there."""


def first_sentences(text: str, limit: int) -> str:
    """The first `limit` sentences of `text`, without what follows them.

    A sentence ends at a full stop, question or exclamation mark before white space, at the stop of
    another script (Chinese, Japanese, Hindi, Arabic, Urdu and others), at an empty line, or after
    `MAX_SENTENCE` characters. Abbreviations end one too early: less leaves, never more.
    """
    ends = (match.end() for match in _SENTENCE_END.finditer(text))
    start, following = 0, next(ends, len(text))
    for _ in range(limit):
        while following <= start < len(text):
            following = next(ends, len(text))
        start = min(following, start + MAX_SENTENCE)
    return text if start >= len(text) else text[:start].rstrip()
