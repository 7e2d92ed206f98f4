"""The local engine as a whole: real worker processes beside threads, apps that misbehave."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes.legacy_app import write_legacy_app

from comity.adapters.flower.app_file import read_app
from comity.adapters.flower.engine import EngineSettings, RunOutcome, run_app
from comity.adapters.flower.site_engine import SimulatedSite
from comity.errors import ConfigError, UnavailableError
from comity.events import Event, SiteDropped
from comity.ids import SiteName
from comity.services.gate import UnsafeSimulationGate

CREWS = ("threads", "processes")

PROJECT = """
[project]
name = "misbehaving"
version = "1.0.0"
dependencies = ["flwr>=1.41"]
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "misbehaving.server:app"
clientapp = "misbehaving.client:app"
[tool.flwr.app.config]
rounds = 3
size = 2000
victim = 1
deed = "none"
timeout-s = 60.0
"""

CLIENT = """
import os, random, signal, sys, time
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
kept = {}

def misbehave(deed, calls):
    if deed == "raise":
        raise ValueError("a planted secret")
    if deed == "exit":
        sys.exit(3)
    if deed == "vanish" and calls == 1:
        os._exit(7)
    if deed == "killed" and calls == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "sleep":
        time.sleep(60)
    if deed == "detach":
        import subprocess
        with open(os.environ["COMITY_TEST_STRAYS"], "a") as file:
            print(subprocess.Popen(["sleep", "300"], start_new_session=True).pid, file=file)
    if deed == "daemon" and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(os.environ["COMITY_TEST_STRAYS"], "a") as file:
                print(os.getpid(), file=file)
            time.sleep(300)
        os._exit(0)
    if deed == "forge":
        import socket
        ours = socket.socket(fileno=os.dup(int(sys.argv[1])))
        ours.send(b'i{"call": 1, "content": []}')
        time.sleep(60)

@app.train()
def train(msg, context):
    arrays = msg.content["arrays"].to_numpy_ndarrays()
    calls = context.state["seen"]["calls"] + 1 if "seen" in context.state else 1
    context.state["seen"] = MetricRecord({"calls": calls})
    context.state["last"] = ArrayRecord({"x": Array(arrays[0])})
    if context.node_config["partition-id"] == context.run_config["victim"]:
        misbehave(context.run_config["deed"], msg.content["config"]["server-round"])
    arrays = [a + np.random.rand() + random.random() for a in arrays]
    weight = 10 + context.node_config["partition-id"]
    metrics = MetricRecord({"num-examples": weight, "calls": calls})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=msg)

@app.evaluate()
def evaluate(msg, context):
    metrics = MetricRecord({"num-examples": 1, "noise": float(np.random.rand())})
    return Message(RecordDict({"m": metrics}), reply_to=msg)

@app.query("hoard")
def hoard(msg, context):
    # keeps what it was lent, and shows later whether it is still what it was
    seen = kept.get("arrays")
    kept.setdefault("arrays", msg.content["arrays"])
    value = float(kept["arrays"]["x"].numpy()[0])
    return Message(RecordDict({"m": MetricRecord({"first": value})}), reply_to=msg)
"""

SERVER = """
import random
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

@app.main()
def main(grid, context):
    config = context.run_config
    if config["deed"] == "hoard":
        return hoard(grid, context)
    strategy = FedAvg(fraction_train=0.75, min_train_nodes=2)
    if config["deed"] != "none":
        strategy = FedAvg()
    start = ArrayRecord([np.zeros(config["size"]), np.ones((3, 4), dtype=np.float32)])
    result = strategy.start(grid, start, num_rounds=config["rounds"], timeout=config["timeout-s"])
    context.state["arrays"] = result.arrays
    metrics = result.train_metrics_clientapp
    context.state["calls"] = MetricRecord({"mean": [metrics[k]["calls"] for k in sorted(metrics)]})

def hoard(grid, context):
    (first, *_) = grid.get_node_ids()
    values = []
    for number in range(3):
        content = RecordDict({"arrays": ArrayRecord({"x": Array(np.full(50_000, float(number)))})})
        (reply,) = grid.send_and_receive([Message(content, first, "query.hoard")])
        values.append(reply.content["m"]["first"])
    context.state["hoard"] = MetricRecord({"values": values})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "app" / "misbehaving"
    package.mkdir(parents=True)
    (tmp_path / "app" / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text("")
    (package / "client.py").write_text(CLIENT)
    (package / "server.py").write_text(SERVER)
    return tmp_path / "app"


def ran(
    folder: Path, *overrides: str, sites: int = 4, events: list[Event] | None = None, **how: Any
) -> RunOutcome:
    own = [
        SimulatedSite(SiteName(f"site-{index}"), UnsafeSimulationGate()) for index in range(sites)
    ]
    told = events if events is not None else []
    return run_app(read_app(folder, overrides), own, EngineSettings(**how), told.append)


def bits(outcome: RunOutcome) -> str:
    arrays = outcome.arrays["arrays"].values()
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def children() -> set[int]:
    return {
        int(pid)
        for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    }


def test_equal_seeds_give_equal_bits_on_threads_and_in_any_number_of_processes(
    folder: Path,
) -> None:
    same = {bits(ran(folder, **how)) for how in ({"threads": True}, {"workers": 1}, {"workers": 3})}
    assert len(same) == 1
    assert bits(ran(folder, threads=True, seed=1)) not in same


def test_the_callers_own_generators_stand_where_they_stood(folder: Path) -> None:
    np.random.seed(7)  # noqa: NPY002 - the caller's own
    expected = np.random.RandomState(7).rand()
    ran(folder, threads=True)
    assert np.random.rand() == expected  # noqa: NPY002 - likewise


@pytest.mark.parametrize(
    ("deed", "error"),
    [
        ("raise", "ValueError"),
        ("exit", "SystemExit"),
        ("vanish", "WorkerLost"),
        ("killed", "WorkerLost"),
        ("forge", "Malformed"),
    ],
)
def test_a_site_that_fails_drops_out_under_its_errors_class_name_alone(
    folder: Path, deed: str, error: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = children()
    events: list[Event] = []
    outcome = ran(folder, f"deed='{deed}'", "rounds=2", workers=2, events=events)
    dropped = [event for event in events if isinstance(event, SiteDropped)]
    assert {event.site for event in dropped} == {"site-1"}
    assert {event.error for event in dropped} == {error}
    assert outcome.dropouts[error] == len(dropped) >= 1
    assert outcome.replies == 2 * 8 - len(dropped)
    assert children() == before
    if deed == "raise":
        assert "planted secret" not in capfd.readouterr().out


def test_sys_exit_on_a_thread_drops_the_site_and_the_run_goes_on(folder: Path) -> None:
    outcome = ran(folder, "deed='exit'", "rounds=2", threads=True)
    assert outcome.dropouts == {"SystemExit": 2}
    assert outcome.replies == 2 * 8 - 2


@pytest.mark.parametrize("crew", CREWS)
def test_state_persists_between_rounds_and_a_failed_call_leaves_no_trace(
    folder: Path, crew: str
) -> None:
    threads = crew == "threads"
    whole = ran(folder, "deed='stay'", threads=threads)
    assert whole.metrics["calls"]["mean"] == [1.0, 2.0, 3.0]
    failing = ran(folder, "deed='raise'", "victim=0", threads=threads)
    assert failing.metrics["calls"]["mean"] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("crew", CREWS)
def test_a_site_that_hangs_costs_the_timeout_and_not_the_run(folder: Path, crew: str) -> None:
    started = time.monotonic()
    deed = ("deed='sleep'", "victim=3", "rounds=1", "timeout-s=1.0")
    outcome = ran(folder, *deed, threads=crew == "threads")
    assert outcome.dropouts["TimeoutError"] >= 1
    assert outcome.replies >= 3
    assert time.monotonic() - started < 30


def test_a_site_that_hangs_takes_no_other_down_while_a_worker_idles(folder: Path) -> None:
    deed = ("deed='sleep'", "victim=0", "rounds=1", "timeout-s=4.0")
    outcome = ran(folder, *deed, workers=2)
    assert outcome.dropouts == {"TimeoutError": 1}
    assert outcome.replies == 3 + 4


@pytest.mark.parametrize("deed", ["detach", "daemon"])
def test_no_process_of_an_app_outlives_the_run(
    folder: Path, deed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strays = tmp_path / "strays"
    monkeypatch.setenv("COMITY_TEST_STRAYS", str(strays))
    own = subprocess.Popen(["sleep", "300"])
    ran(folder, f"deed='{deed}'", "rounds=2", workers=2)
    assert own.poll() is None, "what the caller started is the caller's"
    own.kill()
    own.wait()
    pids = set(map(int, strays.read_text().split()))
    assert len(pids) == 2
    assert gone(pids)


def test_what_an_app_keeps_of_a_message_stays_what_it_was(folder: Path) -> None:
    outcome = ran(folder, "deed='hoard'", workers=1, sites=1)
    assert outcome.metrics["hoard"]["values"] == [0.0, 0.0, 0.0]


def test_an_app_that_cannot_be_imported_is_one_error_and_no_process_stays(folder: Path) -> None:
    before = children()
    (folder / "misbehaving" / "client.py").write_text("import no_such_module\napp = 1\n")
    with pytest.raises(ConfigError, match=r"client\.py, line 1: ModuleNotFoundError"):
        ran(folder)
    assert children() == before


def test_an_app_whose_client_is_something_else_is_refused(folder: Path) -> None:
    (folder / "misbehaving" / "client.py").write_text("app = object()\n")
    with pytest.raises(ConfigError, match=r"misbehaving\.client:app is a object, not a ClientApp"):
        ran(folder, workers=1)


def test_workers_that_die_while_loading_end_the_run(folder: Path) -> None:
    (folder / "misbehaving" / "client.py").write_text("import os\nos._exit(9)\napp = 1\n")
    with pytest.raises(UnavailableError, match="ended with status 9"):
        ran(folder, workers=2)


def test_a_server_that_waits_for_more_sites_than_there_are_is_told_so(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"waits for more sites than this run has \(1\)"):
        ran(folder, "deed='stay'", sites=1, threads=True)


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    program = Path(sys.executable).with_name("comity")
    return subprocess.Popen(
        [program, "run", folder, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(pid: int, count: int) -> set[int]:
    for _ in range(200):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if len(found) >= count:
            return set(map(int, found))
        time.sleep(0.05)
    raise AssertionError("the workers did not start")


def gone(pids: set[int]) -> bool:
    for _ in range(200):
        if not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_killing_the_run_leaves_no_worker_behind(folder: Path) -> None:
    run = started(folder, "--workers", "2", "--run-config", "deed='sleep'")
    workers = workers_of(run.pid, 2)
    run.kill()
    run.communicate()
    assert gone(workers)


def test_ctrl_c_ends_the_run_with_130_and_leaves_no_worker_behind(folder: Path) -> None:
    run = started(folder, "--workers", "2", "--run-config", "deed='sleep'")
    workers = workers_of(run.pid, 2)
    time.sleep(1.0)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=20)
    assert run.returncode == 130
    assert "Traceback" not in err
    assert gone(workers)


def test_comity_run_prints_one_json_object_and_the_apps_own_output_elsewhere(folder: Path) -> None:
    run = started(folder, "--json", "--run-config", "rounds=1 size=10", "--seed", "3")
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    document = json.loads(out)
    assert (document["seed"], document["replies"]) == (3, 7)
    assert "everything they answer passes" in err


def test_the_environment_and_working_folder_are_the_callers(folder: Path, tmp_path: Path) -> None:
    server = folder / "misbehaving" / "server.py"
    server.write_text(
        "import os\n"
        "from flwr.serverapp import ServerApp\n"
        "app = ServerApp()\n"
        "@app.main()\n"
        "def main(grid, context):\n"
        "    print(os.getcwd(), os.environ['MARK'])\n"
    )
    run = subprocess.run(
        [Path(sys.executable).with_name("comity"), "run", "app"],
        cwd=tmp_path,
        env={**os.environ, "MARK": "planted"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [str(tmp_path), "planted"]


@pytest.mark.parametrize("how", ["--threads", "--workers=2"])
def test_an_older_app_that_asks_each_site_from_a_thread_of_its_own_runs_too(
    tmp_path: Path, how: str
) -> None:
    run = started(write_legacy_app(tmp_path), how, "--json")
    try:
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 0, err
    document = json.loads(out)
    assert (document["exchanges"], document["replies"], document["dropouts"]) == (24, 24, {})
