"""kill -9 between any two steps of a gate: the ledger never says less than what left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes.gate_site import (
    PATIENTS,
    Site,
    UnsafeCountingRng,
    arrays,
    exchange,
    plan,
    private_arrays,
)

from comity.adapters.store.heads import FileHeadKeeper
from comity.adapters.store.journal import SqliteJournal
from comity.adapters.store.layout import state_layout
from comity.release import Released
from comity.services.gate import Gate

ROOT = Path(__file__).parents[2]
STEPS = 23
"""Five commits with a head each (policy, plan, three exchanges) of four steps, and three exits."""


def run_child(folder: Path, step: int) -> tuple[int, list[str]]:
    child = Path(__file__).with_name("gate_crash_child.py")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(child), str(folder), str(step)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def restarted(folder: Path) -> tuple[SqliteJournal, Gate]:
    layout = state_layout(folder)
    journal = SqliteJournal(layout.journal)
    heads = FileHeadKeeper(layout.head)
    return journal, Site(journal=journal, heads=heads, rng=UnsafeCountingRng(10_000)).gate()


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_gate_killed_at_any_step_starts_again_and_never_under_counts(
    tmp_path: Path, step: int
) -> None:
    status, lines = run_child(tmp_path / "state", step)
    assert status == -9
    left = lines.count("left")
    reserved = [line.split()[1] for line in lines if line.startswith("reserved ")]
    journal, gate = restarted(tmp_path / "state")
    state = gate.budget(PATIENTS)
    assert state.epsilon_spent >= 0.5 * left
    assert state.epsilon_spent <= 0.5 * (left + 1)
    assert state.epsilon_plan >= (2.0 if reserved else 0.0)
    assert not state.closed
    (outcome,) = gate.release(exchange("later"), [arrays()])
    assert isinstance(outcome, Released)
    journal.close()


def test_the_child_reaches_its_end_after_all_steps(tmp_path: Path) -> None:
    status, lines = run_child(tmp_path / "state", STEPS + 1)
    assert (status, lines[-1], lines.count("left")) == (0, "done", 3)


def test_an_exchange_that_was_cut_off_after_its_commit_is_answered_again_at_no_cost(
    tmp_path: Path,
) -> None:
    status, lines = run_child(tmp_path / "state", 10)
    assert (status, lines[-1]) == (-9, "passed before commit")
    (reservation,) = [line.split()[1] for line in lines if line.startswith("reserved ")]
    journal, gate = restarted(tmp_path / "state")
    assert gate.budget(PATIENTS).epsilon_spent == 0.5
    again = private_arrays(reservation)  # type: ignore[arg-type]  # a ReservationId as printed
    (outcome,) = gate.release(exchange("e0"), [again])
    assert isinstance(outcome, Released)
    assert gate.budget(PATIENTS).epsilon_spent == 0.5
    journal.close()


def test_a_plan_reserved_by_a_killed_process_still_counts(tmp_path: Path) -> None:
    run_child(tmp_path / "state", 6)
    journal, gate = restarted(tmp_path / "state")
    assert gate.budget(PATIENTS).epsilon_plan == 2.0
    gate.reserve(PATIENTS, plan(12), purpose="x")
    journal.close()
