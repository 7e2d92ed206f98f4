from __future__ import annotations

import os

import numpy as np
import pytest

from comity.adapters.train.linear import LinearTrainer
from comity.core.privacy.event import Plan
from comity.errors import BudgetExhausted, ConfigError, WrongStage
from comity.ids import DatasetName, ReservationId, SiteName
from comity.ports import Table
from comity.services.train import Spread, comparison_row, rehearse, reserved_everywhere

DATASET = DatasetName("patients")


class Ledger:
    def __init__(self, *, full: bool = False, used: bool = False) -> None:
        self.full = full
        self.used = used
        self.held: list[ReservationId] = []

    def reserve(self, dataset: DatasetName, plan: Plan, *, purpose: str) -> ReservationId:
        assert (dataset, plan, purpose) == (DATASET, Plan(()), "train")
        if self.full:
            raise BudgetExhausted("nothing is left")
        self.held.append(ReservationId("r"))
        return ReservationId("r")

    def free(self, reservation: ReservationId) -> None:
        if self.used:
            raise WrongStage("something of it left")
        self.held.remove(reservation)


def test_all_sites_reserve_before_any_trains_and_a_finished_run_keeps_its_plans() -> None:
    gates = {SiteName("one"): Ledger(), SiteName("two"): Ledger()}
    with reserved_everywhere(gates, DATASET, Plan(()), purpose="train") as reserved:
        assert set(reserved) == set(gates)
    assert all(gate.held for gate in gates.values())


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ConfigError("x"), RuntimeError()])
def test_a_run_that_fails_gives_back_what_nothing_left_of(failure: BaseException) -> None:
    used, unused = Ledger(used=True), Ledger()
    with (
        pytest.raises(type(failure)),
        reserved_everywhere(
            {SiteName("one"): used, SiteName("two"): unused}, DATASET, Plan(()), purpose="train"
        ),
    ):
        raise failure
    assert used.held
    assert not unused.held


def test_one_refusal_gives_back_what_the_others_reserved() -> None:
    first, last = Ledger(), Ledger(full=True)
    with (
        pytest.raises(BudgetExhausted),
        reserved_everywhere(
            {SiteName("one"): first, SiteName("two"): last}, DATASET, Plan(()), purpose="train"
        ),
    ):
        pytest.fail("it ran")
    assert first.held == []


def test_a_spread_is_a_mean_and_a_sample_deviation() -> None:
    assert str(Spread((0.9, 0.8))) == "0.850 ± 0.071"
    assert Spread((0.9,)).deviation == 0


def test_a_row_holds_each_seed() -> None:
    row = comparison_row("federated", 2.0, [{"accuracy": 0.9, "auc": 1.0}])
    assert (row.name, row.epsilon, row.accuracy.mean, row.auc.values) == (
        "federated",
        2.0,
        0.9,
        (1.0,),
    )


def test_a_rehearsal_with_equal_sites_is_training_alone() -> None:
    class Bytes:
        def token(self, size: int) -> bytes:
            return os.urandom(size)

    table = Table(np.array([[1.0], [-1.0]]), np.array([1, 0]), ("a",), ("no", "yes"))
    trainer = LinearTrainer(1)
    alone = rehearse(trainer, [table], 3, Bytes())
    together = rehearse(trainer, [table, table], 3, Bytes())
    assert all(np.allclose(alone[name], together[name]) for name in alone)
