"""Words that stand for each other: forms, families, and the commonest near-synonyms of English."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

_ENDINGS: Final = re.compile(
    "e|i|y|or|er|ment|ion|ation|al|ic|iti|ness|ist|ian|ant|ent|anc|enc|ed|ing|s|es"
)
_STEM_CHARS: Final = 5

_GROUPS: Final = """
    child children kid / man men / woman women / person people / foot feet / tooth teeth /
    life lives / begin began begun start / break broke broken / bring brought / build built /
    buy bought purchase / choose chose chosen / come came / draw drew drawn / drive drove
    driven / eat ate eaten food / fall fell fallen / feel felt / find found / freeze froze
    frozen / give gave given / grow grew grown / hold held / keep kept / leave left / lose
    lost / meet met / pay paid / ride rode ridden / rise rose risen / run ran / see saw seen /
    sell sold / send sent / shrink shrank / speak spoke / stand stood / steal stole stolen /
    take took taken / teach taught / tear tore torn / tell told / think thought / throw threw
    thrown / wear wore worn / write wrote written / check inspect examine test / change
    replace exchange swap / repair fix mend / stop end finish halt / clean wash / clogged
    blocked / lend lent borrow loan / danger hazard / surgery operation operate / doctor
    physician / medicine drug medication / illness disease / operator user / car vehicle /
    help assist support / ask request / allow permit / forbid prohibit / cost price fee / late
    overdue / broken defective faulty / phone telephone / rule regulation
"""
"""Irregular forms, and words that most people would use for one another, in groups."""


def families(
    asked: Iterable[str], vocabulary: Iterable[str], analyse: Callable[[str], Sequence[str]]
) -> Mapping[str, frozenset[str]]:
    """For each term of a vocabulary that stands for asked ones: which.

    Args:
        asked: Terms of a question.
        vocabulary: Terms of texts.
        analyse: Text to terms; brings the groups of words into the same form.
    """
    groups = [frozenset(analyse(group)) for group in _GROUPS.split("/")]
    near = {
        one: frozenset[str]().union(*(group for group in groups if one in group)) for one in asked
    }
    wanted = sorted(near)
    found = {
        word: frozenset(one for one in wanted if word in near[one] or _akin(one, word))
        for word in vocabulary
    }
    return {word: kin for word, kin in found.items() if kin}


def _akin(one: str, other: str) -> bool:
    if one == other:
        return True
    short, long = sorted((one, other), key=len)
    ending = _ENDINGS.fullmatch(long, len(short))
    return len(short) >= _STEM_CHARS and long.startswith(short) and ending is not None
