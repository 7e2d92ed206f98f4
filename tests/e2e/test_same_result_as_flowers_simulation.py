"""An app gives the same model on our local engine as in Flower's own simulation on Ray.

Flower's simulation seeds nothing and hands replies on as they arrive. A probe around the app, the
same on both engines, seeds each call, and puts replies into the sites' order before the strategy
sums them: then models and metrics are equal to the bit. Without the order, sums differ by rounding.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fakes.legacy_app import write_legacy_app

from comity.adapters.flower.worker_process import fixed_environment
from comity.cli.new import write_template

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
ENGINES = {"run_on_comity.py": sys.executable, "run_on_ray.py": str(PEERS)}
SITES, ROUNDS = 4, 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PEERS.exists(), reason="Flower with Ray is not installed: make peers"),
]

PROBE = """
import random, sys
import numpy as np
from flwr.app import ConfigRecord, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import Strategy
from my_app import client_app, server_app

client = ClientApp()
server = ServerApp()
IN_ORDER = True

def seed(number):
    random.seed(number)
    np.random.seed(number)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)

@client.train()
@client.evaluate()
def call(message, context):
    site = context.node_config["partition-id"]
    seed(1000 * message.content["config"]["server-round"] + site)
    reply = client_app.app(message, context)
    reply.content["probe"] = ConfigRecord({"site": site})
    return reply

@server.main()
def main(grid, context):
    results, start, send = [], Strategy.start, grid.send_and_receive
    def kept(self, *args, **kwargs):
        results.append(start(self, *args, **kwargs))
        return results[-1]
    def ordered(messages, *, timeout=None):
        replies = send(messages, timeout=timeout)
        assert len(replies) == len(list(grid.get_node_ids()))
        site = {id(reply): reply.content.pop("probe")["site"] for reply in replies}
        return sorted(replies, key=lambda reply: site[id(reply)]) if IN_ORDER else replies
    Strategy.start, grid.send_and_receive = kept, ordered
    seed(0)
    try:
        server_app.app(grid, context)
    finally:
        Strategy.start, grid.send_and_receive = start, send
    (result,) = results
    context.state["arrays"] = result.arrays
    for name in ("train_metrics_clientapp", "evaluate_metrics_clientapp"):
        rows = getattr(result, name).items()
        told = {f"{number} {key}": value for number, row in rows for key, value in row.items()}
        context.state[name] = MetricRecord(told)
"""


def probed(folder: Path, template: str, *, in_order: bool = True) -> Path:
    app = folder / "my-app"
    write_template(app, template)
    probe = PROBE if in_order else PROBE.replace("IN_ORDER = True", "IN_ORDER = False")
    (app / "my_app" / "probe.py").write_text(probe)
    project = app / "pyproject.toml"
    text = project.read_text()
    for part in ("server", "client"):
        assert f"my_app.{part}_app:app" in text
        text = text.replace(f"my_app.{part}_app:app", f"my_app.probe:{part}")
    project.write_text(text)
    return app


def results(app: Path) -> list[tuple[dict[str, NDArray[Any]], dict[str, Any]]]:
    """Final arrays and metrics of all rounds, from our engine and from Flower's."""
    found = []
    for script, python in ENGINES.items():
        saved = app.parent / f"{script}.npz"
        config = [f"rounds={ROUNDS}"]
        order = {"folder": str(app), "sites": SITES, "config": config, "arrays": str(saved)}
        done = subprocess.run(
            [python, ROOT / "benchmarks" / script, json.dumps(order)],
            env=fixed_environment(1) | {"FLWR_TELEMETRY_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=120,  # Flower's simulation waits for ever for an app that does not load
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(saved) as arrays:
            found.append((dict(arrays), json.loads(done.stdout.splitlines()[-1])["metrics"]))
    return found


@pytest.mark.parametrize("template", ["numpy", "sklearn", "torch"])
def test_a_quickstart_app_gives_the_same_bits(tmp_path: Path, template: str) -> None:
    (arrays, metrics), (peer_arrays, peer_metrics) = results(probed(tmp_path, template))
    assert len(metrics["evaluate_metrics_clientapp"]) == ROUNDS
    assert metrics == peer_metrics
    assert list(arrays) == list(peer_arrays)
    for name, array in arrays.items():
        assert np.ptp(array) > 0 or array.size == 1
        assert array.dtype == peer_arrays[name].dtype
        assert array.tobytes() == peer_arrays[name].tobytes()


def test_an_app_whose_replies_are_summed_as_they_arrive_differs_by_rounding_only(
    tmp_path: Path,
) -> None:
    (arrays, metrics), (peer_arrays, peer_metrics) = results(
        probed(tmp_path, "numpy", in_order=False)
    )
    # Float64 throughout; four terms in another order, three times over, and no step amplifies it.
    for name, array in arrays.items():
        np.testing.assert_allclose(array, peer_arrays[name], rtol=1e-12)
    for name, row in metrics.items():
        assert row == pytest.approx(peer_metrics[name], rel=1e-12)


def test_an_older_numpy_client_differs_by_rounding_only(tmp_path: Path) -> None:
    ((arrays, _), (peer_arrays, _)) = results(write_legacy_app(tmp_path))
    # Float64; older strategies sum replies as a set of threads gives them, here and there.
    np.testing.assert_allclose(arrays["weights"], peer_arrays["weights"], rtol=1e-12)
