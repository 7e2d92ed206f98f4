"""An app answers whatever it likes: what its site's policy keeps does not get out another way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from tests.fakes.gate_site import PATIENTS, SITE, STEP, TRAINER, Site, exchange, open_policy, plan

from comity.adapters.flower.calls import AppError, AppFailure, Outcome
from comity.adapters.flower.private_names import APP_RAISED, enter_run
from comity.adapters.flower.site_engine import (
    SPENDS_RECORD,
    Outgoing,
    SimulatedSite,
    send_out,
    spends_record,
)
from comity.core.chain.canonical import decode
from comity.core.policy.rule import PartKind, Rule, SitePolicy, TrainPolicy
from comity.core.privacy.event import Spend
from comity.ids import AppDigest
from comity.services.gate import Gate, UnsafeSimulationGate

SECRET = "patient Miller, 52"
NUMBER = int.from_bytes(SECRET.encode(), "big")
STRANGER = AppDigest("sha256:" + "b" * 64)
WITHHOLDING = dict.fromkeys([("train", kind) for kind in PartKind], Rule.WITHHOLD)
DENY = SitePolicy(TrainPolicy(WITHHOLDING), open_policy().budgets)
STAYS = "error of train stay at this site by its policy"
OPEN = open_policy(
    {("train", PartKind.ARRAYS): Rule.PLAIN, ("train", PartKind.METRICS): Rule.PLAIN}
)


def started(policy: SitePolicy) -> tuple[Site, Gate]:
    site = Site(policy=policy)
    return site, site.gate()


def asked() -> Message:
    enter_run(1)
    return Message(RecordDict({"a": model(np.zeros(3))}), 2, "train")


def model(value: Any, name: str = "w") -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(value))})


def npy(header: bytes, version: bytes = b"\x01\x00") -> RecordDict:
    data = b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + bytes(24)
    return RecordDict({"a": ArrayRecord({"w": Array("float64", (3,), "numpy.ndarray", data)})})


def metrics(values: dict[str, Any], name: str = "m") -> RecordDict:
    return RecordDict({name: MetricRecord(values)})


def answered(outcome: Outcome, site: Site, gate: Gate, **changes: Any) -> Outgoing:
    own = SimulatedSite(SITE, gate, site.policy, PATIENTS)
    app = changes.pop("app", STRANGER)
    return send_out(replace(own, **changes), exchange(), asked(), outcome, app)


def last_parts(site: Site) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = decode(site.records()[-1].body)["parts"]  # type: ignore[assignment]
    return parts


ERRORS: dict[str, tuple[Outcome, str]] = {
    "a record as the code of an error": (AppError(NUMBER, "x"), "AppError"),
    "a record as the text of an error": (AppError(2, SECRET), "AppError"),
    "a record as the name of an exception": (AppFailure("PatientMiller52"), "AppRaised"),
    "an exception whose name moves the cursor": (AppFailure("\x1b[2Jx"), "AppRaised"),
    "a process that ends itself": (AppFailure("WorkerLost", crashed=True), "WorkerLost"),
}


@pytest.mark.parametrize("attack", ERRORS)
def test_an_error_says_one_thing_whatever_the_app_put_into_it(attack: str) -> None:
    outcome, failure = ERRORS[attack]
    site, gate = started(DENY)
    out = answered(outcome, site, gate)
    assert out.content == Error(APP_RAISED, STAYS)
    assert out.failure == failure
    (part,) = last_parts(site)
    assert (part["kind"], part["outcome"]) == ("error", "withheld")


@pytest.mark.parametrize("name", ["ValueError", "\x1b[2Jx", "x" * 50_000_000])
def test_an_error_rule_that_is_plain_lets_a_class_name_out_and_nothing_else(name: str) -> None:
    site, gate = started(open_policy())
    out = answered(AppFailure(name), site, gate)
    known = name if name == "ValueError" else "Error"
    assert (out.content, out.failure) == (Error(APP_RAISED, known), known)


def test_a_simulated_site_of_ones_own_shows_class_names_that_are_names() -> None:
    own = SimulatedSite(SITE, UnsafeSimulationGate())
    out = send_out(own, exchange(), asked(), AppFailure("\x1b[2Jx"), STRANGER)
    assert (out.content, out.failure) == (Error(APP_RAISED, "Error"), "Error")


REPLIES: dict[str, tuple[RecordDict, str]] = {
    "records under a name of its own": (
        RecordDict({"stolen": model(np.ones((9, 9)), SECRET)}),
        "DataError",
    ),
    "records under a name of the round, in another shape": (
        RecordDict({"a": model(np.ones((9, 9)))}),
        "DataError",
    ),
    "a record as the name of a model": (RecordDict({SECRET: model(np.zeros(3))}), "DataError"),
    "a NaN as a signal": (RecordDict({"a": model(np.full(3, np.nan))}), "DataError"),
    "a record as the name of a metric": (metrics({SECRET: 1.0}), "DataError"),
    "a record as the name of metrics": (metrics({"loss": 1.0}, SECRET), "DataError"),
    "a record as one large number": (metrics({"loss": NUMBER}), "DataError"),
    "a table as metrics": (metrics({f"x{n}": 0.5 for n in range(65)}), "PolicyRefused"),
    "a table as the names of empty metrics": (
        RecordDict({f"x{n}": MetricRecord({}) for n in range(65)}),
        "PolicyRefused",
    ),
    "an array header that does not end": (npy(b"{'descr': ("), "Malformed"),
    "an array header of nothing": (npy(b""), "Malformed"),
    "an array header of zero bytes": (npy(bytes(64)), "Malformed"),
    "an array header that nests without end": (npy(b"(" * 9000), "Malformed"),
    "an array without end": (
        npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,)}" % 2**200),
        "Malformed",
    ),
    "an array beyond its bytes": (
        npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (4,)}"),
        "Malformed",
    ),
    "an array of objects": (
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}"),
        "Malformed",
    ),
    "an array in another format": (npy(bytes(64), b"\x02\x00"), "Malformed"),
}


@pytest.mark.parametrize("attack", REPLIES)
def test_a_reply_is_refused_recorded_and_costs_its_own_site_alone(
    attack: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, failure = REPLIES[attack]
    site, gate = started(OPEN)
    out = answered(content, site, gate)
    assert (out.content, out.failure) == (Error(APP_RAISED, STAYS), failure)
    assert {part["outcome"] for part in last_parts(site)} == {"withheld"}
    assert {part["policy"].partition(":")[0] for part in last_parts(site)} == {"refused"}
    assert "gave no reply" in capfd.readouterr().err


@pytest.mark.parametrize("attack", REPLIES)
def test_where_nothing_may_leave_a_bad_reply_looks_like_a_good_one(attack: str) -> None:
    site, gate = started(DENY)
    out = answered(REPLIES[attack][0], site, gate)
    assert (out.content, out.failure) == (RecordDict(), "")
    assert {part["outcome"] for part in last_parts(site)} == {"withheld"}


@pytest.mark.parametrize(
    "attack",
    [name for name, (_, failure) in REPLIES.items() if failure == "Malformed"],
)
def test_bytes_that_do_not_decode_are_a_dropout_also_without_a_policy(attack: str) -> None:
    own = SimulatedSite(SITE, UnsafeSimulationGate())
    out = send_out(own, exchange(), asked(), REPLIES[attack][0], STRANGER)
    assert out.failure == "Malformed"


def test_every_record_as_a_model_stays_where_the_data_set_has_a_budget() -> None:
    train = replace(OPEN.train, unclaimed=Rule.WITHHOLD)
    site, gate = started(replace(OPEN, train=train))
    out = answered(RecordDict({"a": model(np.ones(3))}), site, gate)
    assert (out.content, out.failure) == (Error(APP_RAISED, STAYS), "PolicyRefused")
    site, gate = started(OPEN)
    assert not answered(RecordDict({"a": model(np.ones(3))}), site, gate).failure


def private(value: Any, *spends: Spend, **records: Any) -> RecordDict:
    arrays = {} if value is None else {"a": model(value)}
    return RecordDict({**arrays, **records, SPENDS_RECORD: spends_record(spends)})


STATED: dict[str, RecordDict] = {
    "an overflow": private([np.inf, 0.0, 0.0], Spend(STEP, 2)),
    "another shape": private([0.0], Spend(STEP, 2)),
    "no arrays": private(None, Spend(STEP, 2), m=MetricRecord({"loss": 0.5})),
    "bytes that do not decode": RecordDict(
        {**npy(b""), SPENDS_RECORD: spends_record((Spend(STEP, 2),))}
    ),
    "more metrics than may leave": private(
        [0.0] * 3, Spend(STEP, 2), m=MetricRecord({f"x{n}": 0.5 for n in range(65)})
    ),
}


@pytest.mark.parametrize("case", STATED)
def test_a_private_reply_that_is_refused_has_cost_what_it_states(case: str) -> None:
    site, gate = started(OPEN)
    reservation = gate.reserve(PATIENTS, plan(2), purpose="study")
    out = answered(STATED[case], site, gate, app=TRAINER, reservation=reservation)
    assert out.content == Error(APP_RAISED, STAYS)
    assert gate.budget(PATIENTS).epsilon_spent == 1.0
    assert site.records()[-1].kind == "exchange"


def test_a_private_reply_without_a_reservation_is_refused_and_never_a_bare_release() -> None:
    site, gate = started(OPEN)
    out = answered(private([0.0] * 3, Spend(STEP)), site, gate, app=TRAINER)
    assert out.failure == "PolicyRefused"


def test_an_answer_of_nothing_is_recorded() -> None:
    site, gate = started(OPEN)
    assert answered(RecordDict(), site, gate).content == RecordDict()
    assert site.records()[-1].kind == "exchange"
    assert last_parts(site) == []


def test_configuration_that_states_a_cost_is_not_let_out_by_any_rule() -> None:
    policy = open_policy()
    site, gate = started(policy)
    spends = ConfigRecord({"spends": SECRET})
    out = answered(RecordDict({SPENDS_RECORD: spends}), site, gate)
    assert out.content == RecordDict()
