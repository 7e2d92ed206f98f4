"""Redaction: what is cut from a text before it leaves."""

from __future__ import annotations

import re
from typing import Final

_SENTENCE_END: Final = re.compile(r"[.!?\u2026](?:[\"'\u201d\u2019)\]]*)(?=\s)|\n\s*\n")


def first_sentences(text: str, limit: int) -> str:
    """The first `limit` sentences of `text`, without what follows them.

    A sentence ends at a full stop, question or exclamation mark before white space, or at an empty
    line. Abbreviations end one too early: less leaves, never more.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text if len(ends) < limit else text[: ends[limit - 1]].rstrip()
