"""The gate decides, spends, protects and records before anything leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.fakes.gate_site import (
    PATIENTS,
    SITE,
    Site,
    arrays,
    exchange,
    open_policy,
    passage,
    plan,
    private_arrays,
    question,
)

from comity.core.chain.canonical import decode
from comity.core.policy.rule import (
    Budget,
    CollectionPolicy,
    PartKind,
    ReleaseLevel,
    Rule,
    SiteNoise,
    SitePolicy,
    Unit,
)
from comity.errors import (
    BudgetExhausted,
    ComityError,
    DataError,
    Malformed,
    PolicyRefused,
    Replay,
    WrongStage,
)
from comity.events import ExchangeCommitted, PlanReserved
from comity.ids import (
    AppDigest,
    CollectionName,
    DatasetName,
    ExchangeId,
    FederationName,
    ReservationId,
)
from comity.release import Released, Withheld
from comity.services.gate import Gate, GateLimits, Part, SiteIdentity, UnsafeSimulationGate
from comity.services.spend import site_event


def last_body(site: Site) -> dict[str, Any]:
    return decode(site.records()[-1].body)


def kinds(site: Site) -> list[str]:
    return [record.kind for record in site.records()]


def test_the_default_policy_lets_nothing_of_a_training_reply_leave() -> None:
    site = Site(policy=SitePolicy())
    parts = [Part(kind, kind.value, {"x": 1.0}) for kind in PartKind]
    outcomes = site.gate().release(exchange(), parts)
    assert all(isinstance(outcome, Withheld) for outcome in outcomes)
    assert "leave this site only inside a secure sum" in outcomes[0].reason  # type: ignore[union-attr]
    assert all(part["size_bytes"] == 0 for part in last_body(site)["parts"])


def test_a_plain_part_leaves_unchanged_and_its_record_holds_no_content() -> None:
    site = Site()
    (released,) = site.gate().release(exchange(), [arrays(41.75)], note="why now")
    assert isinstance(released, Released)
    np.testing.assert_array_equal(released.value["w"], np.full(3, 41.75))
    record = site.records()[released.sequence - 1]
    body = decode(record.body)
    assert (body["asker"], body["run"], body["round"], body["dataset"]) == (
        "coordinator",
        "17",
        4,
        "patients",
    )
    assert b"41.75" not in record.body
    assert b"why now" not in record.body
    assert site.events[1:] == [ExchangeCommitted(SITE, ExchangeId("e1"), 1, 0, 25, 3)]


def test_all_parts_of_an_exchange_are_one_transaction() -> None:
    site = Site()
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(4), purpose="study")
    before = len(site.records())
    outcomes = gate.release(exchange(), [private_arrays(reservation), arrays()])
    assert kinds(site)[before:] == ["ledger.opened", "ledger.committed", "exchange"]
    assert {outcome.sequence for outcome in outcomes if isinstance(outcome, Released)} == {
        len(site.records())
    }


def test_private_events_are_spent_against_their_reservation_and_no_further() -> None:
    site = Site()
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(2), purpose="study")
    gate.release(exchange("e1"), [private_arrays(reservation, 2)])
    assert gate.budget(PATIENTS).epsilon_spent == 1.0
    count = len(site.records())
    with pytest.raises(BudgetExhausted, match="covers 2 of discrete_gaussian"):
        gate.release(exchange("e2"), [private_arrays(reservation)])
    assert gate.budget(PATIENTS).epsilon_spent == 1.0
    assert kinds(site)[count:] == ["exchange"], "the refusal is recorded, nothing is spent"


def test_an_untrusted_trainer_claims_no_epsilon() -> None:
    site = Site()
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(2), purpose="study")
    part = replace(private_arrays(reservation), trainer=AppDigest("sha256:other"))
    gate.release(exchange(), [part])
    assert last_body(site)["parts"][0]["claim"] == "none"
    assert gate.budget(PATIENTS).epsilon_spent == 0.0
    gate.release(exchange("e2"), [private_arrays(reservation)])
    assert last_body(site)["parts"][0]["claim"] == "record"


def test_private_events_of_another_unit_than_the_budget_are_refused() -> None:
    site = Site(policy=open_policy(budgets={PATIENTS: Budget(8.0, 1e-5, Unit.PERSON)}))
    with pytest.raises(PolicyRefused, match="protects a person, the trainer's claim a record"):
        site.gate().release(exchange(), [private_arrays(None)])
    assert last_body(site)["parts"][0]["outcome"] == "withheld"


def test_private_events_need_a_reservation_of_their_own_data_set() -> None:
    other = DatasetName("devices")
    site = Site(policy=open_policy(budgets={PATIENTS: Budget(8, 1e-5), other: Budget(8, 1e-5)}))
    gate = site.gate()
    with pytest.raises(PolicyRefused, match="without a reservation"):
        gate.release(exchange(), [private_arrays(None)])
    with pytest.raises(WrongStage, match="there is no reservation r9"):
        gate.release(exchange("e2"), [private_arrays(ReservationId("r9"))])
    reservation = gate.reserve(other, plan(1), purpose="study")
    with pytest.raises(PolicyRefused, match="is of data set devices"):
        gate.release(exchange("e3"), [private_arrays(reservation)])
    without = Site(policy=open_policy(budgets={})).gate()
    with pytest.raises(PolicyRefused, match="no privacy budget"):
        without.release(exchange(), [private_arrays(None)])


@pytest.mark.parametrize(
    "part",
    [
        Part(PartKind.ARRAYS, "model", {"w": np.array([1.0, np.nan])}),
        Part(PartKind.ARRAYS, "model", {"w": np.array([np.inf], dtype=np.float32)}),
        Part(PartKind.METRICS, "m", {"loss": float("nan")}),
        Part(PartKind.METRICS, "m", {"losses": [1.0, float("-inf")]}),
        Part(PartKind.METRICS, "m", {"loss": np.float32("nan")}),
        Part(PartKind.ARRAYS, "model", {"w": np.array([object()])}),
        Part(PartKind.CONFIG, "c", {"x": object()}),
        Part(PartKind.ARRAYS, "model", {"w": np.ones(2)}, reference={"w": np.ones(3)}),
        Part(PartKind.ARRAYS, "model", {"v": np.ones(3)}, reference={"w": np.ones(3)}),
        Part(PartKind.ARRAYS, "model", [1], reference={"w": np.ones(3)}),
        Part(PartKind.ARRAYS, "model", {"w": 1.0}, reference={"w": np.ones(3)}),
        Part(PartKind.ARRAYS, "model", {}, fault=DataError("cannot be read")),
        Part(PartKind.ERROR, "reply", None, fault=DataError("cannot be read")),
        Part(PartKind.METRICS, "patient Miller, 52", {"loss": 1.0}),
        Part(PartKind.METRICS, "m", {"patient Miller, 52": 1.0}),
        Part(PartKind.METRICS, "m", {"": 1.0}),
        Part(PartKind.METRICS, "m", {"x" * 65: 1.0}),
        Part(PartKind.METRICS, "m", {"x": 1 << 63}),
        Part(PartKind.METRICS, "m", {"x": [0, -(1 << 64)]}),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_whole_reply_and_that_is_recorded(
    part: Part,
) -> None:
    site = Site()
    gate = site.gate()
    for _ in range(2):
        with pytest.raises(DataError):
            gate.release(exchange(), [arrays(), part])
    assert kinds(site) == ["policy", "exchange"]
    assert {
        (one["outcome"], one["policy"], one["size_bytes"], one["digest"])
        for one in last_body(site)["parts"]
    } == {("withheld", "refused: data", 0, "")}


@pytest.mark.parametrize("value", [np.array([1.0, np.nan, 1.0]), np.ones(4)])
def test_what_a_trusted_trainer_spent_is_spent_also_where_its_reply_is_refused(value: Any) -> None:
    site = Site()
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(2), purpose="study")
    part = replace(private_arrays(reservation, 2), value={"w": value}, reference={"w": np.ones(3)})
    with pytest.raises(DataError):
        gate.release(exchange(), [part])
    assert gate.budget(PATIENTS).epsilon_spent == 1.0
    assert gate.budget(PATIENTS).opened
    assert kinds(site)[-3:] == ["ledger.opened", "ledger.committed", "exchange"]
    stranger = replace(part, trainer=AppDigest("sha256:other"))
    with pytest.raises(DataError):
        gate.release(exchange("e2"), [stranger])
    assert gate.budget(PATIENTS).epsilon_spent == 1.0


@pytest.mark.parametrize("dataset", [PATIENTS, ""])
def test_arrays_without_a_claim_stay_where_a_budget_is_and_leave_where_none_is(
    dataset: str,
) -> None:
    train = replace(open_policy().train, unclaimed=Rule.WITHHOLD)
    site = Site(policy=open_policy(train=train))
    gate = site.gate()
    with pytest.raises(PolicyRefused, match="carry no claim"):
        gate.release(exchange(dataset=dataset), [arrays()])
    assert last_body(site)["parts"][0]["policy"] == "refused: policy-refused"
    reservation = gate.reserve(PATIENTS, plan(1), purpose="study")
    assert isinstance(gate.release(exchange("e2"), [private_arrays(reservation)])[0], Released)
    free = Site(policy=open_policy(train=train, budgets={}))
    assert isinstance(free.gate().release(exchange(dataset=dataset), [arrays()])[0], Released)


def test_metrics_are_counted_over_the_whole_reply() -> None:
    gate = Site().gate()
    parts = [
        Part(PartKind.METRICS, f"m{n}", {f"x{n}.{k}": 0.5 for k in range(8)}) for n in range(8)
    ]
    assert all(isinstance(one, Released) for one in gate.release(exchange(), parts))
    with pytest.raises(PolicyRefused, match="65 metrics; at most 64"):
        gate.release(exchange("e2"), [*parts, Part(PartKind.METRICS, "none", {})])


def test_an_empty_reply_is_recorded() -> None:
    site = Site()
    assert site.gate().release(exchange(), []) == ()
    assert last_body(site)["parts"] == []


def test_a_reply_beyond_its_bounds_is_refused() -> None:
    train = replace(open_policy().train, max_reply_bytes=40)
    gate = Site(policy=open_policy(train=train), limits=GateLimits(max_parts=2)).gate()
    with pytest.raises(PolicyRefused, match="50 bytes; at most 40"):
        gate.release(exchange(), [arrays(), arrays()])
    with pytest.raises(PolicyRefused, match="3 parts; at most 2"):
        gate.release(exchange("e2"), [arrays()] * 3)
    with pytest.raises(PolicyRefused, match="note of 5000 bytes"):
        gate.release(exchange("e3"), [arrays()], note="x" * 5000)


def test_a_peer_cannot_fill_the_journal_with_what_it_cannot_read_back() -> None:
    site = Site()
    gate = site.gate()
    for name in ("exchange", "asker", "message_type", "run", "dataset"):
        long: dict[str, Any] = {name: "x" * 257}
        with pytest.raises(Malformed, match=name):
            gate.release(replace(exchange(), **long), [arrays()])
    with pytest.raises(Malformed, match="at most 16777216 are written"):
        gate.release(question(), [replace(passage(), collection="x" * 2**24)])
    assert site.gate().release(exchange(), [arrays()])


def test_a_listener_may_ask_the_gate_back() -> None:
    site = Site()
    gate = site.gate()
    heard: list[bool] = []

    def ask_back(event: object) -> None:
        del event
        heard.append(gate.budget(PATIENTS).opened)

    gate = Gate(SiteIdentity(FederationName("hospitals"), SITE), site.policy, gate._ports, ask_back)
    gate.release(exchange(), [arrays()])
    assert heard == [True]


@pytest.mark.parametrize(
    ("value", "leaves"),
    [
        (ValueError("patient Miller, 52"), "ValueError"),
        ("ZeroDivisionError", "ZeroDivisionError"),
        ("patient Miller, 52", "Error"),
        ({"text": "patient"}, "Error"),
    ],
)
def test_only_the_class_of_an_error_leaves(value: object, leaves: str) -> None:
    (outcome,) = Site().gate().release(exchange(), [Part(PartKind.ERROR, "error", value)])
    assert isinstance(outcome, Released)
    assert outcome.value == leaves


def test_an_identical_exchange_again_costs_nothing_and_gives_the_same() -> None:
    site = Site()
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(2), purpose="study")
    parts = [private_arrays(reservation, 2), Part(PartKind.SCORES, "s", [1.0])]
    first = gate.release(exchange(), parts)
    count = len(site.records())
    assert gate.release(exchange(), parts) == first
    restarted = site.gate().release(exchange(), parts)
    assert [type(outcome) for outcome in restarted] == [Released, Withheld]
    assert isinstance(restarted[0], Released)
    assert isinstance(first[0], Released)
    assert restarted[0].sequence == first[0].sequence
    assert len(site.records()) == count


def test_one_exchange_id_with_other_content_is_a_replay() -> None:
    site = Site()
    gate = site.gate()
    gate.release(exchange(), [arrays(1.0)])
    for changed, part in [
        (exchange(), arrays(2.0)),
        (exchange(asker="other"), arrays(1.0)),
        (exchange(round_number=5), arrays(1.0)),
    ]:
        with pytest.raises(Replay):
            gate.release(changed, [part])


def test_an_exchange_beyond_the_replay_window_costs_again() -> None:
    site = Site(limits=GateLimits(replay_window=1))
    gate = site.gate()
    gate.release(exchange("e1"), [arrays()])
    gate.release(exchange("e2"), [arrays()])
    count = len(site.records())
    gate.release(exchange("e1"), [arrays(2.0)])
    assert len(site.records()) == count + 1


def test_what_was_withheld_before_stays_withheld_when_asked_again_under_a_wider_policy() -> None:
    site = Site(policy=open_policy(rules={}))
    site.gate().release(exchange(), [Part(PartKind.METRICS, "m", {})])
    wider = Site(journal=site.journal, heads=site.heads)
    with pytest.raises(Replay):
        wider.gate().release(exchange(), [Part(PartKind.METRICS, "m", {})])


def noisy_policy(**budget: Any) -> SitePolicy:
    train = replace(open_policy().train, site_noise=SiteNoise(1.0, 2.0))
    return open_policy(train=train, budgets={PATIENTS: Budget(8.0, 1e-5, **budget)})


def far_arrays() -> Part:
    start: dict[str, Any] = {"w": np.zeros(4), "b": np.zeros(1, dtype=np.float32)}
    far: dict[str, Any] = {"w": np.full(4, 1e6), "b": np.full(1, 1e6, dtype=np.float32)}
    return Part(PartKind.ARRAYS, "model", far, reference=start)


def test_the_gates_own_noise_bounds_a_contribution_and_is_spent() -> None:
    site = Site(policy=noisy_policy(unit=Unit.SITE))
    gate = site.gate()
    (first,) = gate.release(exchange(), [far_arrays()])
    assert isinstance(first, Released)
    assert np.abs(first.value["w"]).max() < 25
    assert first.value["b"].dtype == np.float32
    assert kinds(site)[-4:] == [
        "ledger.reserved",
        "ledger.opened",
        "ledger.committed",
        "exchange",
    ]
    assert last_body(site)["parts"][0]["claim"] == "site"
    assert gate.budget(PATIENTS).epsilon_spent == 0.5
    assert gate.release(exchange(), [far_arrays()]) == (first,)
    with pytest.raises(Replay, match="noise"):
        site.gate().release(exchange(), [far_arrays()])


def test_the_gates_own_noise_uses_a_reservation_where_there_is_one() -> None:
    site = Site(policy=noisy_policy(unit=Unit.SITE))
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(1, site_event(SiteNoise(1.0, 2.0))), purpose="study")
    gate.release(exchange(), [replace(far_arrays(), reservation=reservation)])
    assert gate.budget(PATIENTS).epsilon_plan == 0.5
    with pytest.raises(BudgetExhausted):
        gate.release(exchange("e2"), [replace(far_arrays(), reservation=reservation)])


def test_the_gates_own_noise_needs_a_budget_for_sites_and_the_arrays_it_started_from() -> None:
    with pytest.raises(PolicyRefused, match="no budget that counts them"):
        Site(policy=noisy_policy()).gate().release(exchange(), [far_arrays()])
    with pytest.raises(PolicyRefused, match="needs the arrays"):
        Site(policy=noisy_policy(unit=Unit.SITE)).gate().release(exchange(), [arrays()])


def test_a_record_level_claim_stands_beside_the_gates_own_noise() -> None:
    site = Site(policy=noisy_policy())
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(1), purpose="study")
    part = replace(private_arrays(reservation), reference={"w": np.zeros(3)})
    (outcome,) = gate.release(exchange(), [part])
    assert isinstance(outcome, Released)
    assert not np.array_equal(outcome.value["w"], np.ones(3))
    assert last_body(site)["parts"][0]["claim"] == "record"


def test_a_collection_answers_its_askers_alone_and_says_nothing_else() -> None:
    gate = Site().gate()
    parts = [passage(), Part(PartKind.SCORES, "scores", [0.5]), Part(PartKind.COUNTS, "n", 3)]
    assert all(isinstance(out, Released) for out in gate.release(question("q1"), parts))
    stranger = gate.release(question("q2", asker="stranger"), parts)
    unknown = [replace(part, collection="no-such") for part in parts]
    assert {out.reason for out in stranger if isinstance(out, Withheld)} == {
        out.reason for out in gate.release(question("q3"), unknown) if isinstance(out, Withheld)
    }


@pytest.mark.parametrize(
    ("level", "leaving"),
    [
        (ReleaseLevel.NOTHING, []),
        (ReleaseLevel.COUNTS, ["n"]),
        (ReleaseLevel.ANSWER_ONLY, ["n", "scores"]),
        (ReleaseLevel.SENTENCES, ["n", "scores", "p1"]),
        (ReleaseLevel.PASSAGES, ["n", "scores", "p1"]),
    ],
)
def test_a_release_level_lets_out_what_it_names_and_no_more(
    level: ReleaseLevel, leaving: list[str]
) -> None:
    name = CollectionName("guidelines")
    terms = CollectionPolicy(name, level, frozenset({"*"}), max_sentences_per_passage=2)
    gate = Site(policy=open_policy(collections={name: terms})).gate()
    parts = [Part(PartKind.COUNTS, "n", 3), Part(PartKind.SCORES, "scores", [0.5]), passage()]
    outcomes = gate.release(question(), parts)
    left = [
        part.name for part, out in zip(parts, outcomes, strict=True) if isinstance(out, Released)
    ]
    assert left == leaving
    if level is ReleaseLevel.SENTENCES:
        assert isinstance(outcomes[2], Released)
        assert (outcomes[2].value.text, outcomes[2].value.end) == ("One. Two.", 9)


def test_passages_are_counted_by_question_and_by_day_over_restarts() -> None:
    site = Site()
    first = site.gate().release(question("q1"), [passage(1), passage(2), passage(3)])
    assert [type(out) for out in first] == [Released, Released, Withheld]
    second = site.gate().release(question("q2"), [passage(1), passage(2)])
    assert [type(out) for out in second] == [Released, Withheld]
    assert isinstance(second[1], Withheld)
    assert second[1].policy == "collections.guidelines.max_passages_per_day = 3"
    site.clock.now_s -= 86_400
    (back,) = site.gate().release(question("q3"), [passage()])
    assert isinstance(back, Withheld), "a clock that is set back opens no new day"
    site.clock.now_s += 2 * 86_400
    forward = site.gate().release(question("q4"), [passage(1), passage(2)])
    assert [type(out) for out in forward] == [Released, Released]
    (third, fourth) = site.gate().release(question("q5"), [passage(3), passage(4)])
    assert [type(out) for out in (third, fourth)] == [Released, Withheld]
    site.clock.now_s += 86_400
    again = site.gate().release(question("q5"), [passage(3), passage(4)])
    assert [type(out) for out in again] == [Released, Withheld], "asked again on another day"


def test_a_part_with_more_passages_than_a_question_may_have_stays_whole() -> None:
    several = replace(passage(), value=[passage(n).value for n in range(3)])
    (outcome,) = Site().gate().release(question(), [several])
    assert isinstance(outcome, Withheld)
    two = replace(passage(), value=(passage(1).value, passage(2).value))
    (outcome,) = Site().gate().release(question(), [two])
    assert isinstance(outcome, Released)
    with pytest.raises(DataError, match="is no passage"):
        Site().gate().release(question(), [replace(passage(), value="text")])


def test_the_policy_is_recorded_when_it_changed_with_what_it_switches_off() -> None:
    site = Site(policy=SitePolicy())
    site.gate()
    site.gate()
    assert kinds(site) == ["policy"]
    assert last_body(site)["protections_off"] == []
    Site(journal=site.journal, heads=site.heads).gate()
    assert "train.arrays = plain" in last_body(site)["protections_off"]


def test_a_reservation_is_told_and_freed_only_while_nothing_of_it_left() -> None:
    site = Site()
    gate = site.gate()
    one = gate.reserve(PATIENTS, plan(4), purpose="study")
    two = gate.reserve(PATIENTS, plan(4), purpose="study")
    assert isinstance(site.events[1], PlanReserved)
    assert site.events[1].epsilon == 2.0
    gate.release(exchange(), [private_arrays(one)])
    gate.free(two)
    with pytest.raises(WrongStage, match="it stays spent"):
        gate.free(one)
    assert gate.budget(PATIENTS).epsilon_plan == 2.0
    with pytest.raises(BudgetExhausted, match="covers 0"):
        gate.release(exchange("e2"), [private_arrays(two)])


def test_a_rename_carries_the_spend_and_two_names_over_one_source_are_refused() -> None:
    old, new = DatasetName("old"), DatasetName("new")
    site = Site(policy=open_policy(budgets={old: Budget(8, 1e-5)}))
    gate = site.gate()
    gate.bind_dataset(old, "sha256:1")
    count = len(site.records())
    gate.bind_dataset(old, "sha256:1")
    assert len(site.records()) == count
    gate.reserve(old, plan(4), purpose="study")
    with pytest.raises(PolicyRefused, match="data sets old and new have one source"):
        gate.bind_dataset(new, "sha256:1")
    renamed = replace(site, policy=open_policy(budgets={new: Budget(8, 1e-5)}))
    gate = renamed.gate()
    gate.bind_dataset(new, "sha256:1")
    assert gate.budget(new).epsilon_plan == 2.0
    gate.bind_dataset(DatasetName("third"), "sha256:4")
    with pytest.raises(PolicyRefused, match="the name third stands for other data"):
        gate.bind_dataset(DatasetName("third"), "sha256:1")


def test_the_simulation_door_lets_everything_pass_without_a_journal() -> None:
    outcomes = UnsafeSimulationGate().release(exchange(), [arrays(float("nan"))], note="x")
    assert [outcome.sequence for outcome in outcomes if isinstance(outcome, Released)] == [0]


def test_every_refusal_is_an_error_that_names_a_way_out_across_a_boundary() -> None:
    gate = Site().gate()
    with pytest.raises(ComityError) as caught:
        gate.budget(DatasetName("nobody"))
    assert caught.value.public == "refused by policy"
    assert "budgets.nobody" in caught.value.hint
