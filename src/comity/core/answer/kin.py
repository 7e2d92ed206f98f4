"""Words of one family: *visit* and *visitor*, *treat* and *treatment*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

_ENDINGS: Final = frozenset(
    ["", "e", "i", "y", "or", "er", "ment", "ion", "ation", "al", "ic", "iti", "ness", "ist"]
    + ["ian", "ant", "ent", "anc", "enc", "ren", "s", "ling"]
)
_STEM_CHARS: Final = 5


def families(asked: Iterable[str], vocabulary: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """For each word of a vocabulary that stands for asked ones: which."""
    wanted = sorted(asked)
    found = {word: frozenset(one for one in wanted if _akin(one, word)) for word in vocabulary}
    return {word: kin for word, kin in found.items() if kin}


def _akin(one: str, other: str) -> bool:
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    return len(short) >= _STEM_CHARS and long.startswith(short) and long[len(short) :] in _ENDINGS
