from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from comity.core.secagg import shamir
from comity.core.secagg.codec import Layout, Number, Octets, Real, Rows, Text, decode, encode
from comity.core.secagg.messages import LinkRequest
from comity.errors import Malformed


@dataclass(frozen=True)
class Every:
    """A message with a field of each kind."""

    CODE: ClassVar[int] = 99
    LAYOUT: ClassVar[Layout] = (
        ("number", Number(2)),
        ("signed", Number(2, signed=True)),
        ("real", Real()),
        ("octets", Octets(2, 4)),
        ("text", Text(8)),
        ("names", Rows(2, (Text(8),))),
        ("rows", Rows(2, (Number(1), Octets(0, 1)))),
    )
    number: int = 1
    signed: int = -1
    real: float = 0.5
    octets: bytes = b"ab"
    text: str = "é"
    names: tuple[str, ...] = ("x", "")
    rows: tuple[tuple[int, bytes], ...] = ((1, b""), (2, b"z"))


def test_what_is_written_is_read() -> None:
    assert decode(Every, encode(Every())) == Every()
    assert decode(Every, encode(Every(0, 5, -1e299, b"abcd", "", (), ()))).rows == ()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("number", 65_536, "number is 65536, which 2 bytes do not hold"),
        ("number", -1, "number is -1"),
        ("signed", 32_768, "signed is 32768"),
        ("real", float("nan"), "real is nan"),
        ("real", float("inf"), "real is inf"),
        ("real", -0.0, "real is -0.0"),
        ("octets", b"a", "octets has 1 bytes; 2 to 4 may be"),
        ("octets", b"abcde", "octets has 5 bytes"),
        ("text", "ééééé", "text has 10 bytes"),
        ("text", "\ud800", "text is no text"),
        ("names", ("a", "b", "c"), "names has 3 rows; at most 2"),
        ("names", ("a" * 9,), "names has 9 bytes"),
        ("rows", ((256, b""),), "rows is 256"),
    ],
)
def test_what_breaks_a_limit_is_not_written(field: str, value: Any, says: str) -> None:
    made: Callable[..., Every] = Every
    with pytest.raises(Malformed, match=says):
        encode(made(**{field: value}))


@pytest.mark.parametrize(
    ("found", "put", "says"),
    [
        (b"\0\0\0\2ab", b"\0\0\0\1ab", "octets has 1 bytes"),
        (b"\0\0\0\2ab", b"\xff\xff\xff\xffab", "octets has 4294967295 bytes"),
        (b"\0\0\0\2\xc3\xa9", b"\0\0\0\2\xc3\x28", "text is not UTF-8"),
        (b"\0\0\0\2\xc3\xa9", b"\0\0\0\2\xc0\xaf", "text is not UTF-8"),
        (b"\0\0\0\2\0\0\0\1x", b"\0\0\0\3\0\0\0\1x", "names has 3 rows"),
        (b"\x3f\xe0" + bytes(6), b"\x80" + bytes(7), "real is -0.0"),
        (b"\x3f\xe0" + bytes(6), b"\x7f\xf0" + bytes(6), "real is inf"),
    ],
)
def test_what_breaks_a_limit_is_not_read(found: bytes, put: bytes, says: str) -> None:
    body = encode(Every())
    assert body.count(found) == 1
    with pytest.raises(Malformed, match=says):
        decode(Every, body.replace(found, put))


def test_every_shorter_and_longer_message_is_refused() -> None:
    body = encode(Every())
    for size in range(len(body)):
        with pytest.raises(Malformed):
            decode(Every, body[:size])
    with pytest.raises(Malformed, match="2 bytes behind the last field of a Every"):
        decode(Every, body + b"ab")


def test_what_a_signature_covers_leaves_the_signature_out() -> None:
    assert len(encode(Every(), without="octets")) == len(encode(Every())) - 6


def test_rows_of_one_column_are_bare() -> None:
    request = LinkRequest((b"a", b"bc"))
    assert decode(LinkRequest, encode(request)).announcements == (b"a", b"bc")


SECRET = bytes(range(31))


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (1, 3), (2, 3), (3, 3), (34, 100)])
def test_any_shares_that_reach_the_threshold_give_the_secret(threshold: int, count: int) -> None:
    points = range(1, count + 1)
    shares = shamir.split(SECRET, threshold, points, b"s" * 32)
    last = dict(list(zip(points, shares, strict=True))[-threshold:])
    assert shamir.recovered(last) == SECRET


def test_shares_below_the_threshold_fit_every_secret() -> None:
    points = (1, 2, 3)
    shares = shamir.split(SECRET, 3, points, b"s" * 32)
    # With two of three shares known, some third makes any secret that one likes.
    want = int.from_bytes(bytes(31), "big")
    weighted = shamir.weights(points)
    known = sum(
        shamir.share_number(share) * weight
        for share, weight in zip(shares[:2], weighted[:2], strict=True)
    )
    third = (want - known) * pow(weighted[2], -1, shamir.PRIME) % shamir.PRIME
    assert shamir.combined([*shares[:2], third.to_bytes(32, "big")], weighted) == bytes(31)


@pytest.mark.parametrize(
    ("secret", "threshold", "points", "seed", "says"),
    [
        (bytes(30), 1, (1,), bytes(32), "a secret of 30 bytes"),
        (bytes(31), 1, (1,), bytes(31), "under a seed of 31"),
        (bytes(31), 0, (1,), bytes(32), "threshold 0 of 1"),
        (bytes(31), 2, (1,), bytes(32), "threshold 2 of 1"),
        (bytes(31), 1, (1, 1), bytes(32), "distinct"),
        (bytes(31), 1, (0,), bytes(32), "above 0"),
        (bytes(31), 1, (shamir.PRIME,), bytes(32), "distinct"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    secret: bytes, threshold: int, points: tuple[int, ...], seed: bytes, says: str
) -> None:
    with pytest.raises(Malformed, match=says):
        shamir.split(secret, threshold, points, seed)


@pytest.mark.parametrize("share", [bytes(31), bytes(33), shamir.PRIME.to_bytes(32, "big")])
def test_what_is_no_share_is_refused(share: bytes) -> None:
    with pytest.raises(Malformed, match="this is no share"):
        shamir.recovered({1: share})


def test_shares_of_nothing_are_refused() -> None:
    with pytest.raises(Malformed, match="not shares of one secret"):
        shamir.recovered({1: (2**250).to_bytes(32, "big")})
