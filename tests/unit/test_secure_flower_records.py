"""Secure sums as Flower records, the site's half of them, and the carrier over any grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord
from flwr.app import RecordDict as Records
from flwr.serverapp.strategy import FedAvg, Strategy
from tests.fakes.sum_sites import RUN, SumSite, root_of
from tests.fakes.summing import Seen, client, fitted, ran, records, starting

from comity.adapters.flower.arrays import own_copy
from comity.adapters.flower.parts import SiteMean
from comity.adapters.flower.private_names import empty_run, enter_run
from comity.adapters.flower.secure_carrier import MessageCarrier
from comity.adapters.flower.secure_messages import (
    ANNOUNCE,
    PROTOCOL,
    VECTOR,
    content_digest,
    protocol_body,
    protocol_record,
    read_upload,
    upload_records,
    without_protocol,
)
from comity.adapters.flower.secure_site import admit, received_arrays, send_sum
from comity.adapters.flower.site_engine import SimulatedSite
from comity.adapters.flower.strategies import check_strategy, strategies_checked
from comity.bootstrap.sums import demanded
from comity.config.sums import SecureSumsSection
from comity.core.policy.rule import PartKind, Rule, SitePolicy, SumPolicy, TrainPolicy
from comity.errors import Malformed, StrategyRefused, UnavailableError
from comity.ids import AppDigest, ExchangeId, SiteName
from comity.ports import Exchange, KeptSum, SealedUpload
from comity.services.gate import UnsafeSimulationGate
from comity.services.sum_plan import SumSettings

ARRAYS = {"w": np.arange(6.0).reshape(2, 3), "n": np.asarray([1, 2])}


@pytest.fixture(autouse=True)
def _in_a_run() -> None:
    enter_run(1)


# --- records ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", ["uint16", "uint32"])
def test_a_masked_upload_travels_as_an_array_record_beside_its_header(ring: str) -> None:
    upload = SealedUpload(b"header", np.arange(9).astype(ring))
    for content in (upload_records(upload), own_copy(upload_records(upload)), plain(upload)):
        found = read_upload(content)
        assert isinstance(found, SealedUpload)
        assert found.header == b"header"
        assert found.vector.dtype == ring
        np.testing.assert_array_equal(found.vector, upload.vector)


def plain(upload: SealedUpload) -> Records:
    """The same with an `Array` of flwr's own."""
    record = ArrayRecord({"sum": Array(upload.vector)})
    return Records({PROTOCOL: protocol_record(upload.header), VECTOR: record})


def test_one_bit_in_the_place_of_an_upload_travels_alone() -> None:
    assert read_upload(upload_records(b"unfit")) == b"unfit"


def with_vector(array: Any) -> Records:
    return Records({PROTOCOL: protocol_record(b"h"), VECTOR: ArrayRecord({"sum": array})})


@pytest.mark.parametrize(
    "content",
    [
        Records(),
        records(ARRAYS),
        Records({PROTOCOL: MetricRecord({"body": 1})}),
        Records({PROTOCOL: ConfigRecord({"body": "text"})}),
        Records({PROTOCOL: ConfigRecord({})}),
        Records({PROTOCOL: protocol_record(b"h"), VECTOR: ConfigRecord({"sum": 1})}),
        Records({PROTOCOL: protocol_record(b"h"), VECTOR: ArrayRecord()}),
        with_vector(Array(np.arange(4.0))),
        with_vector(Array(np.ones((2, 2), np.uint32))),
        with_vector(Array("uint32", (4,), "numpy.ndarray", b"\x93NUMPY\x01\x00\xff\xff{")),
        with_vector(Array("uint32", (4,), "numpy.ndarray", b"noise")),
        with_vector(Array("uint32", (4,), "other", b"noise")),
    ],
)
def test_what_is_no_upload_is_malformed(content: Records) -> None:
    with pytest.raises(Malformed):
        read_upload(content)


def test_the_app_s_records_are_the_same_objects_without_the_protocol_s() -> None:
    content = records(ARRAYS, {"a": 1.0})
    both = Records({**content, PROTOCOL: protocol_record(b"body")})
    kept = without_protocol(both)
    assert list(kept) == ["arrays", "metrics"]
    assert kept["arrays"] is both["arrays"]
    assert (protocol_body(both), protocol_body(kept)) == (b"body", None)


def test_content_has_one_digest_at_both_ends() -> None:
    content = records(ARRAYS, {"a": 1.5, "n": 2}, lr=0.1, name="x", raw=b"\0", many=[1, 2])
    assert content_digest(content) == content_digest(own_copy(content))


BASE: dict[str, Any] = {"lr": 1, "many": [1, 2]}


@pytest.mark.parametrize(
    "other",
    [
        records(ARRAYS, None, lr=2, many=[1, 2]),
        records(ARRAYS, None, lr=1.0, many=[1, 2]),
        records(ARRAYS, None, lr=True, many=[1, 2]),
        records(ARRAYS, None, lr="1", many=[1, 2]),
        records(ARRAYS, None, lr=b"1", many=[1, 2]),
        records(ARRAYS, None, lr=1, many=[1.0, 2.0]),
        records(ARRAYS, None, many=[1, 2], lr=1),
        records({**ARRAYS, "w": ARRAYS["w"].reshape(3, 2)}, None, **BASE),
        records({**ARRAYS, "w": ARRAYS["w"].astype(np.float32)}, None, **BASE),
        records({**ARRAYS, "w": ARRAYS["w"] + 1e-12}, None, **BASE),
        records(dict(reversed(ARRAYS.items())), None, **BASE),
        records({"w": ARRAYS["w"]}, None, **BASE),
        records(ARRAYS, {"lr": 1}, **BASE),
    ],
)
def test_any_difference_is_another_digest(other: Records) -> None:
    assert content_digest(other) != content_digest(records(ARRAYS, None, **BASE))


# --- a site -----------------------------------------------------------------------------------


def asked(kind: str = "train") -> Exchange:
    return Exchange(ExchangeId("e"), "coordinator", kind, RUN)


def message(kind: str, content: Records) -> Message:
    return Message(content, 2, kind)


def site(index: int = 0) -> SimulatedSite:
    summing = SumSite(index).start(root_of(4))
    return SimulatedSite(summing.name, summing.gate, summing.policy, sums=summing.sums)


def test_a_site_without_sums_refuses_the_protocol_unless_its_app_may_bring_its_own() -> None:
    alone = SimulatedSite(SiteName("a"), UnsafeSimulationGate(), SitePolicy())
    for kind in ("train", ANNOUNCE):
        sent = Records({PROTOCOL: protocol_record(b"x")})
        admitted = admit(alone, asked(kind), message(kind, sent))
        assert admitted.content is None
        assert admitted.answer is not None
        assert admitted.answer.failure == "PolicyRefused"
        open_site = replace(alone, policy=None)
        assert admit(open_site, asked(kind), message(kind, sent)).content is not None
    out = send_sum(alone, asked(), message("train", Records()), records(ARRAYS), AppDigest(""))
    assert out.failure == "WrongStage"
    assert isinstance(out.content, Error)


def test_a_message_without_the_protocol_passes_as_it_is() -> None:
    content = records(ARRAYS)
    admitted = admit(site(), asked(), message("train", content))
    assert admitted.content is not None
    assert content_digest(admitted.content) == content_digest(content)
    assert not admitted.summed


def test_a_reply_without_an_open_attempt_stays() -> None:
    out = send_sum(site(), asked(), message("train", Records()), records(ARRAYS), AppDigest(""))
    assert out.failure == "WrongStage"
    assert out.size_bytes == 0


def test_a_full_disk_is_not_hidden_as_a_dropout() -> None:
    class Full:
        def load(self, run: str) -> KeptSum | None:
            raise UnavailableError(f"no room for {run}")

        def keep(self, run: str, kept: KeptSum) -> None:
            raise UnavailableError(f"no room for {run}: {kept}")

    full = SumSite(0, store=Full()).start(root_of(4))
    here = SimulatedSite(full.name, full.gate, full.policy, sums=full.sums)
    with pytest.raises(UnavailableError):
        admit(here, asked(), message("train", Records({PROTOCOL: protocol_record(b"CSA")})))
    with pytest.raises(UnavailableError):
        send_sum(here, asked(), message("train", Records()), records(ARRAYS), AppDigest(""))


def test_a_sum_starts_from_one_array_record() -> None:
    assert received_arrays(records(None, {"a": 1})) is None
    for content in (records(ARRAYS), own_copy(records(ARRAYS))):
        found = received_arrays(content)
        assert found is not None
        np.testing.assert_array_equal(found["w"], ARRAYS["w"])
    two = Records({"a": records(ARRAYS)["arrays"], "b": records(ARRAYS)["arrays"]})
    with pytest.raises(Malformed, match="one array record"):
        received_arrays(two)


# --- the carrier ------------------------------------------------------------------------------


class Silent:
    """A grid whose nodes answer with what a test says, or never."""

    def __init__(self, answers: dict[int, Records | Error]) -> None:
        self.answers = answers
        self.pushed: list[Message] = []
        self.waiting: dict[str, Message] = {}
        self.run = empty_run(1)

    def get_node_ids(self) -> list[int]:
        return [2, 3, 4]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for sent in messages:
            self.pushed.append(sent)
            sent.metadata.__dict__["_message_id"] = f"m{len(self.pushed)}"
            ids.append(sent.metadata.message_id)
            answer = self.answers.get(sent.metadata.dst_node_id)
            if answer is not None:
                self.waiting[ids[-1]] = Message(answer, reply_to=sent)
        return ids

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        return [self.waiting.pop(one) for one in list(ids) if one in self.waiting]


def carrier(answers: dict[int, Records | Error], **changes: Any) -> MessageCarrier:
    content = records(ARRAYS)
    given = {"request": Message(content, 2, "train"), "timeout_s": 0.1, **changes}
    nodes = {"site-1": 2, "site-2": 3, "site-3": 4}
    grid: Any = Silent(answers)
    return MessageCarrier(grid, nodes, given["request"], content, given["timeout_s"])


def test_sites_that_never_answer_are_missing_after_the_time_limit_on_any_grid() -> None:
    sent = carrier({2: upload_records(b"unfit")})
    names = dict.fromkeys(sent.nodes, b"body")
    assert list(sent.invite(names)) == [("site-1", b"unfit")]


def test_errors_and_noise_are_no_uploads_and_errors_are_kept_in_site_order() -> None:
    sent = carrier({4: Error(1, "a"), 2: Error(2, "b"), 3: Records()}, timeout_s=None)
    assert list(sent.invite(dict.fromkeys(sent.nodes, b"body"))) == []
    assert [one.error.code for one in sent.errors(set())] == [2, 1]
    assert [one.error.code for one in sent.errors({"site-1"})] == [1]
    assert list(sent.reveal({"site-2": b"x"})) == []


def test_what_announces_nothing_readable_is_no_site() -> None:
    noise = Records({PROTOCOL: protocol_record(b"noise")})
    sent = carrier({2: Error(1, "a"), 3: noise, 4: Records()})
    sent.nodes.clear()
    assert sent.announce(b"request") == {}
    assert sent.nodes == {}


# --- strategies, policy, configuration ---------------------------------------------------------


def test_our_own_mean_is_known_and_start_is_put_back() -> None:
    before = Strategy.start
    with strategies_checked():
        assert Strategy.start is not before
        with pytest.raises(StrategyRefused):
            check_strategy(FedAvg(weighted_by_key="n"), "num-examples")
        check_strategy(SiteMean(), "num-examples")
        check_strategy(FedAvg(weighted_by_key="n"), "n")
    assert Strategy.start is before


def test_a_callback_is_refused_only_where_its_replies_are_summed() -> None:
    strategy = FedAvg(train_metrics_aggr_fn=lambda _, __: MetricRecord())
    with pytest.raises(StrategyRefused, match="train_metrics_aggr_fn"):
        check_strategy(strategy, "num-examples")
    check_strategy(strategy, "num-examples", frozenset({"evaluate"}))


def test_a_plain_run_is_not_checked_for_its_strategy() -> None:
    class Own(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return super().aggregate_train(server_round, replies)

    assert ran(starting(Own, {"w": np.ones(3)}, 1), client(Seen(), fitted)).replies == 8
    with pytest.raises(StrategyRefused, match="Own changes aggregate_train"):
        ran(starting(Own, {"w": np.ones(3)}, 1), client(Seen(), fitted), secure=SumSettings())


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, {"train", "evaluate"}),
        ({("train", PartKind.ARRAYS): Rule.PLAIN}, {"train", "evaluate"}),
        (
            {("train", kind): Rule.PLAIN for kind in (PartKind.ARRAYS, PartKind.METRICS)},
            {"evaluate"},
        ),
        (
            {
                ("train", PartKind.ARRAYS): Rule.PLAIN,
                ("train", PartKind.METRICS): Rule.WITHHOLD,
                ("evaluate", PartKind.METRICS): Rule.PLAIN,
            },
            set(),
        ),
    ],
)
def test_what_some_site_demands_is_summed(rules: Any, expected: set[str]) -> None:
    assert demanded([SitePolicy(TrainPolicy(rules=rules))]) == expected


def test_the_section_of_a_site_file_is_the_policy_that_the_gate_decides_by() -> None:
    assert SecureSumsSection().policy() == SumPolicy()
    written = {"min-cohort": 5, "rings": [32], "sums-per-day": 7, "hybrid": True}
    assert SecureSumsSection.model_validate(written).policy() == SumPolicy(
        min_cohort=5, rings=frozenset({32}), sums_per_day=7, hybrid=True
    )
    wrong: list[dict[str, Any]] = [
        {"min-cohort": 2},
        {"rings": []},
        {"smallest-range": 0},
        {"max-weight": 2**41},
    ]
    for bad in wrong:
        with pytest.raises(ValueError, match=next(iter(bad))):
            SecureSumsSection.model_validate(bad)
