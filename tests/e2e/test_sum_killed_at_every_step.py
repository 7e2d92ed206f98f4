"""kill -9 between any two steps of announce, upload and reveal: one reveal a round, all spent."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.gate_site import PATIENTS
from tests.fakes.lasting_sum_site import closed, lasting
from tests.fakes.sum_sites import COORDINATOR_IDENTITY, RUN, Federation, federation, mean_of

from comity.core.secagg.codec import decode, encode
from comity.core.secagg.messages import RevealRequest, reveal_message
from comity.errors import ComityError
from comity.services.sum_epoch import Epoch

ROOT = Path(__file__).parents[2]
STEPS = 21
"""Three messages of seven steps: journal, head and place, each before and after, and the exit."""


def run_child(folder: Path, step: int) -> tuple[int, list[tuple[str, str]]]:
    child = Path(__file__).with_name("sum_crash_child.py")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(child), str(folder), str(step)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line.partition(" ") for line in done.stdout.splitlines()]
    return done.returncode, [(word, rest) for word, _, rest in lines]


def said(lines: list[tuple[str, str]], stage: str) -> list[bytes]:
    return [bytes.fromhex(rest) for word, rest in lines if word == stage]


def reveals_of(four: Federation, body: bytes) -> set[bytes]:
    """All answers that a coordinator gets which asks for these survivors and for others."""
    request = decode(RevealRequest, body)
    fewer = replace(request, survivors=request.survivors[:3], shares=request.shares[:2])
    fewer = replace(fewer, signature=COORDINATOR_IDENTITY.sign(reveal_message(fewer)))
    answers = set()
    for asked in (encode(fewer), body, encode(fewer), body):
        try:
            answers.add(four.carrier.ask("reveal", "site-1", asked))
        except ComityError:
            continue
    return answers


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_site_killed_at_any_step_reveals_once_counts_all_and_goes_on(
    tmp_path: Path, step: int
) -> None:
    status, lines = run_child(tmp_path / "state", step)
    assert status == -9
    site = lasting(tmp_path / "state", start=10_000)
    four = federation(sites=[site])
    four.carrier.numbers[0] = 10_000
    answers = set(said(lines, "revealed"))
    for body in said(lines, "reveal"):
        answers |= reveals_of(four, body)
    assert len(answers) <= 1
    spent, uploads = site.gate.budget(PATIENTS).epsilon_spent, len(said(lines, "invited"))
    assert 0.5 * uploads <= spent <= 0.5
    # The old epoch's keys are the other sites' no more: all announce a new one, and sum.
    four.run._round = 9
    four.run._epoch = Epoch.begin(four.run.coordinator, RUN, (2, 10), four.carrier, hybrid=False)
    found = four.sum()
    assert list(found.result.survivors) == list(four.sites)
    assert found.weight == mean_of(list(four.sites))[2]
    assert site.gate.budget(PATIENTS).epsilon_spent == spent + 0.5
    closed(site)


def test_the_child_reaches_its_end_after_all_steps(tmp_path: Path) -> None:
    status, lines = run_child(tmp_path / "state", STEPS + 1)
    assert (status, lines[-1][0]) == (0, "done")
    assert len(said(lines, "revealed")) == 1
    passed = [rest for word, rest in lines if word == "passed"][-7:]
    assert passed == [
        "before commit",
        "after commit",
        "before keep",
        "after keep",
        "before place",
        "after place",
        "before revealed leaves",
    ]
