"""What a question asks for: the words that name the thing, and the shape of an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from comity.core.answer import shape

Analyse = Callable[[str], Sequence[str]]
"""Text to terms, as the search counted them."""

_ASKING: Final = """
    treat treated treatment treating care cared caring handle handled manage managed management deal
    dealt prevent prevented prevention avoid avoided happened occur occurred event give given giving
    use used administered administer apply applied recommended recommend advised advise allowed
    allow permitted permit required require necessary possible performed perform carried carry make
    made start started begin told inform informed find found known want mean means work come came go
    goes went put choose chosen advice cause caused reason purpose way method procedure step thing
    something somebody anyone person kind type sort name exactly currently usually normally please
    right correct best good important dose dosage amount quantity number threshold limit target
    level value time frequency duration interval date drug medicine maximum minimum much least
    first get gets become able soon quickly fast late early have has having keep kept
"""
"""Words that ask rather than name: a document answers without saying them."""

_GENRE: Final = """
    guideline guidance guide manual rules notes note policy procedure sheet card handbook report
    routine overview introduction summary short quick training general adult
"""
"""What a title says of the kind of document, or of everybody: no topic of its own."""

_NAMED: Final = r"(?:at )?(?:what|which)(?: is the| are the| should the)?(?: [\w-]+){0,2} "
"""*What*, *which*, up to two words that say of what, before the name of a measure."""
_LONG: Final = re.compile(f"{shape.DURATION.pattern}|{shape.LENGTH.pattern}", re.IGNORECASE)

_MEASURES: Final[tuple[tuple[str, re.Pattern[str], float], ...]] = (
    (r"how (?:often|frequently)|how many times", shape.FREQUENCY, 0.0),
    (
        (
            r"how (?:soon|quickly|old)|how much time|within (?:what|which) time|time limit|"
            r"how many (?:seconds|minutes|hours|days|nights|weeks|months|years)"
        ),
        shape.DURATION,
        0.0,
    ),
    (r"how (?:long|late|early|far)", _LONG, 0.0),
    (r"(?:cost|price|fee|charge)s?\b|how expensive", shape.MONEY, 0.0),
    (_NAMED + r"(?:dos(?:e|es|age)|amount|quantity)\b", shape.AMOUNT, 0.0),
    (_NAMED + r"temperature|how (?:warm|hot|cold)", shape.TEMPERATURE, 0.0),
    (_NAMED + r"pressure\b", shape.PRESSURE, 0.0),
    (r"how (?:much|many|high|low|deep|wide|heavy|large|big|tall|thick|strong)", shape.NUMBER, 0.0),
    (r"how fast|what speed", shape.NUMBER, 0.3),
    (
        _NAMED + r"(?:thresholds?|limits?|targets?|scores?|rates?|levels?|number|percentage|share|"
        r"age|size|weight|volume|flow|ph|humidity|duration|interval|value)\b",
        shape.NUMBER,
        0.6,
    ),
)
"""How a figure is asked for, what it looks like, and what a sentence without one is worth."""
_OTHERS: Final[tuple[tuple[str, re.Pattern[str], float], ...]] = (
    (
        r"^(?:what|which|how) .*\b(?:drugs?|medicines?|medication|given|treat(?:ed|ment)?)\b",
        shape.DOSE,
        0.75,
    ),
    (r"^(?:by )?(?:who|whom|whose)\b", shape.ROLE, 0.6),
    (r"^why\b|\bcauses?\b|\breasons?\b", shape.REASON, 0.75),
    (r"\bwhen\b|what time|which time", shape.MOMENT, 0.75),
    (
        r"^(?:may|can|could|is it|are|is|must|do|does|should)\b|\ballowed\b",
        shape.RULING,
        0.75,
    ),
)
"""The same for what is no figure."""
_WANTS_ACTION: Final = re.compile(
    r"what (?:should|must|do|can) (?:i|you|we|one|be done|happen)|what (?:to do|is done)|do i do|"
    r"^how (?:do|does|should|can|must|is|are) ",
    re.IGNORECASE,
)
_DEFINES: Final = re.compile(
    r"^what (?:is|are) (?:an? )?(?!the\b|done\b)(?:[\w-]+ ?){1,3}\??$|^what does .* mean\b|"
    r"^define\b",
    re.IGNORECASE,
)
_NARROWED: Final = re.compile(
    r"\b(?:of|for|in|to|at|on|with|after|before|given|used)\b", re.IGNORECASE
)
_IN_THE_PAST: Final = re.compile(r"\b(?:was|were|did|had|happened|went|came)\b", re.IGNORECASE)
_HOW_MANY: Final = re.compile(r"\bhow many (?P<noun>[\w-]+)", re.IGNORECASE)
_DEED: Final = re.compile(r"\b\w{3,}ed\b", re.IGNORECASE)
_MEASURE_WORD: Final = re.compile(
    r"\b(?:temperatures?|pressures?|costs?|prices?|fees?|speeds?)\b|(?<=how )\w+(?: away)?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A form that sentences of an answer have.

    Attributes:
        pattern: What such a sentence holds.
        without: What one that does not is worth beside it, in [0, 1]; 0 rules it out.
    """

    pattern: re.Pattern[str]
    without: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, read.

    Attributes:
        terms: All its terms.
        telling: Those that name what is asked about; all where none does.
        genre: Words of titles that name no topic.
        shapes: Forms that an answer has.
        figure: Whether it asks for a figure, which belongs to what its own sentence names.
        action: Whether it asks what to do.
        deeds: Telling words for what is done, where it is asked how often.
        counted: Finds the noun that *how many* stands before.
        quantified: Finds it with a number before it.
        definition: Whether it asks what something is.
        past: Whether it asks for something that happened.
    """

    terms: frozenset[str]
    telling: frozenset[str]
    genre: frozenset[str]
    shapes: tuple[Shape, ...]
    figure: bool
    action: bool
    deeds: frozenset[str]
    counted: re.Pattern[str] | None
    quantified: re.Pattern[str] | None
    definition: bool
    past: bool

    def counts_nothing(self, sentence: str) -> bool:
        """Whether a sentence names what is to be counted, without a number."""
        if not self.counted or not self.quantified:
            return False
        return bool(self.counted.search(sentence)) and not self.quantified.search(sentence)


def read_question(question: str, analyse: Analyse) -> Asked:
    """What `question` asks for."""
    found = frozenset(analyse(question))
    measures = [
        Shape(pattern, without)
        for cue, pattern, without in _MEASURES
        if re.search(rf"\b(?:{cue})", question, re.IGNORECASE)
    ][:1]
    others = [
        Shape(pattern, without)
        for cue, pattern, without in _OTHERS
        if re.search(cue, question, re.IGNORECASE)
    ]
    asking = set(analyse(_ASKING))
    if measures:
        asking.update(analyse(" ".join(_MEASURE_WORD.findall(question))))
    often = bool(measures) and measures[0].pattern is shape.FREQUENCY
    many = _HOW_MANY.search(question)
    noun = re.escape(many["noun"].rstrip("s")) if many else ""
    return Asked(
        terms=found,
        telling=found - asking or found,
        genre=frozenset(analyse(_GENRE)),
        shapes=tuple(measures or others[:1]),
        figure=bool(measures),
        action=not measures and bool(_WANTS_ACTION.search(question)),
        deeds=frozenset(analyse(" ".join(_DEED.findall(question)) if often else "")),
        counted=re.compile(rf"\b{noun}", re.IGNORECASE) if noun else None,
        quantified=re.compile(
            rf"\b{shape.NUMERAL}[\s-]+(?:[\w-]{{1,30}} ){{0,2}}{noun}", re.IGNORECASE
        )
        if noun
        else None,
        definition=bool(_DEFINES.search(question)) and not _NARROWED.search(question),
        past=bool(_IN_THE_PAST.search(question)),
    )
