"""What a question comes to: the answer, its checked citations, and who did not contribute."""

from __future__ import annotations

from dataclasses import dataclass

from comity.core.answer.cite import Citation
from comity.core.answer.plain import plain
from comity.ids import CollectionName, SiteName


@dataclass(frozen=True, slots=True)
class Closed:
    """A collection that a site did not open to this asker; says nothing of what is in it."""

    site: SiteName
    collection: CollectionName
    policy: str
    reason: str


@dataclass(frozen=True, slots=True)
class Silent:
    """A site that gave no usable reply in time."""

    site: SiteName
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the federation's documents say of a question.

    Attributes:
        question: What was asked.
        text: The answer, its sentences followed by citation marks such as ``[1]``; safe to show.
        citations: What the marks stand for, each checked against the passage that it names.
        closed: Collections that sites did not open to this asker.
        silent: Sites that gave no usable reply in time.
        abstained: Whether nothing that was found supports an answer.
        support: How well the answer is supported, in [0, 1].
        sites_asked: How many sites were asked.
    """

    question: str
    text: str
    citations: tuple[Citation, ...]
    closed: tuple[Closed, ...]
    silent: tuple[Silent, ...]
    abstained: bool
    support: float
    sites_asked: int

    def __repr__(self) -> str:
        lines = [plain(self.text)]
        lines += [
            f"  [{one.number}] {one.site}, {one.title} ({plain(one.document)}): "
            f'"{plain(one.quote)}"'
            for one in self.citations
        ]
        lines += [
            f"  {one.site} keeps {one.collection} closed: {plain(one.reason)}"
            for one in self.closed
        ]
        lines += [f"  {one.site} is silent: {plain(one.reason)}" for one in self.silent]
        return "\n".join(lines)

    def record(self) -> dict[str, object]:
        """The answer as JSON-ready fields; texts are safe to show."""
        return {
            "question": self.question,
            "answer": self.text,
            "abstained": self.abstained,
            "support": round(self.support, 3),
            "citations": [
                {
                    "number": one.number,
                    "site": one.site,
                    "collection": one.collection,
                    "document": one.document,
                    "title": one.title,
                    "start": one.start,
                    "end": one.end,
                    "quote": plain(one.quote),
                    "label": one.label.value,
                }
                for one in self.citations
            ],
            "closed": [
                {
                    "site": one.site,
                    "collection": one.collection,
                    "policy": one.policy,
                    "reason": one.reason,
                }
                for one in self.closed
            ],
            "silent": [{"site": one.site, "reason": one.reason} for one in self.silent],
            "sites_asked": self.sites_asked,
        }
