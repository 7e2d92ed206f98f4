"""An app of Flower's older style: `NumPyClient`, `client_fn`, a strategy that asks from threads."""

from __future__ import annotations

from pathlib import Path

_PROJECT = """
[project]
name = "older"
version = "1.0.0"
dependencies = ["flwr>=1.41"]
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "older.app:server"
clientapp = "older.app:client"
[tool.flwr.app.config]
rounds = 3
"""

_APP = """
import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp

class Client(NumPyClient):
    def __init__(self, site):
        self.x = np.random.default_rng(site).normal(size=(50 + 10 * site, 3))
        self.y = self.x @ np.array([1.0, -2.0, 3.0])

    def fit(self, parameters, config):
        (weights,) = parameters
        for _ in range(5):
            weights = weights - 0.1 * self.x.T @ (self.x @ weights - self.y) / len(self.x)
        return [weights], len(self.x), {}

    def evaluate(self, parameters, config):
        return float(np.mean((self.x @ parameters[0] - self.y) ** 2)), len(self.x), {}

def client_fn(context):
    return Client(context.node_config["partition-id"]).to_client()

def server_fn(context):
    def keep(number, parameters, config):
        context.state["arrays"] = ArrayRecord({"weights": Array(parameters[0])})
        return 0.0, {}

    everyone = dict.fromkeys(("min_fit_clients", "min_evaluate_clients"), 4)
    start = ndarrays_to_parameters([np.zeros(3)])
    strategy = FedAvg(
        initial_parameters=start, min_available_clients=4, evaluate_fn=keep, **everyone
    )
    config = ServerConfig(num_rounds=context.run_config["rounds"])
    return ServerAppComponents(strategy=strategy, config=config)

client = ClientApp(client_fn)
server = ServerApp(server_fn=server_fn)
"""


def write_legacy_app(folder: Path) -> Path:
    """Writes the app for four sites; `arrays` stay in its state, its rule is (1, -2, 3)."""
    package = folder / "older" / "older"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "app.py").write_text(_APP, encoding="utf-8")
    (folder / "older" / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
    return folder / "older"
