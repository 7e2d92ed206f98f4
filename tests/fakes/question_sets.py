"""Questions with what a right answer says, and how many of them a gateway gets right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.services.answer import Answer
from comity.services.ask import Gateway

FOLDER = Path(__file__).parents[1] / "vectors" / "answers"


@dataclass(frozen=True, slots=True)
class Expected:
    """A question; without documents, the right answer is to abstain."""

    question: str
    documents: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        """Whether a document answers it."""
        return bool(self.documents)

    def right(self, answer: Answer, most: int = 3) -> bool:
        """Whether one of the first `most` citations is of a right document and says the words."""
        if not self.answerable:
            return answer.abstained
        return any(
            one.document in self.documents and any(words in one.quote for words in self.words)
            for one in answer.citations[:most]
        )


def question_set(name: str) -> list[Expected]:
    """The questions of one file in ``tests/vectors/answers``."""
    return list(_read(FOLDER / f"{name}.txt"))


def _read(path: Path) -> Iterator[Expected]:
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        question, documents, *words = line.split(" | ")
        if documents == "-":
            yield Expected(question)
        else:
            yield Expected(question, tuple(documents.split(", ")), tuple(words[0].split(" / ")))


@dataclass(frozen=True, slots=True)
class Score:
    """How a set of questions went.

    Attributes:
        answered: Share of the answerable ones with the right sentence among the citations.
        first: Share of the answerable ones with the right sentence first.
        abstained: Share of the others that were abstained from.
        wrong: What went wrong, to read.
    """

    answered: float
    first: float
    abstained: float
    wrong: tuple[str, ...]


def score(gateway: Gateway, questions: Sequence[Expected], asker: str) -> Score:
    """Asks all questions."""
    answers = [(one, gateway.ask(one.question, asker=asker)) for one in questions]
    yes = [(one, answer) for one, answer in answers if one.answerable]
    no = [(one, answer) for one, answer in answers if not one.answerable]
    return Score(
        answered=sum(one.right(answer) for one, answer in yes) / len(yes),
        first=sum(one.right(answer, 1) for one, answer in yes) / len(yes),
        abstained=sum(one.right(answer) for one, answer in no) / len(no),
        wrong=tuple(
            f"{one.question}\n    {answer.text}" for one, answer in answers if not one.right(answer)
        ),
    )
