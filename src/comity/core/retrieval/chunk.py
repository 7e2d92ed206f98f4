"""Passages: stretches of a document that are exact to the character.

A heading begins a new passage and stays with what it stands over; paragraphs are kept whole where
they fit; what is longer is cut at the end of a sentence, else at a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from comity.errors import ConfigError

_BLANK_LINES: Final = re.compile(r"\n(?:[^\S\n]*\n)+")
_HEADING: Final = re.compile(r"#{1,6}[^\S\n]+\S")
_FIRST_HEADING: Final = re.compile(r"^#{1,6}[^\S\n]+(?P<title>\S.*)$", re.MULTILINE)
_SENTENCE_END: Final = re.compile(r"[.!?:;]['\")\]]*\s+|\n")
_SPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class ChunkSettings:
    """Bounds on a passage, in characters.

    Attributes:
        target_chars: Paragraphs under one heading are joined up to here.
        max_chars: No passage is longer.
    """

    target_chars: int = 700
    max_chars: int = 1400

    def __post_init__(self) -> None:
        if not 1 <= self.target_chars <= self.max_chars:
            raise ConfigError(
                f"target_chars is {self.target_chars}, max_chars {self.max_chars}",
                hint="set 1 <= target_chars <= max_chars",
            )


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` up to, not including, `end` of a document."""

    start: int
    end: int


def chunk(document: str, settings: ChunkSettings = ChunkSettings()) -> list[Span]:
    """The passages of `document`, in order.

    Guarantees: spans do not overlap; together they hold every character that is no white space;
    none begins or ends with white space; none is longer than `max_chars`.
    """
    spans: list[Span] = []
    for block in _blocks(document, settings.max_chars):
        if spans and _joins(document, spans[-1], block, settings):
            spans[-1] = Span(spans[-1].start, block.end)
        else:
            spans.append(block)
    return spans


def first_heading(document: str) -> str:
    """The text of the first Markdown heading; empty where there is none."""
    heading = _FIRST_HEADING.search(document)
    return heading["title"].rstrip("# \t\r") if heading else ""


def _joins(document: str, last: Span, block: Span, settings: ChunkSettings) -> bool:
    size = block.end - last.start
    if _is_heading_only(document, last):
        return size <= settings.max_chars
    return size <= settings.target_chars and not _HEADING.match(document, block.start, block.end)


def _is_heading_only(document: str, span: Span) -> bool:
    return all(
        _HEADING.match(line) for line in document[span.start : span.end].split("\n") if line.strip()
    )


def _blocks(document: str, max_chars: int) -> Iterator[Span]:
    """Paragraphs, headings on their own, each cut to `max_chars`."""
    start = 0
    while start < len(document):
        blank = _BLANK_LINES.search(document, start)
        end, after = blank.span() if blank else (len(document), len(document))
        start = _skip_space(document, start, end)
        while _HEADING.match(document, start, end):
            line_end = document.find("\n", start, end)
            if line_end < 0:
                break
            yield from _cut(document, start, line_end, max_chars)
            start = _skip_space(document, line_end, end)
        yield from _cut(document, start, end, max_chars)
        start = after


def _cut(document: str, start: int, end: int, max_chars: int) -> Iterator[Span]:
    while start < end:
        stop = end
        if end - start > max_chars:
            stop = _last_break(document, start, start + max_chars)
        yield Span(start, start + len(document[start:stop].rstrip()))
        start = _skip_space(document, stop, end)


def _last_break(document: str, start: int, limit: int) -> int:
    """Where to cut before `limit`: after a sentence, else a word, else in the middle of one."""
    half = start + (limit - start) // 2
    for pattern in (_SENTENCE_END, _SPACE):
        ends = [match.end() for match in pattern.finditer(document, half, limit)]
        if ends:
            return ends[-1]
    return limit


def _skip_space(document: str, start: int, end: int) -> int:
    space = _SPACE.match(document, start, end)
    return space.end() if space else start
