"""What `comity new` writes runs by the commands that it prints."""

from __future__ import annotations

import importlib.util
import re
import shlex
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
    done = comity(tmp_path, "run", "my-app", "--sites", "3")
    assert "Warning" not in done.stderr
    output = done.stdout
    rounds = [
        float(found) for found in re.findall(r"^round \d+: accuracy (.*)$", output, re.MULTILINE)
    ]
    assert len(rounds) >= 5
    assert rounds[-1] >= accuracy
    assert rounds[-1] >= rounds[0]


def test_the_ask_template_answers_by_the_commands_that_it_prints(tmp_path: Path) -> None:
    printed = comity(tmp_path, "new", "wind", "--template", "ask").stdout
    commands = [shlex.split(line) for line in printed.splitlines() if line.startswith("  comity ")]
    checked, answered = (comity(tmp_path, *command[1:]).stdout for command in commands)
    assert checked == "OK  wind/federation.toml: federation wind of 2 sites\n"
    assert "every 20,000 operating hours" in answered
    assert "north, Gearbox maintenance (handbook/gearbox.md)" in answered
    assert "Contracts with suppliers are confidential." in answered


def test_the_ask_template_s_readme_asks_questions_that_are_answered(tmp_path: Path) -> None:
    comity(tmp_path, "new", "wind", "--template", "ask")
    readme = (tmp_path / "wind" / "README.md").read_text()
    commands = [shlex.split(line) for line in readme.splitlines() if line.startswith("    comity ")]
    outputs = [comity(tmp_path, *command[1:]).stdout for command in commands]
    assert len(outputs) == 4
    assert "more than 100 kA" in outputs[2]
    assert "Collection contracts" in outputs[3]
