"""Whether what was found carries an answer: below a threshold, say so instead of guessing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from comity.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Grounds:
    """What stands behind one sentence that could be quoted.

    Attributes:
        passage_coverage: Share of the question's weight that its passage holds, in [0, 1].
        sentence_coverage: Share that the sentence itself holds, in [0, 1].
    """

    passage_coverage: float
    sentence_coverage: float


@dataclass(frozen=True, slots=True)
class GroundSettings:
    """When to answer; calibrated on tuning questions only, see docs/concepts/asking.md.

    Attributes:
        min_passage_coverage: A passage that holds less of the question's weight supports nothing.
        min_sentence_coverage: Nor does a sentence that holds less.
    """

    min_passage_coverage: float = 0.65
    min_sentence_coverage: float = 0.65

    def __post_init__(self) -> None:
        for name in ("min_passage_coverage", "min_sentence_coverage"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", hint=f"set {name} between 0 and 1"
                )


def supports(grounds: Grounds, settings: GroundSettings) -> bool:
    """Whether a sentence may stand in an answer."""
    return (
        grounds.passage_coverage >= settings.min_passage_coverage
        and grounds.sentence_coverage >= settings.min_sentence_coverage
    )


def support(grounds: Iterable[Grounds]) -> float:
    """How well an answer is supported, in [0, 1]: its best sentence's geometric mean; 0 if none."""
    return max(
        ((one.passage_coverage * one.sentence_coverage) ** 0.5 for one in grounds), default=0.0
    )
