"""Laws of the chain, of canonical JSON, of content digests and of the ledger's fold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.core.chain.canonical import decode, encode
from comity.core.chain.content import content_of
from comity.core.chain.record import Head, Record, head_after, link, verified
from comity.core.privacy.event import Mechanism, Plan, PrivacyEvent, Spend
from comity.core.privacy.ledger import (
    Committed,
    LedgerEvent,
    LedgerState,
    Opened,
    Reserved,
    ledger_event,
    ledger_record,
)
from comity.errors import BudgetExhausted, ComityError, Malformed, Verification
from comity.ids import DatasetName, ExchangeId, ReservationId

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(TEXT, JSON, max_size=5)
BODIES = st.lists(st.tuples(TEXT, st.binary(max_size=20)), min_size=1, max_size=8)


def chain(bodies: list[tuple[str, bytes]]) -> list[Record]:
    head, records = Head(), []
    for kind, body in bodies:
        records.append(link(head, kind, body))
        head = head_after(records[-1])
    return records


@given(DOCUMENTS)
def test_canonical_json_reads_back_what_it_wrote(document: dict[str, object]) -> None:
    assert decode(encode(document)) == document


@given(DOCUMENTS, DOCUMENTS)
def test_two_documents_share_bytes_only_if_they_are_equal(
    one: dict[str, object], other: dict[str, object]
) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (encode(one) == encode(other)) == same


@given(st.binary(max_size=60))
def test_bytes_either_decode_to_what_encodes_back_or_are_malformed(body: bytes) -> None:
    try:
        document = decode(body)
    except Malformed:
        return
    assert encode(document) == body


@given(BODIES)
def test_an_untouched_chain_verifies(bodies: list[tuple[str, bytes]]) -> None:
    records = chain(bodies)
    assert list(verified(records)) == records


@given(BODIES, st.data())
def test_any_change_of_any_field_of_any_record_is_named(
    bodies: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    records = chain(bodies)
    index = data.draw(st.integers(0, len(records) - 1))
    name = data.draw(st.sampled_from(["sequence", "kind", "body", "previous", "hash"]))
    changed: dict[str, Any] = {
        "sequence": records[index].sequence + 1,
        "kind": records[index].kind + "x",
        "body": records[index].body + b"x",
        "previous": bytes(31) + b"\x01",
        "hash": bytes(31) + b"\x01",
    }
    records[index] = replace(records[index], **{name: changed[name]})
    with pytest.raises(Verification):
        list(verified(records))


@given(BODIES, st.data())
def test_a_record_replaced_together_with_its_hash_is_named_by_the_next(
    bodies: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    records = chain([*bodies, ("last", b"")])
    index = data.draw(st.integers(0, len(records) - 2))
    old = records[index]
    records[index] = link(Head(index, old.previous), old.kind, old.body + b"x")
    with pytest.raises(Verification, match=f"record {index + 2} does not follow"):
        list(verified(records))


@given(BODIES, st.data())
def test_a_record_taken_out_or_two_swapped_before_the_end_is_named(
    bodies: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    records = chain([*bodies, ("last", b"")])
    index = data.draw(st.integers(0, len(records) - 2))
    with pytest.raises(Verification):
        list(verified(records[:index] + records[index + 1 :]))
    records[index], records[index + 1] = records[index + 1], records[index]
    with pytest.raises(Verification):
        list(verified(records))


@given(
    st.dictionaries(TEXT, st.lists(st.floats(allow_nan=False), max_size=4), max_size=3),
    st.dictionaries(TEXT, st.lists(st.floats(allow_nan=False), max_size=4), max_size=3),
)
def test_the_digest_of_arrays_tells_them_apart(
    one: dict[str, list[float]], other: dict[str, list[float]]
) -> None:
    def of(values: dict[str, list[float]]) -> tuple[dict[str, bytes], str]:
        made = {name: np.array(value, dtype=np.float64) for name, value in values.items()}
        return {name: array.tobytes() for name, array in made.items()}, content_of(made).digest

    (bytes_one, digest_one), (bytes_other, digest_other) = of(one), of(other)
    same = list(bytes_one.items()) == list(bytes_other.items())
    assert (digest_one == digest_other) == same


DATA = DatasetName("patients")
EVENTS = [PrivacyEvent(Mechanism.GAUSSIAN, text) for text in ("1", "2", "4")]
PLANS = st.lists(
    st.builds(Spend, st.sampled_from(EVENTS), st.integers(1, 5)), min_size=1, max_size=3
).map(Plan.of)


def reserving(key: str, plan: Plan) -> Reserved:
    return Reserved(ReservationId(key), DATA, plan, "8.0", "1e-05", "4.0", "plan", "adding 1")


@given(st.lists(PLANS, min_size=1, max_size=4), st.lists(PLANS, max_size=6), st.data())
def test_whatever_is_committed_never_exceeds_what_was_reserved_and_the_fold_agrees(
    plans: list[Plan], spends: list[Plan], data: st.DataObject
) -> None:
    state = LedgerState()
    events: list[LedgerEvent] = []
    for index, plan in enumerate(plans):
        events.append(reserving(f"r{index}", plan))
        state = state.after(events[-1])
    committed = Plan(())
    for spend in spends:
        key = data.draw(st.sampled_from([f"r{index}" for index in range(len(plans))]))
        ran = Committed(ReservationId(key), ExchangeId("e"), spend)
        try:
            state = state.after(ran)
        except BudgetExhausted:
            continue
        events.append(ran)
        committed = committed + spend
    account = state.account(DATA)
    reserved = {spend.event: spend.count for spend in account.reserved.spends}
    assert account.spent == committed
    assert all(spend.count <= reserved[spend.event] for spend in committed.spends)
    again = LedgerState()
    for event in events:
        read = ledger_event(event.kind, decode(encode(ledger_record(event))))
        assert read == event
        again = again.after(event)
    assert again == state


@given(st.dictionaries(TEXT, JSON, max_size=4), st.sampled_from(["ledger.reserved", "ledger.x"]))
def test_a_ledger_record_of_any_other_shape_is_an_error_of_ours(
    fields: dict[str, object], kind: str
) -> None:
    with pytest.raises(ComityError):
        ledger_event(kind, {"schema_version": 1, **fields})


@given(PLANS, PLANS)
def test_the_opening_is_what_was_reserved_at_the_first_output_for_ever(
    before: Plan, after: Plan
) -> None:
    state = LedgerState().after(reserving("r0", before)).after(Opened(DATA))
    state = state.after(reserving("r1", after)).after(Opened(DATA))
    assert state.account(DATA).opening == before
    assert state.account(DATA).reserved == before + after
