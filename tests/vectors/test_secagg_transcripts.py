"""Whole runs, byte by byte: what the naive implementation wrote down is what ours says.

A transcript gives every key and secret, each message, and rows of failing steps: a message, what it
comes after, and the error that it must be refused with, nothing having changed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fakes.naive_secagg import fields_of
from tests.fakes.sum_cohort import TERMS
from tests.vectors.secagg.generate import documents

import comity.errors
from comity.adapters.pki import Identity
from comity.core.secagg import coordinator, site_keys
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.mask import RingVector, apply_streams
from comity.core.secagg.messages import (
    Announcement,
    AnnounceRequest,
    Complaint,
    Invitation,
    Link,
    LinkRequest,
    Reveal,
    RevealRequest,
    RoundSpec,
    Unfit,
    Upload,
)
from comity.core.secagg.quantize import mean_arrays
from comity.core.secagg.ring import words
from comity.core.secagg.site import step
from comity.core.secagg.site_state import Member, SiteState
from comity.core.secagg.site_upload import Contribution, MaskedUpload, received_digest
from comity.core.secagg.sum_state import Cause, SumResult, SumState, Void
from comity.core.secagg.unmask import finished, unmasking

FOLDER = Path(__file__).parent / "secagg"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
KINDS: dict[str, Any] = {
    "announce request": AnnounceRequest,
    "link request": LinkRequest,
    "invitation": Invitation,
    "reveal request": RevealRequest,
    "upload": Upload,
    "unfit": Unfit,
    "reveal": Reveal,
    "complaint": Complaint,
}

Document = dict[str, Any]


def load(name: str) -> Document:
    document: Document = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document


def members_of(document: Document) -> dict[str, Member]:
    identities = {
        name: Identity.from_seed(bytes.fromhex(row["identity_seed"]))
        for name, row in document["sites"].items()
    }
    roster = {name: identity.public_key() for name, identity in identities.items()}
    coordinator_key = coordinator_of(document).public_key()
    return {
        name: Member("north", name, 7, roster, coordinator_key, TERMS, own.sign, own.verify)
        for name, own in identities.items()
    }


def coordinator_of(document: Document) -> Identity:
    return Identity.from_seed(bytes.fromhex(document["coordinator_seed"]))


class Replayed:
    """A transcript being replayed, the failing steps tried where they belong."""

    def __init__(self, document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
        self.document = document
        self.members = members_of(document)
        self.states = dict.fromkeys(self.members, SiteState())
        self.at = 0
        self.refused = 0
        self.monkeypatch = monkeypatch

    def run(self) -> None:
        self.announce()
        if self.document["hybrid"]:
            self.link()
        for at, record in enumerate(self.document["rounds"]):
            self.at = at
            self.round(record)
        assert self.refused == len(self.document["failing"])

    def announce(self) -> None:
        request = decode(AnnounceRequest, bytes.fromhex(self.document["announce_request"]))
        self.fail("start")
        for name, row in self.document["sites"].items():
            answer = self.site(name, request, bytes.fromhex(row["random"]))
            assert isinstance(answer, Announcement)
            assert encode(answer).hex() == row["announcement"]
        self.fail("announce")

    def link(self) -> None:
        request = decode(LinkRequest, bytes.fromhex(self.document["link_request"]))
        for name, row in self.document["links"].items():
            drawn = [
                (bytes.fromhex(secret), bytes.fromhex(sealed))
                for secret, sealed in zip(row["secrets"], row["ciphertexts"], strict=True)
            ]
            with self.recorded_encapsulations(drawn):
                answer = self.site(name, request, b"")
            assert isinstance(answer, Link)
            assert encode(answer).hex() == row["message"]
        self.fail("link")

    @contextmanager
    def recorded_encapsulations(self, drawn: list[tuple[bytes, bytes]]) -> Iterator[None]:
        left = list(drawn)
        with self.monkeypatch.context() as patch:
            patch.setattr(site_keys, "encapsulated", lambda _: left.pop(0))
            yield
        assert left == []

    def round(self, record: Document) -> None:
        for name, body in record["invitations"].items():
            assert self.site(name, decode(Invitation, bytes.fromhex(body)), b"") is None
        self.fail("invitation")
        answers = {name: self.upload(name, row) for name, row in record["uploads"].items()}
        self.fail("upload")
        received = bytes.fromhex(next(iter(record["uploads"].values()))["contribution"]["received"])
        spec = decode(RoundSpec, bytes.fromhex(record["spec"]))
        binding = self.states["site-0"].binding
        state, total = coordinator.opened(spec, binding, received)
        self.fail_sum("open", state, total)
        for name, answer in answers.items():
            message = answer.upload if isinstance(answer, MaskedUpload) else answer
            vectors = (answer.vector, total) if isinstance(answer, MaskedUpload) else None
            state = coordinator.step(state, name, message, vectors)
            if len(state.uploads) == 1 and isinstance(answer, MaskedUpload):
                self.fail_sum("first upload", state, total)
                self.void_sum("first upload", state, answers)
        closed = coordinator.closed(state)
        if isinstance(closed, Void):
            assert closed == Void(Cause.UNFIT, ("site-0",))
            return
        self.fail_sum("closed", closed, total)
        self.reveal(record, closed, total)

    def upload(self, name: str, row: Document) -> MaskedUpload | Unfit:
        answer = self.site(name, self.contribution(row["contribution"]), self.random_of(row))
        assert isinstance(answer, MaskedUpload | Unfit)
        if isinstance(answer, Unfit):
            assert encode(answer).hex() == row["message"]
            return answer
        assert encode(answer.upload).hex() == row["message"]
        assert (
            answer.vector.astype(answer.vector.dtype.newbyteorder("<")).tobytes().hex()
            == (row["vector"])
        )
        return answer

    @staticmethod
    def random_of(row: Document) -> bytes:
        return bytes.fromhex(row["random"])

    def contribution(self, row: Document) -> Contribution:
        return Contribution(
            self.arrays(row["arrays"]),
            self.arrays(row["reference"]),
            row["weight"],
            tuple(row["metrics"]),
            tuple(row["names"]),
            bytes.fromhex(row["received"]),
        )

    def arrays(self, rows: list[list[float]]) -> dict[str, NDArray[Any]]:
        spec = decode(RoundSpec, bytes.fromhex(self.document["rounds"][self.at]["spec"]))
        names = [name for name, _, _ in spec.tensors]
        dtype = self.document["dtype"]
        return {name: np.array(row, dtype) for name, row in zip(names, rows, strict=True)}

    def reveal(self, record: Document, state: SumState, total: RingVector) -> None:
        requests = coordinator.reveal_requests(state, coordinator_of(self.document).sign)
        assert {name: encode(body).hex() for name, body in requests.items()} == record["requests"]
        for name, body in record["reveals"].items():
            answer = self.site(name, requests[name], b"")
            assert isinstance(answer, Reveal)
            assert encode(answer).hex() == body
            assert self.site(name, requests[name], b"") == answer
            state = coordinator.step(state, name, answer)
        self.fail("reveal")
        self.fail_sum("revealed", state, total)
        streams = unmasking(state)
        assert not isinstance(streams, Void)
        vector_streams, tail_streams = streams
        apply_streams(total, vector_streams)
        found = finished(state, total, tail_streams)
        assert isinstance(found, SumResult)
        self.check_result(record, found, total)

    def check_result(self, record: Document, found: SumResult, total: RingVector) -> None:
        expected = record["result"]
        assert total.tolist() == expected["vector"]
        for name in ("weight", "share", "capped", "clipped", "metrics"):
            figure = getattr(found, name)
            assert (list(figure) if name == "metrics" else figure) == expected[name]
        assert found.survivors == tuple(record["uploads"])
        assert found.dropped == tuple(sorted(set(self.members) - set(record["uploads"])))
        row = next(iter(record["uploads"].values()))["contribution"]
        spec = decode(RoundSpec, bytes.fromhex(record["spec"]))
        reference = self.arrays(row["reference"])
        means = mean_arrays(total, spec.plan(), found.share, reference)
        for mean, numbers in zip(means.values(), expected["means"], strict=True):
            np.testing.assert_allclose(mean, numbers, rtol=1e-6, atol=1e-9)

    def site(self, name: str, message: Any, random: bytes) -> Any:
        self.states[name], answer = step(self.members[name], self.states[name], message, random)
        return answer

    def rows(self, after: str, *, sums: bool) -> Iterator[Document]:
        for row in self.document["failing"]:
            place = (row["after"], row["round"], row["to"] == "coordinator")
            if place == (after, self.at, sums) and "void" not in row:
                self.refused += 1
                yield row

    def fail(self, after: str) -> None:
        for row in self.rows(after, sums=False):
            before = self.states[row["to"]]
            kept = encode(before)
            with refusal(row):
                answer = self.site(row["to"], read(row), b"\1" * 128)
                assert encode(answer).hex() == row["answer"], row["what"]
            assert self.states[row["to"]] is before
            assert encode(before) == kept

    def fail_sum(self, after: str, state: SumState, total: RingVector) -> None:
        ring = words(state.spec.ring_bits)
        for row in self.rows(after, sums=True):
            kept, sum_before = replace(state), total.copy()
            vectors = (np.ones(len(total), ring), total) if row["kind"] == "upload" else None
            with refusal(row):
                coordinator.step(state, row["sender"], read(row), vectors)
            assert state == kept
            assert total.tolist() == sum_before.tolist()

    def void_sum(self, after: str, state: SumState, answers: Any) -> None:
        """A lie that is taken: once all have uploaded, the attempt is void by name."""
        for row in self.document["failing"]:
            if (row["after"], row["round"]) != (after, self.at) or "void" not in row:
                continue
            self.refused += 1
            lied, total = state, coordinator.opened(state.spec, state.binding, state.received)[1]
            for name in [name for name in answers if name not in state.uploads]:
                upload = read(row) if name == row["sender"] else answers[name].upload
                lied = coordinator.step(lied, name, upload, (answers[name].vector, total))
            assert coordinator.closed(lied) == Void(Cause[row["void"]], tuple(row["sites"]))


def read(row: Document) -> Any:
    return decode(KINDS[row["kind"]], bytes.fromhex(row["message"]))


@contextmanager
def refusal(row: Document) -> Iterator[None]:
    if not row["error"]:
        yield
        return
    error = getattr(comity.errors, row["error"])
    with pytest.raises(error) as caught:
        yield
    assert type(caught.value) is error, row["what"]


@pytest.mark.parametrize("name", NAMES)
def test_a_transcript_replays_byte_by_byte_and_its_failing_steps_fail(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Replayed(load(name), monkeypatch).run()


def test_the_naive_implementation_writes_the_same_transcripts_again() -> None:
    again = documents()
    assert sorted(again) == [f"{name}.json" for name in NAMES]
    for name, text in again.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", NAMES)
def test_what_the_naive_reader_cannot_read_is_what_ours_calls_malformed(name: str) -> None:
    for row in load(name)["failing"]:
        body = bytes.fromhex(row["message"])
        try:
            fields_of(row["kind"], body)
        except ValueError:
            assert row["error"] in {"Malformed", "VersionMismatch"}, row["what"]
        else:
            assert row["error"] != "VersionMismatch", row["what"]


def test_the_transcripts_name_every_error_of_the_protocol() -> None:
    found = Counter(row["error"] for name in NAMES for row in load(name)["failing"])
    assert found.pop("") > 3
    assert set(found) == {
        "CohortTooSmall",
        "Malformed",
        "NotAMember",
        "PolicyRefused",
        "Replay",
        "Verification",
        "VersionMismatch",
        "WrongStage",
    }


def test_the_digest_of_a_received_message_is_worked_out_by_hand() -> None:
    arrays = {"w": np.array([[1, 2]], "<f4"), "b": np.array(3, "<i8")}
    expected = hashlib.sha256(b"comity/secagg/v1/received")
    for head, body in (
        (b"w\0<f4\0(1, 2)", bytes.fromhex("0000803f00000040")),
        (b"b\0<i8\0()", (3).to_bytes(8, "little")),
    ):
        expected.update(len(head).to_bytes(8, "big") + head + body)
    assert received_digest(arrays) == expected.digest()
