"""What a sentence has the shape of: a figure with a unit, an instruction, a role, a reason.

Patterns of general English; nothing here knows a subject. Sentences are untrusted, so each pattern
looks at a bounded stretch from where it starts.
"""

from __future__ import annotations

import re
from typing import Final

NUMERAL: Final = (
    r"(?:\d[\d.,]{0,15}|half|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|"
    r"fifteen|eighteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|dozen|several)"
)
_COUNT: Final = rf"(?:an?|{NUMERAL})"
_TIME_UNIT: Final = (
    r"(?:(?:milli)?seconds?|minutes?|hours?|days?|nights?|weeks?|months?|years?|[hs])"
)
_MASS_OR_VOLUME: Final = (
    r"(?:[mkµ]?g|micrograms?|milligrams?|grams?|kilograms?|kg|tonnes?|[mcd]?l|lit(?:re|er)s?|"
    r"units?|drops?|tablets?|puffs?|teaspoons?|spoons?|cups?|mmol|kcal|iu)"
)
_DISTANCE: Final = (
    r"(?:[mck]?m|met(?:re|er)s?|kilomet(?:re|er)s?|miles?|inch(?:es)?|feet|foot|yards?)"
)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


NUMBER: Final = _pattern(rf"\b{NUMERAL}\b|\b(?:once|twice|thrice|none|nobody)\b")
DURATION: Final = _pattern(
    rf"\b{_COUNT}[\s-]+(?:[a-z]{{1,20}} )?{_TIME_UNIT}\b|"
    r"\b(?:immediately|at once|straight away|overnight|without delay)\b"
)
FREQUENCY: Final = _pattern(
    r"\b(?:every|each|once|twice|thrice|daily|hourly|nightly|weekly|monthly|yearly|annually|"
    r"always|never|rarely|regularly)\b|\btimes\b|"
    rf"\ba (?:shift|day|week|month|year)\b|\bafter {_COUNT} (?:[a-z]{{1,20}} )?{_TIME_UNIT}\b"
)
AMOUNT: Final = _pattern(rf"\b{_COUNT}[\s-]*{_MASS_OR_VOLUME}\b")
_MEASURED: Final = rf"{_COUNT} ?{_MASS_OR_VOLUME}"
DOSE: Final = _pattern(
    r"\b(?!(?:at|to|than|of|in|below|above|with|and|or|every|over|from|by|is|are)\b)[a-z-]{1,40} "
    rf"{_MEASURED}\b|\b{_MEASURED} (?:[\w%]{{1,20}} )?(?:of|by|into|under|intra\w{{1,20}})\b"
)
TEMPERATURE: Final = _pattern(r"\d ?(?:°|degrees?\b|K\b)")
PRESSURE: Final = _pattern(r"\d ?(?:[hkM]?Pa|mmHg|m?bar|psi|cmH2O|atm)\b")
LENGTH: Final = _pattern(rf"\b{_COUNT}[\s-]*{_DISTANCE}\b")
MONEY: Final = _pattern(
    r"[$€£]\s?\d|\d (?:euros?|dollars?|pounds?|francs?|cents?|pence|crowns?)\b|"
    r"\b(?:free|nothing|no charge)\b"
)
MOMENT: Final = _pattern(
    rf"\b(?:when|before|after|during|until|till|as soon as|while|once|if|from|within|at|on|by)\b|"
    rf"{DURATION.pattern}"
)
REASON: Final = _pattern(
    r"\b(?:because|since|so that|cause[sd]?|due|reasons?|why|therefore|thanks to|owing|led to|"
    r"lack|as a result|otherwise|in order)\b|:"
)
RULING: Final = _pattern(
    r"\b(?:may|allowed|welcome|must|never|not|only|cannot|can|forbidden|permitted|prohibited|nobody|"
    r"no|free|neither|should|needs?|without)\b"
)
ROLE: Final = _pattern(
    r"\b(?:\w{2,}(?:ologist|ician|rian|trician|taker|keeper|worker|holder|owner|manager|officer|"
    r"director|nurse|doctor|man|men|woman|women|pharmacist|visor|vator)s?|teams?|consultants?|"
    r"nurses?|doctors?|surgeons?|engineers?|officers?|managers?|owners?|users?|patients?|readers?|"
    r"drivers?|operators?|teachers?|staff|people|persons?|everyone|everybody|anyone|nobody|"
    r"somebody|parents?|relatives?|family|families|children|adults?|members?|boards?|committees?|"
    r"departments?|offices?|supervisors?|foreman|clerks?|registrars?|porters?|secretar(?:y|ies)|"
    r"vendors?|suppliers?|contractors?|company|companies|police|colleagues?|visitors?|"
    r"technicians?|specialists?|pharmacists?|guards?|chiefs?|heads? of)\b"
)
_VERBS: Final = (
    "add adjust agree aim allow answer apply arrange ask assess avoid begin bind book bridge "
    "bring brush call carry change charge check choose clamp clean clear close collect come "
    "confirm connect consider continue cool cover cut decide deliver disconnect disinfect do "
    "draw drive dry empty ensure examine explain fill find finish fit fix flush fold follow "
    "freeze get give go heat help hold identify inform insert inspect install keep label lay "
    "leave let lift listen load lock look loosen lower make mark measure mix monitor move "
    "note observe open operate order pack pass place plan plug pour prepare press prime "
    "protect pull push put raise read record refer release remove renew repair repeat replace "
    "report rest restart return review rinse rub run scan screen seal see seek select send "
    "set show shut stand start stay stop store suction switch take tell test tighten touch "
    "trace transfer transfuse treat try turn unplug use wait walk warm warn wash watch wear "
    "weigh wipe withdraw write"
).replace(" ", "|")
_NOT: Final = r"(?:always|never|do not|don't)"
INSTRUCTION: Final = _pattern(
    r"^(?:\*\*[^*]{1,80}\*\*\s*)?"
    rf"(?:(?:then|first|next|finally|please|also|{_NOT})[,:]? ){{0,3}}(?:{_VERBS})\b|"
    rf"(?:[,:;]|\b(?:and|then)) (?:(?:then|{_NOT}) )?(?:{_VERBS})\b(?! (?:is|are|was|were)\b)|"
    r"\b(?:must|should|has to|have to|needs? to|do not|never)\b"
)
_PAST: Final = _pattern(
    r"\b(?:was|were|had|did|fell|rose|came|went|took|gave|found|made|began|became|got|kept|left|"
    r"said|saw|sent|thought|told|spent|stood|wrote|showed|waited|followed|noticed|stopped|stayed|"
    r"opened|scored|dripped|ran|cut|declined|refused|approved|overrode|confirmed)\b"
)
_PRESENT: Final = _pattern(
    r"\b(?:is|are|has|have|may|must|should|can|cannot|do|does|needs?|will|gets?|means?|goes|keeps?|"
    r"stays?|takes?|gives?)\b"
)
_BACK: Final = _pattern(
    r"^\W*(?:\w+ ){0,3}(?:it|its|they|them|their|this|these|those|that one|otherwise|then)\b"
)


def narrates(sentence: str) -> bool:
    """Whether it tells what happened once, and neither what holds nor what to do."""
    return bool(
        _PAST.search(sentence)
        and not _PRESENT.search(sentence)
        and not INSTRUCTION.search(sentence)
    )


def refers_back(sentence: str) -> bool:
    """Whether it leans on the sentence before it for what it is about."""
    return bool(_BACK.search(sentence))
