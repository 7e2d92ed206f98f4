"""README and documentation: shell blocks run in order in one empty folder, Python blocks too.

``<!-- exit: N -->`` above a block says that its last command ends with N.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
BLOCK = re.compile(r"(?:<!-- exit: (\d+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)
PAGES = ["README.md", "docs/getting-started.md"]
BY_HAND = {"make check": "true", "make demo": "comity demo"}
"""Commands that a test stands in for: the test run is inside the one, the other would install."""


def run(kind: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for command, stand_in in BY_HAND.items():
        text = text.replace(command, stand_in)
    program = ["bash", "-euc", text] if kind == "sh" else [sys.executable, "-c", text]
    return subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("page", PAGES)
def test_the_page_s_blocks_run_in_order(page: str, tmp_path: Path) -> None:
    ran = 0
    for expected, kind, text in BLOCK.findall((ROOT / page).read_text("utf-8")):
        if kind not in {"sh", "python"}:
            continue
        done = run(kind, text, tmp_path)
        assert done.returncode == int(expected or 0), f"{text}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 3


def test_every_page_with_commands_is_run() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    with_commands = {
        path.relative_to(ROOT).as_posix()
        for path in pages
        if any(kind in {"sh", "python"} for _, kind, _ in BLOCK.findall(path.read_text("utf-8")))
    }
    assert with_commands == set(PAGES)


def shape(text: str) -> list[str]:
    """Lines with figures and rules made alike."""
    lines = [re.sub(r"\d+(\.\d+)?", "0", re.sub(r"─+", "-", line)) for line in text.splitlines()]
    return [" ".join(line.split()) for line in lines if line.strip()]


def test_the_readme_s_transcript_is_what_the_demonstration_prints(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    transcript = readme.split("<!-- transcript: comity demo -->\n```text\n")[1].split("```")[0]
    printed = shape(run("sh", "comity demo", tmp_path).stdout)
    told = shape(transcript)
    assert printed[: len(told)] == told


def test_the_readme_keeps_its_own_rules() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.split()) <= 350
    assert "make demo" in "\n".join(readme.splitlines()[:12])
