"""One encoding for one value: what is written reads back, and what reads is what was written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.naive_secagg import fields_of, message

from comity.core.secagg.codec import Kind, Number, Octets, Real, Rows, Text, decode, encode
from comity.core.secagg.messages import (
    Announcement,
    AnnounceRequest,
    Complaint,
    Encapsulation,
    Invitation,
    Link,
    LinkRequest,
    Reveal,
    RevealRequest,
    RoundSpec,
    Unfit,
    Upload,
)
from comity.core.secagg.site_state import SiteState, Stage
from comity.errors import Malformed, ProtocolError

NAIVE_NAMES: dict[Any, str] = {
    AnnounceRequest: "announce request",
    Announcement: "announcement",
    LinkRequest: "link request",
    Encapsulation: "encapsulation",
    Link: "link",
    RoundSpec: "spec",
    Invitation: "invitation",
    Upload: "upload",
    Unfit: "unfit",
    RevealRequest: "reveal request",
    Reveal: "reveal",
    Complaint: "complaint",
}
KINDS = st.sampled_from([*NAIVE_NAMES, SiteState])
TEXT = st.characters(exclude_categories=["Cs"])


def values(kind: Kind) -> st.SearchStrategy[Any]:
    """What a field may hold; the ends of its limits among it."""
    match kind:
        case Number(size, signed):
            low = -(2 ** (8 * size - 1)) if signed else 0
            return st.integers(low, low + 2 ** (8 * size) - 1)
        case Real():
            reals = st.floats(-1e299, 1e299, allow_subnormal=False)
            return reals.filter(lambda value: repr(value) != "-0.0")
        case Octets(least, most):
            return st.binary(min_size=least, max_size=min(most, least + 40))
        case Text(most):
            return st.text(TEXT, max_size=min(most, 63) // 4)
        case Rows(_, (column,)):
            return st.lists(values(column), max_size=3).map(tuple)
        case Rows(_, columns):
            return st.lists(st.tuples(*map(values, columns)), max_size=3).map(tuple)
    raise AssertionError(kind)


@st.composite
def messages(draw: st.DrawFn) -> Any:
    kind = draw(KINDS)
    fields = {name: draw(values(field)) for name, field in kind.LAYOUT}
    if kind is SiteState:
        fields["stage"] = draw(st.sampled_from(Stage))
    return kind(**fields)


def changed(draw: Any, body: bytes) -> bytes:
    place: int = draw(st.integers(0, len(body)))
    other: bytes = draw(st.binary(max_size=5))
    gone: int = draw(st.integers(0, 5))
    return body[:place] + other + body[place + gone :]


@settings(deadline=None)
@given(messages())
def test_what_is_encoded_decodes_to_the_same(given_message: Any) -> None:
    assert decode(type(given_message), encode(given_message)) == given_message


@settings(deadline=None)
@given(messages())
def test_the_naive_implementation_writes_and_reads_the_same_bytes(given_message: Any) -> None:
    name = NAIVE_NAMES.get(type(given_message))
    if name is None:
        return
    fields = {key: getattr(given_message, key) for key, _ in given_message.LAYOUT}
    body = message(name, fields)
    assert body == encode(given_message)
    read = fields_of(name, body)
    assert {
        key: tuple(value) if isinstance(value, list) else value for key, value in read.items()
    } == fields


@settings(deadline=None)
@given(messages(), st.data())
def test_changed_bytes_are_refused_or_are_the_bytes_of_what_they_say(
    given_message: Any, data: st.DataObject
) -> None:
    body = changed(data.draw, encode(given_message))
    try:
        found = decode(type(given_message), body)
    except ProtocolError:
        return
    assert encode(found) == body


@settings(deadline=None)
@given(KINDS, st.binary(max_size=200))
def test_any_bytes_are_refused_or_are_the_bytes_of_what_they_say(kind: Any, body: bytes) -> None:
    for whole in (body, b"CSA\x01" + bytes([kind.CODE]) + body):
        try:
            found = decode(kind, whole)
        except ProtocolError:
            continue
        assert encode(found) == whole


@settings(deadline=None)
@given(messages())
def test_every_cut_is_refused(given_message: Any) -> None:
    body = encode(given_message)
    for size in range(0, len(body), max(1, len(body) // 50)):
        with pytest.raises(Malformed):
            decode(type(given_message), body[:size])


@settings(deadline=None)
@given(messages(), KINDS)
def test_no_message_is_read_as_another(given_message: Any, kind: Any) -> None:
    if kind is not type(given_message):
        with pytest.raises(Malformed):
            decode(kind, encode(given_message))


@settings(deadline=None)
@given(messages(), messages())
def test_two_messages_have_the_same_bytes_only_if_they_are_equal(one: Any, other: Any) -> None:
    assert (encode(one) == encode(other)) == (one == other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, 1e300, -2e300])
def test_a_real_that_is_not_an_ordinary_number_is_neither_written_nor_read(value: float) -> None:
    with pytest.raises(Malformed):
        Real().write(value, "x")


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_a_number_beyond_its_bytes_is_not_written(size: int, *, signed: bool) -> None:
    kind, low = Number(size, signed=signed), -(2 ** (8 * size - 1)) if signed else 0
    high = low + 2 ** (8 * size)
    for value in (low - 1, high):
        with pytest.raises(Malformed):
            kind.write(value, "x")
    for value in (low, high - 1):
        assert kind.read(kind.write(value, "x"), 0, "x") == (value, size)


@pytest.mark.parametrize("body", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_text_that_is_not_the_one_utf_8_of_a_text_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        Text(9).read(len(body).to_bytes(4, "big") + body, 0, "x")
    with pytest.raises(Malformed):
        Text(9).write("\ud800", "x")
