"""Passages are untrusted: what is shown of them is text, and only text."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SPACE: Final = re.compile(r"\s+")
_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})
"""Control, format (bidirectional marks, zero widths, tags), private use, surrogate, unassigned."""
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters, marks and symbols that show nothing: fillers, joiners, variation selectors."""


def plain(text: str) -> str:
    """`text` on one line, without characters that a reader cannot see.

    Control characters could drive a terminal, bidirectional ones reorder what is read, and
    zero-width or tag characters carry instructions that nobody sees.
    """
    spaced = _SPACE.sub(" ", _UNSEEN.sub("", text))
    seen = "".join(char for char in spaced if unicodedata.category(char) not in _HIDDEN_CATEGORIES)
    return _SPACE.sub(" ", seen).strip()
