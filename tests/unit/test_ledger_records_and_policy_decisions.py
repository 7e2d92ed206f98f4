"""Ledger records that do not fit, privacy events as records, and decisions of a policy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.fakes.gate_site import PATIENTS, STEP, open_policy, plan

from comity.core.policy.decide import decide_reply, policy_record, protections_off
from comity.core.policy.redact import first_sentences
from comity.core.policy.rule import (
    Budget,
    PartKind,
    Rule,
    SiteNoise,
    SitePolicy,
    TrainPolicy,
)
from comity.core.privacy.event import Mechanism, Plan, PrivacyEvent, Sampling, Spend
from comity.core.privacy.ledger import (
    Bound,
    Freed,
    LedgerState,
    Reserved,
    ledger_event,
    ledger_record,
)
from comity.errors import ConfigError, PolicyRefused, Verification, VersionMismatch, WrongStage
from comity.ids import DatasetName, ReservationId

RESERVED = Reserved(ReservationId("r1"), PATIENTS, plan(2), "8.0", "1e-05", "4.0", "plan", "a 1")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"schema_version": 2}, VersionMismatch),
        ({"reservation": 1}, Verification),
        ({"plan": "all"}, Verification),
        ({"plan": [1]}, Verification),
        ({"plan": [{**STEP.as_record()}]}, Verification),
        ({"plan": [{**STEP.as_record(), "count": 0}]}, ConfigError),
        ({"plan": [{**STEP.as_record(), "count": 1, "schema_version": 2}]}, ConfigError),
    ],
)
def test_a_ledger_record_that_does_not_fit_is_refused(
    changes: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        ledger_event(Reserved.kind, {**ledger_record(RESERVED), **changes})


def test_records_of_other_kinds_are_not_the_ledgers() -> None:
    assert ledger_event("exchange", {}) is None
    with pytest.raises(VersionMismatch, match=r"ledger\.merged"):
        ledger_event("ledger.merged", {"schema_version": 1})


def test_a_reservation_is_made_once_and_must_exist() -> None:
    state = LedgerState().after(RESERVED)
    with pytest.raises(WrongStage, match="exists already"):
        state.after(RESERVED)
    with pytest.raises(WrongStage, match="no reservation r2"):
        state.after(Freed(ReservationId("r2")))


def test_a_name_keeps_to_its_account_through_renames() -> None:
    old, new = DatasetName("old"), DatasetName("new")
    state = LedgerState().after(Bound(old, "s1")).after(Bound(new, "s1"))
    state = state.after(Reserved(ReservationId("r"), new, plan(1), "8", "1e-5", "4", "plan", "a"))
    assert state.account(old) == state.account(new)
    assert state.after(Bound(new, "s2")).account(new).reserved == plan(1)
    other = state.after(Bound(DatasetName("other"), "s3"))
    with pytest.raises(PolicyRefused, match="its source was used as other"):
        other.after(Bound(old, "s3"))


@pytest.mark.parametrize(
    "changes",
    [
        {"parameter": "0"},
        {"parameter": "NaN"},
        {"parameter": "loud"},
        {"sampling_rate": "0"},
        {"sampling_rate": "1.5"},
        {"sampling": Sampling.NONE, "sampling_rate": "0.5"},
    ],
)
def test_a_privacy_event_with_an_impossible_figure_is_refused(changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "mechanism": Mechanism.GAUSSIAN,
        "parameter": "1",
        "sampling": Sampling.POISSON,
        "sampling_rate": "0.1",
    }
    with pytest.raises(ConfigError):
        PrivacyEvent(**{**fields, **changes})


def test_a_privacy_event_reads_back_and_an_unknown_field_value_is_refused() -> None:
    assert PrivacyEvent.from_record(STEP.as_record()) == STEP
    with pytest.raises(ConfigError, match="does not parse"):
        PrivacyEvent.from_record({**STEP.as_record(), "mechanism": "magic"})
    with pytest.raises(ConfigError, match="does not parse"):
        PrivacyEvent.from_record({"schema_version": 1})
    with pytest.raises(ConfigError, match="count"):
        Spend(STEP, 0)
    assert Plan.of([Spend(STEP, 1), Spend(STEP, 2)]) == plan(1) + plan(2) == plan(3)


def test_rules_fall_back_from_message_type_to_category_to_the_safe_default() -> None:
    policy = TrainPolicy(
        {
            ("query.describe", PartKind.METRICS): Rule.PLAIN,
            ("query", PartKind.METRICS): Rule.SUM,
        }
    )
    kinds = {
        ("query.describe", PartKind.METRICS): True,
        ("query.other", PartKind.METRICS): False,
        ("train", PartKind.ARRAYS): False,
        ("train", PartKind.CONFIG): False,
        ("other", PartKind.ARRAYS): False,
    }
    for (message_type, kind), allowed in kinds.items():
        assert decide_reply(policy, message_type, kind).allowed is allowed
    assert "secure sum" in decide_reply(policy, "query.other", PartKind.METRICS).reason
    assert "stay at this site" in decide_reply(policy, "train", PartKind.CONFIG).reason


def test_a_policys_record_tells_policies_apart_and_names_what_is_off() -> None:
    noisy = TrainPolicy(site_noise=SiteNoise(1.0, 2.0))
    policies = [
        SitePolicy(),
        open_policy(),
        SitePolicy(noisy),
        SitePolicy(TrainPolicy(max_reply_bytes=1)),
        SitePolicy(TrainPolicy(max_metrics=1)),
        SitePolicy(TrainPolicy(unclaimed=Rule.PLAIN)),
    ]
    records = [str(policy_record(policy)) for policy in policies]
    assert len(set(records)) == len(records)
    assert protections_off(SitePolicy()) == ()
    assert protections_off(open_policy())[0] == "train.arrays = plain"
    assert protections_off(policies[-1]) == ("unclaimed = plain",)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TrainPolicy(unclaimed=Rule.SUM), "unclaimed"),
        (lambda: SiteNoise(0, 1), "clip_norm"),
        (lambda: SiteNoise(1, math.inf), "noise_multiplier"),
        (lambda: Budget(0, 1e-5), "epsilon"),
        (lambda: Budget(1, 1), "delta"),
        (lambda: Budget(1, 1e-5, filter_order=1), "filter_order"),
    ],
)
def test_an_impossible_budget_or_noise_is_refused_by_name(make: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make()


@pytest.mark.parametrize(
    ("text", "limit", "left"),
    [
        ("One. Two! Three? Four.", 2, "One. Two!"),
        ("One. Two.", 3, "One. Two."),
        ('He said "stop." Then left.', 1, 'He said "stop."'),
        ("A heading\n\nA sentence. Another.", 1, "A heading"),
        ("2.5 mg daily. More.", 1, "2.5 mg daily."),
        ("no end", 1, "no end"),
        ("", 1, ""),
    ],
)
def test_no_more_sentences_leave_than_allowed(text: str, limit: int, left: str) -> None:
    assert first_sentences(text, limit) == left
