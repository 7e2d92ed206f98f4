"""Text to terms: one analysis for indexing, searching, rescoring and answering.

Every site and the gateway count the same terms, so that a score can be recomputed anywhere.
Stemming is Snowball's (Porter 2), by the library of that name.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from snowballstemmer.english_stemmer import EnglishStemmer

ANALYSIS_VERSION: Final = 1
"""Raised whenever `terms` changes: indexes that were built by another version are rebuilt."""

MAX_TERM_CHARS: Final = 64
"""Longer words carry no meaning for search (keys, encoded files) and are left out."""

_WORD: Final = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+")
_STOP_WORDS: Final = frozenset(
    """
    a about above after again against all also am an and any are as at be because been before
    being below between both but by can could did do does doing done down during each either else
    ever few for from further get give gives given go had has have having he her here hers him his
    how i if in into is it its itself just know let like many may me might more most much must my
    need needs no nor not now of off on once one only or other our ours out over own per please
    s same say says shall she should so some soon such t take taken than that the their theirs them
    then there these they this those through to too under until up upon us use used very was we
    were what when where whether which while who whom whose why will with within without would
    you your yours tell long often happen happens
    """.split()  # noqa: SIM905 - a paragraph of words reads better than a page of literals
)


def normalise(text: str) -> str:
    """`text` in one case, without accents or compatibility forms (NFKD, casefold)."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in folded if not unicodedata.combining(char))


def terms(text: str) -> list[str]:
    """The terms of `text`, in order and with repetitions; stop words are left out.

    Guarantees: each term is 1 to `MAX_TERM_CHARS` characters without white space, and depends on
    nothing but its own word.
    """
    return [
        _stem(word)
        for word in _WORD.findall(normalise(text))
        if word not in _STOP_WORDS and len(word) <= MAX_TERM_CHARS
    ]


@lru_cache(maxsize=2**17)
def _stem(word: str) -> str:
    # A stemmer object keeps state while it works, so threads cannot share one.
    stem: str = EnglishStemmer().stemWord(word)
    return stem or word
