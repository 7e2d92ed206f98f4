"""Citations: which words of which passage stand behind a mark, and the check that they do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from comity.errors import Verification
from comity.ids import CollectionName, DocumentId, SiteName


class Label(StrEnum):
    """What was established of a sentence of an answer."""

    QUOTED = "quoted"
    """It stands word for word in the passage that it cites."""
    SUPPORTED = "supported"
    """Its names, numbers and content words do; the wording is another."""
    UNSUPPORTED = "unsupported"
    """Neither."""


@dataclass(frozen=True, slots=True)
class Citation:
    """One numbered mark of an answer.

    Attributes:
        number: The mark, counted from 1.
        site: Whose document it is.
        collection: Where it lies there.
        document: Its id there.
        title: Its title, as text that is safe to show.
        start: First character of the quote in the document.
        end: One past its last character.
        quote: ``document[start:end]``, word for word; show it through `plain`.
        label: What was established.
    """

    number: int
    site: SiteName
    collection: CollectionName
    document: DocumentId
    title: str
    start: int
    end: int
    quote: str
    label: Label = Label.QUOTED


def check_quoted(citation: Citation, text: str, start: int) -> None:
    """Checks that a citation quotes a released passage word for word, where it says.

    Args:
        citation: What is claimed.
        text: The passage as it was released.
        start: Where the passage begins in its document.

    Raises:
        Verification: The words are not there.
    """
    first, last = citation.start - start, citation.end - start
    if not (0 <= first < last <= len(text)) or text[first:last] != citation.quote:
        raise Verification(
            f"citation {citation.number} does not stand in the passage that it names",
            hint="report it: the answer was withheld",
        )
