from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from comity.cli.run import command
from comity.errors import (
    BudgetExhausted,
    CohortTooSmall,
    ConfigError,
    PolicyRefused,
    UnavailableError,
)

SERVER = """
import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
app = ServerApp()
@app.main()
def main(grid, context):
    start = ArrayRecord([np.zeros(context.run_config["size"])])
    result = FedAvg(fraction_evaluate=0.0).start(grid, start, num_rounds=2)
    context.state["arrays"] = result.arrays
"""
CLIENT = """
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    if context.run_config["fail"] and context.node_config["partition-id"] == 0:
        raise ValueError
    arrays = ArrayRecord([a + 1 for a in message.content["arrays"].to_numpy_ndarrays()])
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
"""
PROJECT = """
[project]
name = "small"
[tool.flwr.app.components]
serverapp = "small_run_app.server:app"
clientapp = "small_run_app.client:app"
[tool.flwr.app.config]
size = 4
fail = false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "small_run_app"
    package.mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text("")
    (package / "client.py").write_text(CLIENT)
    (package / "server.py").write_text(SERVER)
    return tmp_path


def run(*arguments: Any) -> Any:
    runner = CliRunner()
    return runner.invoke(command, [str(a) for a in arguments], catch_exceptions=True)


UNSAFE_THREADS = ("--threads", "--unsafe-threads-with-policy")


def test_help_shows_an_example() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "comity run ./quickstart-numpy" in result.output


def test_a_run_says_that_everything_passes_and_what_happened(folder: Path) -> None:
    result = run(folder, "--threads", "--sites", 2)
    assert result.exit_code == 0, result.output
    assert "No site policy" in result.stderr
    assert "exchange 1: train, 2 sites, " in result.stderr
    assert "2 exchanges" in result.stderr
    assert "4 replies (seed 0)" in result.stderr


def test_one_site_is_told_as_one(folder: Path) -> None:
    alone = SERVER.replace("=0.0", "=0.0, min_train_nodes=1, min_available_nodes=1")
    (folder / "small_run_app" / "server.py").write_text(alone)
    result = run(folder, "--threads", "--sites", 1)
    assert "exchange 1: train, 1 site, " in result.stderr


def test_dropouts_are_told(folder: Path) -> None:
    result = run(folder, "--threads", "--sites", 3, "--run-config", "fail=true")
    assert "site-1 dropped out: ValueError" in result.stderr
    assert "3 sites, 1 dropped out" in result.stderr
    assert "2 without a usable one" in result.stderr


def test_json_is_one_object(folder: Path) -> None:
    result = run(folder, "--parallel-threads", "--workers", 2, "--sites", 2, "--json")
    document = json.loads(result.stdout)
    assert document["arrays"] == {"arrays": {"0": [4]}}
    assert "metrics" not in document
    assert len(document["run"]) == 16
    assert (document["replies"], document["dropouts"]) == (4, {})


def test_a_policy_that_demands_a_sum_gets_one_or_refuses_where_the_sites_are_too_few(
    folder: Path,
) -> None:
    policy = folder / "site.toml"
    policy.write_text('name = "north"\n')
    result = run(folder, *UNSAFE_THREADS, "--site-policy", policy, "--json")
    assert json.loads(result.stdout)["replies"] == 8
    assert "No site policy" not in result.stderr
    result = run(folder, *UNSAFE_THREADS, "--site-policy", policy, "--sites", 2)
    assert isinstance(result.exception, CohortTooSmall)


@pytest.mark.parametrize("ring", [16, 32])
def test_secure_sums_what_the_sites_reply(
    folder: Path, ring: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(folder, "--threads", "--secure", "--ring", ring, "--json")
    assert json.loads(result.stdout)["replies"] == 8
    monkeypatch.setattr("comity.bootstrap.sums.with_sums", None)  # not even keys are made
    result = run(folder, "--threads", "--secure", "--sites", 2)
    assert isinstance(result.exception, CohortTooSmall)
    assert "ROUND" not in result.stderr  # refused before the app starts


def test_a_policy_that_lets_arrays_out_goes_through_each_sites_gate(folder: Path) -> None:
    policy = folder / "site.toml"
    policy.write_text('name = "north"\n[train.rules.train]\narrays = "plain"\nmetrics = "plain"\n')
    result = run(folder, *UNSAFE_THREADS, "--site-policy", policy, "--sites", 2, "--json")
    assert json.loads(result.stdout)["replies"] == 4


@pytest.mark.parametrize("option", ["--threads", "--parallel-threads"])
def test_threads_under_a_policy_are_refused_unless_spelled_out(folder: Path, option: str) -> None:
    policy = folder / "site.toml"
    policy.write_text('name = "north"\n')
    result = run(folder, option, "--site-policy", policy)
    assert isinstance(result.exception, ConfigError)
    assert "--unsafe-threads-with-policy" in result.exception.hint


def test_an_unknown_key_is_an_error_before_anything_runs(folder: Path) -> None:
    result = run(folder, "--run-config", "sizes=3")
    assert isinstance(result.exception, ConfigError)
    assert "did you mean size?" in str(result.exception.faults[0])


CLIENT_THAT_ONLY_SCORES = """
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    raise ValueError
@app.evaluate()
def evaluate(message, context):
    metrics = MetricRecord({"num-examples": 1, "accuracy": 1.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
"""


def test_a_run_that_trained_nothing_fails_although_sites_score(folder: Path) -> None:
    package = folder / "small_run_app"
    (package / "client.py").write_text(CLIENT_THAT_ONLY_SCORES)
    (package / "server.py").write_text(SERVER.replace("fraction_evaluate=0.0", ""))
    result = run(folder, "--threads", "--sites", 2)
    assert isinstance(result.exception, UnavailableError)
    assert "nothing was trained" in result.exception.message
    assert "ValueError (4)" in result.exception.message


NOISY = """
name = "north"
[datasets.patients]
path = "records.csv"
records = 50
[budgets.patients]
epsilon = 0.1
delta = 1e-5
unit = "site"
[train.rules.train]
arrays = "plain"
metrics = "plain"
[train.site-noise]
clip-norm = 1.0
noise-multiplier = 1.0
"""


def test_a_budget_that_every_site_refuses_ends_the_run_before_more_rounds(folder: Path) -> None:
    policy = folder / "site.toml"
    policy.write_text(NOISY)
    (folder / "records.csv").write_text("a,b\n1,2\n")
    result = run(folder, "--site-policy", policy, "--sites", 2)
    assert isinstance(result.exception, BudgetExhausted)
    assert "every site refused: site-1, site-2: data set patients" in result.exception.message
    assert "of 0.1 at delta 1e-05" in result.exception.message
    assert result.exception.hint
    assert "exchange 2" not in result.stderr


def test_a_strategy_that_needs_what_is_withheld_is_refused_by_the_rule(folder: Path) -> None:
    policy = folder / "site.toml"
    policy.write_text('name = "north"\n[train.rules.train]\narrays = "plain"\nmetrics = "withhold"')
    result = run(folder, "--site-policy", policy, "--sites", 2)
    assert isinstance(result.exception, PolicyRefused)
    assert "train.metrics = withhold" in result.exception.message
    assert "[train.rules.train] metrics" in result.exception.hint
