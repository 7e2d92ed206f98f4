"""Shamir's secret sharing over the prime field of 2**255 - 19 (Shamir 1979).

Python's own integers are the fastest way seen here. Not constant time: a share protects one
attempt of one round, and is public to the coordinator soon after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from comity.errors import Malformed

PRIME: Final = 2**255 - 19
SECRET_BYTES: Final = 31
"""A secret is 31 bytes, uniform: 248 bits, always below the prime."""
SHARE_BYTES: Final = 32
SEED_BYTES: Final = 32
_BITS: Final = 255


def split(secret: bytes, threshold: int, points: Sequence[int], seed: bytes) -> list[bytes]:
    """Shares of `secret` at `points`: any `threshold` of them give it, fewer tell nothing.

    Args:
        secret: 31 bytes.
        threshold: How many shares are needed, 1 to the number of points.
        points: Where the polynomial is evaluated, distinct and above 0.
        seed: 32 uniform bytes; the coefficients are drawn from SHAKE-256 of it by rejection.

    Returns:
        One share of 32 bytes for each point, in order.

    Raises:
        Malformed: A length, the threshold or a point is out of bounds.
    """
    if len(secret) != SECRET_BYTES or len(seed) != SEED_BYTES:
        raise Malformed(f"a secret of {len(secret)} bytes under a seed of {len(seed)}")
    _check_points(points)
    if not 1 <= threshold <= len(points):
        raise Malformed(f"threshold {threshold} of {len(points)} shares")
    coefficients = [*_coefficients(threshold - 1, seed), int.from_bytes(secret, "big")]
    return [_evaluated(coefficients, point).to_bytes(SHARE_BYTES, "big") for point in points]


def weights(points: Sequence[int]) -> list[int]:
    """Lagrange's weights at 0 for shares at `points`: computed once for many secrets.

    Raises:
        Malformed: A point stands twice or is not above 0.
    """
    _check_points(points)
    found = []
    for point in points:
        above, below = 1, 1
        for other in points:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return found


def combined(shares: Sequence[bytes], weighted: Sequence[int]) -> bytes:
    """The secret, from as many shares as the threshold, under `weights` of their points.

    Raises:
        Malformed: They are not shares of one 31-byte secret.
    """
    total = 0
    for share, weight in zip(shares, weighted, strict=True):
        total += share_number(share) * weight
    try:
        return (total % PRIME).to_bytes(SECRET_BYTES, "big")
    except OverflowError as error:
        raise Malformed("these are not shares of one secret") from error


def recovered(shares: Mapping[int, bytes]) -> bytes:
    """The secret, from shares by point."""
    return combined(list(shares.values()), weights(list(shares)))


def share_number(share: bytes) -> int:
    """A share as a number of the field.

    Raises:
        Malformed: It is not 32 bytes of a number below the prime.
    """
    number = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or number >= PRIME:
        raise Malformed("this is no share")
    return number


def _evaluated(coefficients: Iterable[int], point: int) -> int:
    value = 0
    for coefficient in coefficients:
        value = (value * point + coefficient) % PRIME
    return value


def _coefficients(count: int, seed: bytes) -> list[int]:
    # A draw is refused with probability 19 / 2**255: eight spare ones are for ever enough.
    stream = hashlib.shake_256(b"comity/secagg/v1/shamir" + seed).digest((count + 8) * SHARE_BYTES)
    draws = (
        int.from_bytes(stream[start : start + SHARE_BYTES], "big") >> (256 - _BITS)
        for start in range(0, len(stream), SHARE_BYTES)
    )
    return [number for number in draws if number < PRIME][:count]


def _check_points(points: Sequence[int]) -> None:
    if len(set(points)) != len(points) or not all(0 < point < PRIME for point in points):
        raise Malformed("the points of shares must be distinct and above 0")
