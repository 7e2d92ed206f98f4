from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "python.md"
COMITY = Path(sys.executable).with_name("comity")


def test_the_python_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = re.search(r"After `comity (demo [^`]*)`", PAGE.read_text("utf-8"))
    assert said is not None
    subprocess.run([str(COMITY), "demo"], cwd=tmp_path, check=True, capture_output=True)
    for arguments in (["new", "my-federation", "--template", "ask"], said[1].split()):
        subprocess.run([str(COMITY), *arguments], cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestParser().get_doctest(PAGE.read_text("utf-8"), {}, PAGE.name, None, 0)
    result = doctest.DocTestRunner().run(found)
    assert result.attempted > 10
    assert result.failed == 0
