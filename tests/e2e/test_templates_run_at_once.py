"""What `comity new` writes runs by the commands that it prints."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

COMITY = Path(sys.executable).with_name("comity")


def comity(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMITY, *arguments], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("template", "needs", "accuracy"),
    [("numpy", "numpy", 0.9), ("sklearn", "sklearn", 0.88), ("torch", "torch", 0.95)],
)
def test_a_flower_template_runs_and_learns(
    tmp_path: Path, template: str, needs: str, accuracy: float
) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    printed = comity(tmp_path, "new", "my-app", "--template", template).stdout
    assert "comity run my-app --sites 4" in printed
    output = comity(tmp_path, "run", "my-app", "--sites", "3").stdout
    rounds = [
        float(found) for found in re.findall(r"^round \d+: accuracy (.*)$", output, re.MULTILINE)
    ]
    assert len(rounds) >= 5
    assert rounds[-1] >= accuracy
    assert rounds[-1] >= rounds[0]


def test_the_ask_template_is_a_federation_that_checks_and_explains_itself(tmp_path: Path) -> None:
    comity(tmp_path, "new", "wind", "--template", "ask")
    checked = comity(tmp_path, "config", "check", "wind/federation.toml").stdout
    assert checked == "OK  wind/federation.toml: federation wind of 2 sites\n"
    explained = comity(tmp_path, "config", "explain", "wind/north/site.toml").stdout
    assert "contracts" in explained
    assert "Contracts with suppliers are confidential." in explained
