# ruff: noqa: ARG005, ARG002 - apps take what Flower hands them
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.serverapp.strategy import FedAvg

from comity.adapters.flower.app import LoadedApp
from comity.adapters.flower.engine import EngineSettings, RunOutcome, run_app
from comity.adapters.flower.parts import SiteMean, client_app, server_app
from comity.adapters.flower.site_engine import (
    SPENDS_RECORD,
    SimulatedSite,
    read_spends,
    spends_record,
)
from comity.core.policy.rule import PartKind, Rule, SitePolicy, TrainPolicy
from comity.core.privacy.event import Mechanism, PrivacyEvent, Spend
from comity.errors import DataError, Malformed
from comity.ids import AppDigest, ReservationId, SiteName
from comity.ports import Arrays, Contribution, Exchange, Metrics, Rng, Table
from comity.release import Released, Withheld
from comity.services.gate import Part, UnsafeSimulationGate

SPENDS = (Spend(PrivacyEvent(Mechanism.DISCRETE_GAUSSIAN, "1.1"), 5),)
DIGEST = AppDigest("sha256:" + "0" * 64)


class FixedRng:
    def token(self, size: int) -> bytes:
        return b"\x07" * size


class Adding:
    """Adds the mean of its labels; claims privacy when it is told to."""

    def __init__(self, spends: tuple[Spend, ...] = ()) -> None:
        self.spends = spends

    def initial(self) -> Arrays:
        return {"w": np.zeros(2), "b": np.zeros(1, dtype=np.float32)}

    def fit(self, arrays: Arrays, data: Table, rng: Rng) -> Contribution:
        step = float(data.labels.mean()) + rng.token(1)[0] - 7
        moved = {name: array + np.asarray(step, array.dtype) for name, array in arrays.items()}
        return Contribution(moved, float(len(data.labels)), {"loss": step}, self.spends)

    def evaluate(self, arrays: Arrays, data: Table) -> Metrics:
        return {"accuracy": float(arrays["w"][0])}


def table(context: Context) -> Table:
    index = int(context.node_config["partition-id"])
    labels = np.full(index + 1, index, dtype=np.int64)
    return Table(np.zeros((index + 1, 1)), labels, ("x",), ("a", "b"))


class Recording(UnsafeSimulationGate):
    def __init__(self, withheld: PartKind | None = None) -> None:
        self.seen: list[Part] = []
        self.withheld = withheld

    def release(
        self, exchange: Exchange, parts: Any, *, note: str = ""
    ) -> tuple[Released[Any] | Withheld, ...]:
        self.seen.extend(parts)
        released = UnsafeSimulationGate().release(exchange, parts, note=note)
        train = exchange.message_type == "train"
        return tuple(
            Withheld("train.metrics = withhold", "stays")
            if train and p.kind is self.withheld
            else r
            for p, r in zip(parts, released, strict=True)
        )


def trained(
    trainer: Adding,
    *,
    trusted: bool = False,
    doors: list[Recording] | None = None,
    withhold: bool = False,
) -> RunOutcome:
    plain = {
        (kind, part): Rule.PLAIN
        for kind in ("train", "evaluate")
        for part in (PartKind.ARRAYS, PartKind.METRICS)
    }
    if withhold:
        plain["train", PartKind.METRICS] = Rule.WITHHOLD
    digests = frozenset({DIGEST}) if trusted else frozenset[AppDigest]()
    policy = SitePolicy(train=TrainPolicy(rules=plain, trusted_trainers=digests))
    sites = []
    for index in range(2):
        door = Recording(PartKind.METRICS if withhold else None)
        if doors is not None:
            doors.append(door)
        reservation = ReservationId("reserved")
        sites.append(
            SimulatedSite(SiteName(f"site-{index}"), door, policy, reservation=reservation)
        )
    app = LoadedApp(
        "trainer",
        server_app(lambda context: trainer, lambda context: 2),
        client_app(lambda context: trainer, table, FixedRng()),
        digest=DIGEST,
    )
    return run_app(app, sites, EngineSettings(threads=True))


def test_a_trainer_trains_and_evaluates_as_a_flower_app() -> None:
    outcome = trained(Adding())
    # two rounds of the weighted mean of steps 0 (one record) and 1 (two records)
    assert outcome.arrays["arrays"]["w"] == pytest.approx([4 / 3, 4 / 3])
    assert list(outcome.arrays["arrays"]) == ["w", "b"]
    assert outcome.metrics["train-metrics"]["loss"] == pytest.approx([2 / 3, 2 / 3])
    assert outcome.metrics["evaluate-metrics"]["accuracy"] == pytest.approx([2 / 3, 4 / 3])


def test_train_metrics_of_a_private_trainer_stay_and_its_claim_goes_to_the_gate_only() -> None:
    doors: list[Recording] = []
    outcome = trained(Adding(SPENDS), trusted=True, doors=doors)
    arrays = [part for part in doors[0].seen if part.kind is PartKind.ARRAYS]
    assert [part.spends for part in arrays] == [SPENDS, SPENDS]
    assert {part.reservation for part in arrays} == {"reserved"}
    assert all(part.reference is not None for part in arrays)
    assert {part.name for part in doors[0].seen} == {"arrays", "metrics"}
    assert "loss" not in outcome.metrics["train-metrics"]


def test_the_claim_of_a_trainer_that_the_site_does_not_trust_counts_for_nothing() -> None:
    doors: list[Recording] = []
    trained(Adding(SPENDS), trusted=False, doors=doors)
    assert {part.spends for part in doors[0].seen} == {()}
    assert SPENDS_RECORD not in {part.name for part in doors[0].seen}


def test_sites_that_keep_their_train_metrics_count_the_same_in_the_mean() -> None:
    outcome = trained(Adding(), withhold=True)
    assert outcome.arrays["arrays"]["w"] == pytest.approx([1.0, 1.0])
    assert outcome.metrics["train-metrics"] == {}


def test_the_site_mean_is_fedavg_where_every_weight_is_there() -> None:
    def reply(weight: float, value: float) -> FlowerMessage:
        from comity.adapters.flower.private_names import enter_run  # noqa: PLC0415 - ids only

        enter_run(1)
        content = RecordDict(
            {
                "arrays": ArrayRecord([np.full(2, value)]),
                "metrics": MetricRecord({"num-examples": weight}),
            }
        )
        return FlowerMessage(content, 2, "train")

    replies = [reply(1.0, 0.0), reply(3.0, 1.0)]
    mean, _ = SiteMean().aggregate_train(1, replies)
    expected, _ = FedAvg().aggregate_train(1, replies)
    assert mean is not None
    assert expected is not None
    assert mean["0"].data == expected["0"].data


def test_a_claim_is_read_as_it_was_written() -> None:
    assert read_spends(spends_record(SPENDS)) == SPENDS


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"count": 1}]', '[{"event": {}, "count": 1}]'])
def test_a_claim_that_does_not_parse_is_malformed(text: str) -> None:
    record = spends_record(SPENDS)
    record["spends"] = text
    if text == "{}":
        assert read_spends(record) == ()
        return
    with pytest.raises(Malformed):
        read_spends(record)


def test_a_message_without_arrays_is_an_error_of_that_site() -> None:
    app = client_app(lambda context: Adding(), table, FixedRng())
    context = Context(1, 2, {"partition-id": 0}, RecordDict(), {})
    from comity.adapters.flower.private_names import enter_run  # noqa: PLC0415 - ids only

    enter_run(1)
    with pytest.raises(Exception, match="no array record 'arrays'"):
        app(FlowerMessage(RecordDict(), 2, "train"), context)


@pytest.mark.parametrize(("most", "fits"), [(1, False), (2, True), (None, True)])
def test_a_table_larger_than_its_budget_stands_for_is_not_trained_on(
    most: int | None, *, fits: bool
) -> None:
    config = {"partition-id": 1, **({} if most is None else {"max-records": most})}
    sites = [SimulatedSite(SiteName("a"), UnsafeSimulationGate(), node_config=config)]
    trainer = Adding()
    app = client_app(lambda context: trainer, lambda context: TWO, FixedRng())
    context = Context(1, 1, dict(sites[0].node_config), RecordDict(), {})
    arrays = ArrayRecord({name: Array(array) for name, array in trainer.initial().items()})
    message = FlowerMessage(RecordDict({"arrays": arrays}), 1, "train")
    if fits:
        assert app(message, context).has_content()
        return
    with pytest.raises(DataError, match="holds 2 records, and its budget stands for at most 1"):
        app(message, context)


TWO = Table(np.zeros((2, 1)), np.array([0, 1]), ("x",), ("a", "b"))
