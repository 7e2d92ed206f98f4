"""The gate inside a secure sum: it decides, spends and protects before the mask, and records it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.fakes.gate_site import (
    PATIENTS,
    STEP,
    TRAINER,
    FaultyJournal,
    MemoryJournal,
    Site,
    arrays,
    exchange,
    plan,
    private_arrays,
)

from comity.core.chain.canonical import decode
from comity.core.policy.rule import (
    Budget,
    PartKind,
    Rule,
    SiteNoise,
    SitePolicy,
    SumPolicy,
    TrainPolicy,
    Unit,
)
from comity.errors import (
    BudgetExhausted,
    DataError,
    JournalBehind,
    PolicyRefused,
    Replay,
    UnavailableError,
)
from comity.events import ExchangeCommitted
from comity.ids import AppDigest
from comity.ports import SealedUpload
from comity.release import Released, Withheld
from comity.services.audit import describe
from comity.services.books import SumMark
from comity.services.gate import Gate, Part, UnsafeSimulationGate
from comity.services.parts import SumPlace
from comity.services.spend import site_event

VECTOR = np.arange(4, dtype=np.uint32)


class Masked:
    """A mask that keeps what it was given."""

    def __init__(self, number: int = 1, attempt: int = 1, stage: str = "upload") -> None:
        self.seen: list[Part] = []
        self.place = SumPlace("17", 1, number, attempt, stage)

    def __call__(self, parts: Sequence[Part]) -> Part:
        self.seen += parts
        value = SealedUpload(b"header", VECTOR)
        return Part(PartKind.PROTOCOL, self.place.stage, value, place=self.place)


def policy(budget: Budget | None = None, **changes: Any) -> SitePolicy:
    changes.setdefault("unclaimed", Rule.PLAIN)
    train = TrainPolicy(trusted_trainers=frozenset({TRAINER}), **changes)
    return SitePolicy(train=train, budgets={PATIENTS: budget or Budget(8.0, 1e-5)})


def metrics(**values: float) -> Part:
    return Part(PartKind.METRICS, "metrics", values or {"num-examples": 10.0})


def last(site: Site) -> dict[str, Any]:
    return decode(site.records()[-1].body)


@pytest.mark.parametrize(
    ("rule", "summed"), [(Rule.SUM, True), (Rule.PLAIN, True), (Rule.WITHHOLD, False)]
)
def test_what_may_leave_at_all_may_leave_inside_a_sum_and_nothing_else(
    rule: Rule, *, summed: bool
) -> None:
    rules = {("train", PartKind.ARRAYS): rule}
    site, mask = Site(policy(rules=rules)), Masked()
    released, stayed = site.gate().release_sum(exchange(), [arrays(), metrics()], mask)
    assert released.value.header == b"header"
    assert [part.kind for part in mask.seen] == (
        [PartKind.ARRAYS, PartKind.METRICS] if summed else [PartKind.METRICS]
    )
    assert [one.policy for one in stayed] == ([] if summed else ["train.arrays = withhold"])


def test_only_arrays_and_metrics_are_summed_whatever_the_policy_opens() -> None:
    rules = {("train", kind): Rule.PLAIN for kind in (PartKind.CONFIG, PartKind.ERROR)}
    site, mask = Site(policy(rules=rules)), Masked()
    config = Part(PartKind.CONFIG, "config", {"note": "x"})
    site.gate().release_sum(exchange(), [arrays(), config], mask)
    assert [part.kind for part in mask.seen] == [PartKind.ARRAYS]


@pytest.mark.parametrize(
    ("kind", "parts", "words"),
    [
        ("query", [arrays()], "query.arrays = withhold"),
        ("query.describe", [metrics()], "query.describe.metrics = withhold"),
        ("train", [], "an empty reply"),
        ("train", [Part(PartKind.CONFIG, "c", {"a": 1})], "train.config = withhold"),
    ],
)
def test_a_reply_of_which_nothing_may_be_summed_is_refused_before_it_is_masked(
    kind: str, parts: list[Part], words: str
) -> None:
    site, mask = Site(policy()), Masked()
    gate = site.gate()
    before = len(site.records())
    with pytest.raises(PolicyRefused, match=words):
        gate.release_sum(exchange(message_type=kind), parts, mask)
    assert (mask.seen, len(site.records())) == ([], before + 1)
    assert not any(part["outcome"] == "released" for part in last(site)["parts"])


def test_the_record_says_what_was_summed_and_where_and_holds_no_content() -> None:
    site = Site(policy())
    released, _ = site.gate().release_sum(
        exchange(), [arrays(41.75), metrics(loss=0.3125)], Masked(3, 2)
    )
    body = last(site)
    assert [(part["kind"], part["outcome"]) for part in body["parts"]] == [
        ("arrays", "summed"),
        ("metrics", "summed"),
        ("protocol", "released"),
    ]
    place = {"run": "17", "epoch": 1, "round": 3, "attempt": 2, "stage": "upload"}
    assert body["parts"][2]["sum"] == place
    assert all("sum" not in part for part in body["parts"][:2])
    record = site.records()[released.sequence - 1]
    assert b"41.75" not in record.body
    assert b"0.3125" not in record.body
    told = site.events[-1]
    assert isinstance(told, ExchangeCommitted)
    assert (told.released, told.withheld) == (1, 0)


def test_the_audit_says_in_a_sentence_what_was_inside_the_sum() -> None:
    site = Site(policy())
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(4), purpose="study")
    config = Part(PartKind.CONFIG, "c", {"a": 1})
    gate.release_sum(exchange(), [private_arrays(reservation), config], Masked())
    line = describe(site.records()[-1], "site-b")
    assert "masked, with arrays 'model'" in line.sentence
    assert "inside the sum" in line.sentence
    assert "for run 17, round 4 (train)" in line.sentence
    assert "withheld config 'c' (train.config = withhold)" in line.sentence


def test_a_trusted_trainer_s_claim_is_spent_inside_a_sum_before_it_leaves() -> None:
    site, spent = Site(policy()), []
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(2), purpose="study")

    def mask(parts: Sequence[Part]) -> Part:
        spent.append(gate.budget(PATIENTS).epsilon_spent)
        return Masked()(parts)

    gate.release_sum(exchange(), [private_arrays(reservation)], mask)
    assert spent == [0.0]
    assert gate.budget(PATIENTS).epsilon_spent == 0.5
    assert last(site)["parts"][0]["claim"] == "record"
    with pytest.raises(BudgetExhausted):
        gate.release_sum(exchange("e2"), [private_arrays(reservation, 2)], Masked(2))
    assert gate.budget(PATIENTS).epsilon_spent == 0.5


def test_an_untrusted_trainer_s_claim_is_not_believed_inside_a_sum() -> None:
    site = Site(policy())
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(2), purpose="study")
    part = replace(private_arrays(reservation), trainer=AppDigest("sha256:other"))
    gate.release_sum(exchange(), [part], Masked())
    assert gate.budget(PATIENTS).epsilon_spent == 0.0
    assert last(site)["parts"][0]["claim"] == "none"


def test_site_noise_is_added_before_the_mask_and_spent() -> None:
    noise = SiteNoise(clip_norm=1.0, noise_multiplier=2.0)
    site = Site(policy(Budget(8.0, 1e-5, Unit.SITE), site_noise=noise))
    gate, mask = site.gate(), Masked()
    start = {"w": np.zeros(2000)}
    part = Part(PartKind.ARRAYS, "model", {"w": np.full(2000, 50.0)}, reference=start)
    gate.release_sum(exchange(), [part], mask)
    (protected,) = mask.seen
    noised = protected.value["w"]
    assert abs(float(noised.mean())) < 1.0, "the update of norm 2236 was clipped to norm 1"
    assert 1.5 < float(noised.std()) < 2.5
    assert protected.reference is start
    expected = 1 / float(site_event(noise).parameter)
    assert gate.budget(PATIENTS).epsilon_spent == pytest.approx(expected)
    assert last(site)["parts"][0]["claim"] == "site"


def test_the_private_events_of_a_step_are_those_of_the_claim() -> None:
    site = Site(policy())
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(3), purpose="study")
    gate.release_sum(exchange(), [private_arrays(reservation, 3)], Masked())
    committed = [r for r in site.records() if r.kind == "ledger.committed"]
    assert len(committed) == 1
    assert STEP.parameter.encode() in committed[0].body


def test_what_a_mask_refuses_is_recorded_and_what_a_trusted_trainer_ran_is_spent() -> None:
    site = Site(policy())
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(2), purpose="study")

    def mask(parts: Sequence[Part]) -> Part:
        raise DataError(f"{len(parts)} parts")

    with pytest.raises(DataError):
        gate.release_sum(exchange(), [private_arrays(reservation)], mask)
    (part,) = last(site)["parts"]
    assert (part["outcome"], part["policy"]) == ("withheld", "refused: data")
    assert gate.budget(PATIENTS).epsilon_spent == 0.5


def test_nothing_leaves_where_the_journal_cannot_be_written() -> None:
    def fault(point: str) -> None:
        if point == "before commit" and armed:
            raise UnavailableError("the disk is full")

    armed: list[int] = []
    site = Site(policy(), journal=FaultyJournal(MemoryJournal(), fault))
    gate = site.gate()
    armed.append(1)
    with pytest.raises(UnavailableError):
        gate.release_sum(exchange(), [arrays()], Masked())
    assert gate.sum_mark("17") == SumMark()


def test_a_nan_is_refused_before_the_mask() -> None:
    mask = Masked()
    with pytest.raises(DataError, match="NaN"):
        Site(policy()).gate().release_sum(exchange(), [arrays(float("nan"))], mask)
    assert mask.seen == []


def test_an_exchange_that_was_answered_is_not_summed_again() -> None:
    site = Site(policy())
    gate = site.gate()
    gate.release_sum(exchange(), [arrays()], Masked())
    for parts in ([arrays()], [arrays(2.0)]):
        with pytest.raises(Replay, match="answered before"):
            gate.release_sum(exchange(), parts, Masked())
        with pytest.raises(Replay, match="answered before"):
            site.gate().release_sum(exchange(), parts, Masked())


def test_sums_of_a_run_and_of_a_day_are_bounded_across_restarts() -> None:
    site = Site(policy(sums=SumPolicy(sums_per_run=2, sums_per_day=3)))
    for number in (1, 2):
        site.gate().release_sum(exchange(f"e{number}"), [arrays()], Masked(number))
    with pytest.raises(PolicyRefused, match="run 17 had its 2 sums"):
        site.gate().release_sum(exchange("e3"), [arrays()], Masked(3))
    other = Masked(1)
    other.place = replace(other.place, run="18")
    site.gate().release_sum(exchange("e4", run="18"), [arrays()], other)
    with pytest.raises(PolicyRefused, match="3 sums of the day"):
        site.gate().release_sum(exchange("e5", run="19"), [arrays()], Masked(1))
    site.clock.now_s += 86_400
    later = Masked(2)
    later.place = replace(later.place, run="18")
    site.gate().release_sum(exchange("e6", run="18"), [arrays()], later)


@pytest.mark.parametrize("stage", ["repeat", "unfit"])
def test_attempts_of_a_round_count_as_one_sum(stage: str) -> None:
    site = Site(policy())
    gate = site.gate()
    gate.release_sum(exchange("e1"), [arrays()], Masked(1, 1, "unfit"))
    gate.release(exchange("e2"), [Masked(1, 2, stage)([])])
    assert gate.sum_mark("17") == SumMark(1, 1, 2, 0, 1)
    gate.release(exchange("e3"), [Masked(1, 2, "reveal")([])])
    assert site.gate().sum_mark("17") == SumMark(1, 1, 2, 1, 1)
    gate.release(exchange("e4"), [replace(Masked()([]), place=SumPlace("17", 2, 0, 0, "announce"))])
    assert site.gate().sum_mark("17") == SumMark(2, 1, 2, 1, 1)
    assert site.gate().sum_mark("other") == SumMark()


def test_a_protocol_part_without_a_place_is_an_app_s_and_stays() -> None:
    part = Part(PartKind.PROTOCOL, "upload", b"anything")
    (outcome,) = Site(policy()).gate().release(exchange(), [part])
    assert isinstance(outcome, Withheld)
    assert "protocol" in outcome.policy


def test_a_journal_behind_its_head_lets_no_sum_leave() -> None:
    site = Site(policy())
    site.gate().release_sum(exchange(), [arrays()], Masked())
    assert isinstance(site.journal, MemoryJournal)
    site.journal.rows.pop()
    with pytest.raises(JournalBehind):
        site.gate().release_sum(exchange("e2"), [arrays()], Masked(2))


def test_too_large_a_reply_is_refused() -> None:
    with pytest.raises(PolicyRefused, match="at most 20 may leave"):
        Site(policy(max_reply_bytes=20)).gate().release_sum(exchange(), [arrays()], Masked())


def test_a_simulated_site_s_door_masks_arrays_and_metrics_and_keeps_the_rest() -> None:
    door, mask = UnsafeSimulationGate(), Masked()
    config = Part(PartKind.CONFIG, "c", {"a": 1})
    released, stayed = door.release_sum(exchange(), [arrays(), config, metrics()], mask)
    assert isinstance(released, Released)
    assert released.value.header == b"header"
    assert stayed == ()
    assert [part.kind for part in mask.seen] == [PartKind.ARRAYS, PartKind.METRICS]
    assert door.sum_mark("17") == SumMark()


def test_one_gate_answers_a_sum_and_a_plain_exchange_side_by_side() -> None:
    rules = {("query", PartKind.METRICS): Rule.PLAIN}
    gate: Gate = Site(policy(rules=rules)).gate()
    gate.release_sum(exchange(), [arrays()], Masked())
    (plain,) = gate.release(exchange("e2", message_type="query"), [metrics()])
    assert isinstance(plain, Released)
