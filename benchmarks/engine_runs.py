"""Carries out runs for the engine benchmark, each in a fresh process, and refuses a faulty one."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from comity.adapters.flower.worker_process import fixed_environment

HERE: Final = Path(__file__).parent
PEERS: Final = HERE.parent / ".venv-peers" / "bin" / "python"
TIMEOUT_S: Final = 240.0
_NOTHING_SENT_HOME: Final = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run the same work.

    Attributes:
        name: For people.
        script: The file in this folder that runs it once.
        options: What is added to each order.
    """

    name: str
    script: str = "run_on_comity.py"
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def python(self) -> str:
        """The interpreter that runs it."""
        return str(PEERS) if self.script == "run_on_ray.py" else sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """What it starts under; ours as `comity run` sets it for itself."""
        if self.script == "run_on_ray.py":
            return dict(os.environ) | _NOTHING_SENT_HOME
        return fixed_environment(threads_per_call=1)


@dataclass(frozen=True, slots=True)
class Work:
    """What every engine does.

    Attributes:
        name: For people.
        order: What the scripts are told.
        rounds: How many rounds.
        asked: Usable replies that each round must have.
    """

    name: str
    order: Mapping[str, Any]
    rounds: int
    asked: int


@dataclass(slots=True)
class Timings:
    """What the runs of one engine took, in seconds, one value a run.

    Attributes:
        rounds: The median over all rounds but the first.
        first: From the call that starts a run to the end of its first round.
        command: The same from the start of Python.
        whole: From the start of Python to the end of the last round.
        replies: Usable replies, all of those that were asked for.
        mean: Mean of all final values.
    """

    rounds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    command: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    replies: int = 0
    mean: float = 0.0

    def median(self, metric: str) -> float:
        """The median of one of the above."""
        return float(statistics.median(getattr(self, metric)))

    def ratio(self, peer: Timings, metric: str) -> float:
        """How many times as long the peer takes: the median over runs that stood side by side."""
        pairs = zip(getattr(self, metric), getattr(peer, metric), strict=True)
        return float(statistics.median(theirs / ours for ours, theirs in pairs))


class FaultyRunError(Exception):
    """A run failed, or gave something else than it was asked for: its times mean nothing."""


def measure(work: Work, engines: Sequence[Engine], repeats: int) -> dict[str, Timings]:
    """Runs `work` on each engine in turn, `repeats` times over.

    Raises:
        FaultyRunError: A run failed, a reply was missing or an error, or engines disagree.
    """
    found = {engine.name: Timings() for engine in engines}
    for repeat in range(repeats):
        for engine in engines:
            print(f"{work.name}: {engine.name}, {repeat + 1} of {repeats}", file=sys.stderr)
            started, result = _carried_out(engine, {**work.order, **engine.options})
            _add(found[engine.name], work, started, result)
    return found


def _carried_out(engine: Engine, order: Mapping[str, Any]) -> tuple[float, dict[str, Any]]:
    started = time.monotonic()
    done = subprocess.run(
        [engine.python, str(HERE / engine.script), json.dumps(order)],
        env=engine.environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise FaultyRunError(f"{engine.name} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return started, result


def _add(timings: Timings, work: Work, started: float, result: dict[str, Any]) -> None:
    rounds = result["metrics"]["rounds"]
    if rounds["replies"] != [work.asked] * work.rounds:
        raise FaultyRunError(f"{work.name}: {work.asked} replies a round, not {rounds['replies']}")
    losses = rounds.get("losses", [])
    if losses and not losses[-1] < losses[0]:
        raise FaultyRunError(f"{work.name}: the loss went from {losses[0]} to {losses[-1]}")
    ends = rounds["ends"]
    lengths = [end - begin for begin, end in itertools.pairwise(ends[1:])]
    timings.rounds.append(statistics.median(lengths))
    timings.first.append(ends[1] - result["started"])
    timings.command.append(ends[1] - started)
    timings.whole.append(ends[-1] - started)
    timings.replies += sum(rounds["replies"])
    timings.mean = result["mean"]
