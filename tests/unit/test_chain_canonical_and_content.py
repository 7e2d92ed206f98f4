"""Canonical JSON, content digests and chain records, case by case."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import pytest

from comity.core.chain.canonical import decode, encode
from comity.core.chain.content import content_of
from comity.core.chain.heads import head_message
from comity.core.chain.record import GENESIS, Head, head_after, link, verified
from comity.errors import DataError, Malformed, Verification


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"x": 1.5}, "document.x is a float"),
        ({"x": [{"y": 2**63}]}, "document.x.0.y is a int"),
        ({"x": {1: 2}}, "document.x is a dict"),
        ({"x": {"y": object()}}, "document.x.y is a object"),
    ],
)
def test_what_canonical_json_lacks_is_named_by_its_path(
    value: dict[str, object], named: str
) -> None:
    with pytest.raises(Malformed, match=named):
        encode(value)


def test_text_that_utf8_cannot_carry_is_malformed() -> None:
    with pytest.raises(Malformed, match="UTF-8"):
        encode({"x": "\ud800"})


def test_keys_are_sorted_and_nothing_is_spent_on_spaces() -> None:
    assert (
        encode({"b": [1, None, True], "a": "\u00e9"}) == '{"a":"\u00e9","b":[1,null,true]}'.encode()
    )


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": 1}', "not in canonical form"),
        (b'{"b":1,"a":1}', "not in canonical form"),
        (b'{"a":1,"a":1}', "not in canonical form"),
        (b'{"a":1.0}', "is a float"),
        (b'{"a":NaN}', "is a float"),
    ],
)
def test_bytes_that_are_not_canonical_are_malformed(body: bytes, named: str) -> None:
    with pytest.raises(Malformed, match=named):
        decode(body)


def test_a_document_beyond_its_bound_is_not_read() -> None:
    with pytest.raises(Malformed, match="8 bytes; at most 7"):
        decode(b'{"a":12}', max_bytes=7)


@dataclass
class Told:
    text: str


class Colour(enum.Enum):
    RED = 1


def test_values_of_every_kind_have_digests_of_their_own() -> None:
    values = [
        None,
        True,
        1,
        1.0,
        "1",
        b"1",
        [],
        {},
        [1],
        [[1]],
        {"a": 1},
        {"a": None},
        Told("1"),
        Told("2"),
        np.zeros(2),
        np.zeros((2, 1)),
        np.zeros(2, dtype=np.float32),
        np.zeros(2, dtype=bool),
        np.zeros(0),
        np.zeros(()),
    ]
    assert len({content_of(value).digest for value in values}) == len(values)


def test_a_numpy_scalar_counts_as_its_number_and_memory_layout_not_at_all() -> None:
    assert content_of(np.float64(1.5)) == content_of(1.5)
    square = np.arange(6.0).reshape(2, 3)
    assert content_of(np.asfortranarray(square)) == content_of(square)
    assert content_of(square.T.copy()) != content_of(square)


def test_size_counts_elements_text_and_numbers() -> None:
    assert content_of({"w": np.zeros(4), "name": "abc"}).size_bytes == 1 + 32 + 4 + 3
    assert content_of([b"xy", 1.0, None]).size_bytes == 2 + 8


def test_what_has_no_encoding_cannot_leave() -> None:
    nested: list[object] = []
    for _ in range(40):
        nested = [nested]
    for value in (Colour.RED, Told, {1, 2}, np.array(["text"]), nested):
        with pytest.raises(DataError):
            content_of(value)


def test_a_chain_may_be_verified_from_a_known_head_on() -> None:
    first = link(Head(), "a", b"{}")
    second = link(head_after(first), "b", b"{}")
    assert list(verified([second], start=head_after(first))) == [second]
    assert first.previous == GENESIS
    with pytest.raises(Verification, match="record 1 is missing: record 2 stands there"):
        list(verified([second]))


def test_the_message_that_a_head_signs_tells_site_sequence_and_hash_apart() -> None:
    heads = [("a", Head()), ("b", Head()), ("a", Head(1)), ("a", Head(0, b"\x01" * 32))]
    assert len({head_message(site, head) for site, head in heads}) == len(heads)
