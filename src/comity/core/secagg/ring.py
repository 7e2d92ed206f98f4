"""The ring of sums: whole numbers modulo 2**16 or 2**32, and why no sum wraps.

A site's word q stands for the signed number in [-2**(b-1), 2**(b-1)) that is congruent to it. Where
every site keeps |q| <= L with n * (L + 1) <= 2**(b-1) - 1, a sum of n of them lies within
n * L < 2**(b-1), so it is read back exactly. The one in L + 1 pays for rounding: what lies within
L before is at most L + 1 after. `limit` is the largest such L, checked before a plan is accepted;
no flag has to be looked at afterwards.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from comity.core.secagg.mask import RingVector
from comity.errors import PolicyRefused

SMALL_RING: Final = 16
RINGS: Final = (SMALL_RING, 32)
TAIL_BITS: Final = 64
_WORDS: Final[dict[int, type[np.unsignedinteger[Any]]]] = {16: np.uint16, 32: np.uint32}
_SIGNED: Final[dict[int, type[np.signedinteger[Any]]]] = {16: np.int16, 32: np.int32}


def words(bits: int) -> type[np.unsignedinteger[Any]]:
    """The dtype of a ring's words."""
    return _WORDS[bits]


def signed(vector: RingVector, bits: int) -> Any:  # noqa: ANN401 - a view of the signed dtype
    """The numbers that a vector's words stand for, as a view."""
    return vector.view(_SIGNED[bits])


def limit(bits: int, sites: int) -> int:
    """The largest |q| of one site with which a sum over `sites` cannot wrap.

    Raises:
        PolicyRefused: There is none that leaves room for a number.
    """
    found: int = (2 ** (bits - 1) - 1) // sites - 1
    if found < 1:
        raise PolicyRefused(
            f"a ring of {bits} bits has no room for a sum over {sites} sites",
            hint="choose the ring of 32 bits, or a smaller cohort",
        )
    return found


def margin_bits(bits: int, sites: int, headroom: float) -> float:
    """Bits that are left for a tensor's largest value, after the cohort and the headroom."""
    return math.log2(limit(bits, sites) / headroom)
