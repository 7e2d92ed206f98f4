"""Times whole rounds of one Flower app on the `local` engine, plain and with secure sums.

python benchmarks/secure_round.py '{"folder": ..., "sites": ..., "config": [...], "secure": true}'
carries out one order; `secagg.py` asks for the comparison.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.adapters.flower.engine import EngineSettings
from comity.bootstrap import RunOptions, run_flower_app
from comity.events import Event, ExchangeFinished, SumOpened
from comity.services.sum_plan import SumSettings
from engine_runs import HERE, Engine, FaultyRunError, Timings, Work, measure

SITES: Final = 16
OVER_PLAIN: Final = 1.5
AGREEMENT: Final = 1e-4
_PLAIN, _SECURE = "plain", "secure"
_PEER: Final = "Comity without secure sums"


def secure_rounds(size: int, *, rounds: int, repeats: int) -> list[dict[str, Any]]:
    """A whole secure round beside a plain one of the same app, as fields of a `secagg.Row`.

    Args:
        size: Numbers in the app's arrays together.
        rounds: Rounds of a run; the first, in which keys are announced, is told by itself.
        repeats: Runs of each kind, in turn.

    Raises:
        FaultyRunError: A run failed, a site was missing, or the final models differ.
    """
    config = [f"rounds={rounds}", f"numbers={size}"]
    order = {"folder": str(HERE / "apps" / "summed"), "sites": SITES, "config": config}
    work = Work(f"{SITES} sites x {size:.0e}, local engine", order, rounds, SITES)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, f"{name}.npz") for name in (_PLAIN, _SECURE)}
        engines = [
            Engine(name, Path(__file__).name, {"secure": name == _SECURE, "arrays": str(file)})
            for name, file in files.items()
        ]
        found = measure(work, engines, repeats)
        _agree(work, *(_arrays(file) for file in files.values()))
    return list(_rows(work, found))


def _rows(work: Work, found: Mapping[str, Timings]) -> Iterator[dict[str, Any]]:
    secure, plain = found[_SECURE], found[_PLAIN]
    for metric, told in (
        ("rounds", "a whole secure round, wall"),
        ("first", "start and first round with its keys, wall"),
    ):
        ratio = secure.ratio(plain, metric)
        is_goal = metric == "rounds"
        yield {
            "work": work.name,
            "metric": told,
            "unit": "s",
            "comity": secure.median(metric),
            "peer": _PEER,
            "peer_version": importlib.metadata.version("comity"),
            "peer_value": plain.median(metric),
            "ratio": ratio,
            "goal": f"<= {OVER_PLAIN}x a plain round" if is_goal else None,
            "met": ratio >= 1 / OVER_PLAIN if is_goal else None,
        }


def _arrays(file: Path) -> dict[str, NDArray[Any]]:
    with np.load(file) as kept:
        return dict(kept)


def _agree(work: Work, plain: dict[str, NDArray[Any]], secure: dict[str, NDArray[Any]]) -> None:
    """The final models are the same, up to what a sum in a ring rounds away."""
    if plain.keys() != secure.keys():
        raise FaultyRunError(f"{work.name}: other arrays came out of secure sums")
    apart = max(float(np.max(np.abs(plain[name] - secure[name]))) for name in plain)
    if not apart <= AGREEMENT:
        raise FaultyRunError(f"{work.name}: final models are {apart:.2g} apart")


class _Replies:
    """Notes how many sites each round's mean is of."""

    def __init__(self, *, secure: bool) -> None:
        self._secure = secure
        self.counts: list[int] = []

    def __call__(self, event: Event) -> None:
        if self._secure and isinstance(event, SumOpened):
            self.counts.append(event.sites)
        elif not self._secure and isinstance(event, ExchangeFinished):
            self.counts.append(event.asked - event.dropouts)


def run(order: Mapping[str, Any]) -> dict[str, Any]:
    """Carries out one order; times are readings of the machine's monotonic clock, in seconds."""
    secure = bool(order["secure"])
    replies = _Replies(secure=secure)
    asked = RunOptions(order["config"], secure=SumSettings() if secure else None)
    started = time.monotonic()
    outcome = run_flower_app(
        Path(order["folder"]), order["sites"], EngineSettings(), asked, replies
    )
    arrays = outcome.arrays["arrays"]
    np.savez(order["arrays"], **dict(arrays))  # type: ignore[arg-type]  # keys are names of arrays
    rounds = {**outcome.metrics["rounds"], "replies": replies.counts}
    mean = float(np.mean([float(array.mean()) for array in arrays.values()]))
    return {"metrics": {"rounds": rounds}, "started": started, "mean": mean}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
