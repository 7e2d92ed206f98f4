"""Sentences as exact spans of a text; headings and list markers belong to none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_UNIT_START: Final = re.compile(r"[^\S\n]*(?:[-*+•]|\d{1,3}[.)])[^\S\n]+|[^\S\n]*\|")
_HEADING: Final = re.compile(r"[^\S\n]*#{1,6}[^\S\n]")
_END: Final = re.compile(
    "[.!?][\"'\u201d\u2019)\\]]*\\s+(?=[\"'\u201c\u2018(\\[]?[^\\W_a-z\u00e0-\u00ff])"
    "|[\u3002\uff01\uff1f\uff61\u0964\u0965\u061f\u06d4][\"'\u201d\u2019)\\]\u300d\u300f\uff09]*\\s*"
)
_ABBREVIATION: Final = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|e\.g|i\.e|etc|vs|cf|approx|max|min|no|nr|dr|mr|mrs|ms|prof|st|fig|sec|"
    r"vol|ed)\.$",
    re.IGNORECASE,
)


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence of `text`, in order.

    Guarantees: spans do not overlap and neither begin nor end with white space. A sentence may run
    over a line break inside a paragraph; list items and table rows stand alone; headings are none.
    """
    return [
        span
        for start, end in _units(text)
        for span in _split(text, start, end)
        if span[0] < span[1]
    ]


def _units(text: str) -> Iterator[tuple[int, int]]:
    """Stretches that no sentence crosses: paragraphs, list items, table rows."""
    start: int | None = None
    position = 0
    for line in text.splitlines(keepends=True):
        marker = _UNIT_START.match(line)
        heading = _HEADING.match(line)
        if marker or heading or not line.strip():
            if start is not None:
                yield start, position
            start = position + marker.end() if marker else None
        elif start is None:
            start = position
        position += len(line)
    if start is not None:
        yield start, position


def _split(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    for match in _END.finditer(text, start, end):
        if _ABBREVIATION.search(text, start, match.start() + 1):
            continue
        yield _stripped(text, start, match.end())
        start = match.end()
    yield _stripped(text, start, end)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())
