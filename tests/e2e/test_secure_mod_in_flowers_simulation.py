"""Secure sums as a mod and a strategy's wrapper, in Flower's own simulation on Ray."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from comity.adapters.flower.worker_process import fixed_environment
from comity.bootstrap.members import write_members

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
SITES, ROUNDS = 5, 3
WITHIN = 3e-5
"""Half a step (|x| <= 2, headroom 16) by a share of 700/2**16, which FedAdam enlarges fourfold."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PEERS.exists(), reason="Flower with Ray is not installed: make peers"),
]

PROJECT = """
[project]
name = "summed"
version = "1.0.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "summed_app:server"
clientapp = "summed_app:client"
[tool.flwr.app.config]
comity-members = ""
fails = -1
"""

APP = """
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAdam

SECURE = True
if SECURE:
    import comity

client = ClientApp(mods=[comity.secure_aggregation_mod] if SECURE else [])
server = ServerApp()

def site_of(context):
    return int(context.node_config["partition-id"])

@client.train()
def train(message, context):
    site = site_of(context)
    if site == context.run_config["fails"] and message.content["config"]["server-round"] == 2:
        raise ValueError("no data today")
    arrays = {}
    for name, array in message.content["arrays"].items():
        old = array.numpy()
        goal = np.cos(np.arange(old.size) + site).reshape(old.shape)
        arrays[name] = Array((old + 0.25 * (goal - old)).astype(old.dtype))
    metrics = MetricRecord({"num-examples": 500 + 100 * site, "loss": site / 5})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content, reply_to=message)

@client.evaluate()
def evaluate(message, context):
    site = site_of(context)
    total = sum(float(array.numpy().sum()) for array in message.content["arrays"].values())
    metrics = MetricRecord({"num-examples": 500 + 100 * site, "score": total / 8 + site})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)

@server.main()
def main(grid, context):
    # Flower's simulation adds its nodes while main runs already: wait for all of them.
    least = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
    strategy = FedAdam(eta=0.1, tau=0.1, **dict.fromkeys(least, SITES))
    if SECURE:
        strategy = comity.SecureAggregation(strategy, context.run_config["comity-members"])
    start = {"w": Array(np.linspace(-1, 1, 6)), "b": Array(np.full(2, 0.25, np.float32))}
    result = strategy.start(grid, ArrayRecord(start), num_rounds=ROUNDS)
    context.state["arrays"] = result.arrays
    for name in ("train_metrics_clientapp", "evaluate_metrics_clientapp"):
        rows = getattr(result, name).items()
        told = {f"{number} {key}": value for number, row in rows for key, value in row.items()}
        context.state[name] = MetricRecord(told)
"""

Found = tuple[dict[str, NDArray[Any]], dict[str, dict[str, float]]]


def on_ray(folder: Path, *, secure: bool, fails: int = -1) -> Found:
    """Final arrays and metrics of all rounds; members' folders are made for a secure run."""
    app = folder / ("secure" if secure else "plain")
    app.mkdir()
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "summed_app.py").write_text(
        APP.replace("SECURE = True", f"SECURE = {secure}; SITES, ROUNDS = {SITES}, {ROUNDS}")
    )
    config = [f"fails = {fails}"]
    if secure:
        write_members(folder / "members", SITES)
        config.append(f'comity-members = "{folder / "members"}"')
    saved = app / "arrays.npz"
    order = {"folder": str(app), "sites": SITES, "config": config, "arrays": str(saved)}
    done = subprocess.run(
        [PEERS, ROOT / "benchmarks" / "run_on_ray.py", json.dumps(order)],
        # The peers' environment lacks Comity, and has all that secure sums import.
        env=fixed_environment(1) | {"FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=120,  # Flower's simulation waits for ever for an app that does not load
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    with np.load(saved) as arrays:
        return dict(arrays), json.loads(done.stdout.splitlines()[-1])["metrics"]


def members_that_took_part(folder: Path) -> set[str]:
    return {
        place.parent.name for place in (folder / "members").glob("*/sums") if any(place.iterdir())
    }


@pytest.mark.parametrize("fails", [-1, 2])
def test_a_mod_and_a_wrapped_strategy_give_the_plain_result_to_quantisation(
    tmp_path: Path, fails: int
) -> None:
    (plain, plain_metrics), (arrays, metrics) = (
        on_ray(tmp_path, secure=secure, fails=fails) for secure in (False, True)
    )
    assert members_that_took_part(tmp_path) == {f"site-{n}" for n in range(1, SITES + 1)}
    assert list(arrays) == list(plain)
    for name, array in plain.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_allclose(arrays[name], array, rtol=0, atol=WITHIN)
    assert np.abs(plain["w"] - np.linspace(-1, 1, 6)).max() > 0.05
    assert {name: len(rows) for name, rows in metrics.items()} == {
        "train_metrics_clientapp": ROUNDS,
        "evaluate_metrics_clientapp": ROUNDS,
    }
    # Sites' losses are summed exactly; scores differ as the models do.
    for name, rows in plain_metrics.items():
        assert metrics[name] == pytest.approx(rows, rel=0, abs=WITHIN)
    losses = metrics["train_metrics_clientapp"]
    whole, rest = 16 / 35, 3.3 / 7
    assert losses["1 loss"] == pytest.approx(whole)
    assert losses["2 loss"] == pytest.approx(rest if fails == 2 else whole)
