"""The wheel, installed where no source is near, holds all it needs and passes the quick tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "hatchling",
            "build",
            "--target",
            "wheel",
            "--directory",
            str(folder),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_types_templates_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "comity/py.typed",
        "comity/templates/hospitals/questions.json",
        "comity/templates/hospitals/northgate/site.toml",
        "comity/templates/diagnosis/pyproject.toml",
        "comity/templates/numpy/pyproject.toml",
    ):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith("tests") or ".pyc" in name]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_tests_pass_against_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """The wheel shadows the checkout: a target folder in front, and a copy of the tests alone."""
    target = tmp_path / "installed"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not here")
    subprocess.run(
        [uv, "pip", "install", "-q", "--no-deps", "--target", str(target), str(wheel)],
        check=True,
        capture_output=True,
    )
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    located = subprocess.run(
        [sys.executable, "-c", "import comity; print(comity.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert located.stdout.startswith(str(target))
    folders = [f"tests/{name}" for name in ("unit", "laws", "vectors", "contracts", "attacks")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "not slow", *folders],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
