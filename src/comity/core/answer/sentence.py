"""Sentences as exact spans of a text, under their headings; list markers belong to none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
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
_MAX_HEADING_CHARS: Final = 90
_ENDS_LIKE_A_SENTENCE: Final = re.compile("[.!?;,][\"'\u201d\u2019)\\]*]*$")


class _Kind(Enum):
    TEXT = 0
    ITEM = 1
    HEADING = 2


@dataclass(frozen=True, slots=True)
class _Unit:
    """A stretch that no sentence crosses: a paragraph, a list item, a table row, a heading."""

    start: int
    end: int
    kind: _Kind


@dataclass(frozen=True, slots=True)
class Placed:
    """A sentence and where it stands.

    Attributes:
        start: Its first character.
        end: One past its last.
        unit: Number of its paragraph, list item or table row.
        section: Number of the section, counted by headings.
        heading: What stands over it; empty where nothing does.
    """

    start: int
    end: int
    unit: int
    section: int
    heading: str


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence of `text`, in order.

    Guarantees: spans do not overlap and neither begin nor end with white space. A sentence may run
    over a line break inside a paragraph; list items and table rows stand alone; headings are none.
    A heading is a line with Markdown's marks, a line in capitals, or a short line without a full
    stop that stands alone above other text.
    """
    return [(one.start, one.end) for one in placed_sentences(text)]


def placed_sentences(text: str) -> list[Placed]:
    """The same sentences, each with its paragraph, its section and the heading over it."""
    found: list[Placed] = []
    heading, section = "", 0
    units = list(_units(text))
    for number, unit in enumerate(units):
        if _is_heading(text, unit, last=number == len(units) - 1):
            heading, section = text[unit.start : unit.end].strip(), section + 1
            continue
        found += [
            Placed(start, end, number, section, heading)
            for start, end in _split(text, unit.start, unit.end)
            if start < end
        ]
    return found


def _is_heading(text: str, unit: _Unit, *, last: bool) -> bool:
    if unit.kind is not _Kind.TEXT:
        return unit.kind is _Kind.HEADING
    line = text[unit.start : unit.end].strip()
    if "\n" in line or len(line) > _MAX_HEADING_CHARS:
        return False
    in_capitals = line.isupper() and " " in line
    return in_capitals or not (last or _ENDS_LIKE_A_SENTENCE.search(line))


def _units(text: str) -> Iterator[_Unit]:
    start: int | None = None
    kind = _Kind.TEXT
    position = 0
    for line in text.splitlines(keepends=True):
        marker = _UNIT_START.match(line)
        heading = _HEADING.match(line)
        if marker or heading or not line.strip():
            if start is not None:
                yield _Unit(start, position, kind)
            start, kind = None, _Kind.TEXT
            if heading:
                yield _Unit(position + heading.end(), position + len(line), _Kind.HEADING)
            elif marker:
                start, kind = position + marker.end(), _Kind.ITEM
        elif start is None:
            start = position
        position += len(line)
    if start is not None:
        yield _Unit(start, position, kind)


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
