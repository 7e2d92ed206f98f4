"""Runs a Flower app once as `comity run` does, and prints what came out as one JSON object.

python benchmarks/run_on_comity.py '{"folder": ..., "sites": ..., "config": [...], ...}'
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from comity.adapters.flower.engine import EngineSettings
from comity.bootstrap import RunOptions, run_flower_app


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Carries out one order; times are readings of the machine's monotonic clock, in seconds."""
    policy = order.get("policy")
    settings = EngineSettings(**order.get("settings", {}))
    started = time.monotonic()
    outcome = run_flower_app(
        Path(order["folder"]),
        order["sites"],
        settings,
        RunOptions(order.get("config", ()), Path(policy) if policy else None),
    )
    ended = time.monotonic()
    arrays = outcome.arrays["arrays"]
    if out := order.get("arrays"):
        np.savez(out, **dict(arrays))  # type: ignore[arg-type]  # keys are names of arrays
    return {
        "metrics": {name: dict(record) for name, record in outcome.metrics.items()},
        "started": started,
        "ended": ended,
        "dropouts": dict(outcome.dropouts),
        "mean": float(np.mean([float(array.mean()) for array in arrays.values()])),
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
