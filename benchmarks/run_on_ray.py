"""Runs a Flower app once in Flower's own simulation, the way `flwr run` does there.

.venv-peers/bin/python benchmarks/run_on_ray.py '{"folder": ..., "sites": ..., "config": [...]}'

The peers' environment (make peers) holds what this file imports: Flower with Ray. An app comes as
it is, by its folder. Each core gets one of Ray's actors; Flower's default is two cores for one.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.common.config import get_fused_config_from_dir
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.simulation.run_simulation import _run_simulation
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.telemetry import EventType


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Carries out one order; times are readings of the machine's monotonic clock, in seconds."""
    overrides = tomllib.loads("\n".join(order.get("config", ())))
    started = time.monotonic()
    state = simulate(Path(order["folder"]), order["sites"], overrides)
    ended = time.monotonic()
    arrays = {
        name: {key: array.numpy() for key, array in record.items()}
        for name, record in state.items()
        if isinstance(record, ArrayRecord)
    }["arrays"]
    if out := order.get("arrays"):
        np.savez(out, **arrays)  # type: ignore[arg-type]  # keys are names of arrays
    return {
        "metrics": {n: dict(r) for n, r in state.items() if isinstance(r, MetricRecord)},
        "started": started,
        "ended": ended,
        "mean": float(np.mean([float(array.mean()) for array in arrays.values()])),
    }


def simulate(folder: Path, sites: int, overrides: dict[str, Any]) -> RecordDict:
    """What `flwr.simulation.app` does once its SuperLink has handed it an app; the state."""
    app = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["tool"]["flwr"]["app"]
    number, task = secrets.randbits(63), secrets.randbits(63)
    run = Run.create_empty(run_id=number)
    run.primary_task_id, run.federation_id = task, NOOP_FEDERATION_ID
    run.override_config = overrides
    TaskIdentity.task_id, TaskIdentity.run_id = task, number
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    config = get_fused_config_from_dir(folder, overrides)
    done = _run_simulation(
        num_supernodes=sites,
        exit_event=EventType.FLWR_SIMULATION_RUN_LEAVE,
        server_app_attr=app["components"]["serverapp"],
        client_app_attr=app["components"]["clientapp"],
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        app_dir=str(folder),
        is_app=True,
        run=run,
        server_app_context=Context(number, SUPERLINK_NODE_ID, {}, RecordDict(), config),
    )
    return done.context.state


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
