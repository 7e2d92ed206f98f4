"""The benchmark runs, compares what it says it compares, and refuses a run with missing replies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEYS = {"work", "metric", "unit", "comity", "goal", "met", "ratio"} | {
    f"peer{field}" for field in ("", "_version", "_value")
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (ROOT / ".venv-peers" / "bin" / "python").exists(),
        reason="Flower with Ray is not installed: make peers",
    ),
]


def test_the_quick_benchmark_writes_whole_rows_of_runs_whose_replies_were_all_usable(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rows.json"
    script = ROOT / "benchmarks" / "local_engine.py"
    done = subprocess.run(
        [sys.executable, script, "--quick", "--json", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(file.read_text())
    assert all(row.keys() == KEYS for row in document["rows"])
    assert all(row["comity"] > 0 and row["peer_value"] > 0 for row in document["rows"])
    assert all((row["goal"] is None) == (row["met"] is None) for row in document["rows"])
    assert len(document["replies"]) == 9
    for run, count in document["replies"].items():
        assert count == (3 * 50 if "users" in run else 10 * 10)


@pytest.mark.parametrize("fault", ['return Message(Error(0, ""), reply_to=message)', "1 / 0"])
def test_a_run_whose_replies_are_errors_is_refused(tmp_path: Path, fault: str) -> None:
    app = tmp_path / "rounds" / "rounds_app"
    app.mkdir(parents=True)
    shipped = ROOT / "benchmarks" / "apps" / "rounds"
    (app.parent / "pyproject.toml").write_text((shipped / "pyproject.toml").read_text())
    for name in ("__init__.py", "client_app.py", "server_app.py"):
        (app / name).write_text((shipped / "rounds_app" / name).read_text())
    client = app / "client_app.py"
    step = "    step ="
    broken = f'    if context.node_config["partition-id"] == 3:\n        {fault}\n{step}'
    text = client.read_text().replace(step, broken)
    client.write_text(text.replace("import ArrayRecord", "import Error, ArrayRecord"))
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import engine_runs as e; "
        f"order = {{'folder': {str(app.parent)!r}, 'sites': 10, 'config': ['rounds=2']}}; "
        "e.measure(e.Work('w', order, 2, 10), [e.Engine('ours')], 1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "FaultyRunError: w: 10 replies a round, not [9, 9]" in done.stderr
