"""A run that cannot start, or dies before anything left, gives its budget back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import comity
from comity.adapters.flower.app import app_digest
from comity.errors import ComityError, ConfigError

TEMPLATES = Path(comity.__file__).parent / "templates"
PLAN = comity.training_plan(rounds=20, steps_per_round=3, sampling_rate="0.5", noise_multiplier="7")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(TEMPLATES / "diagnosis", tmp_path / "app")
    (tmp_path / "records.csv").write_text("x,y\n1,2\n")
    (tmp_path / "site.toml").write_text(
        f"""name = "a"
[datasets.patients]
path = "records.csv"
records = 100
[budgets.patients]
epsilon = 3.0
delta = 1e-5
[train]
trusted-trainers = ["{app_digest(tmp_path / "app")}"]
[train.rules.train]
arrays = "plain"
"""
    )
    (tmp_path / "federation.toml").write_text(
        'name = "f"\n[train]\nmin-sites = 1\n[[sites]]\nname = "a"\nfile = "site.toml"\n'
    )
    return tmp_path


def held(federation: comity.Federation) -> float:
    return federation._sites[0].gate.budget("patients").epsilon_plan  # type: ignore[arg-type]


def test_an_app_that_is_not_there_reserves_nothing(folder: Path) -> None:
    with comity.Federation.local(folder / "federation.toml") as federation:
        with pytest.raises(ConfigError, match="not a folder"):
            federation.train(folder / "nonexistent", plan=PLAN)
        with pytest.raises(ConfigError, match="has no data set"):
            federation.train(folder / "app", dataset="other", plan=PLAN)
        assert held(federation) == 0
        assert not any("reserved" in line for line in federation.audit("a"))


def test_an_app_that_fails_before_anything_left_gives_its_plan_back(folder: Path) -> None:
    with comity.Federation.local(folder / "federation.toml") as federation:
        with pytest.raises(ComityError):  # its records are not what the app wants
            federation.train(folder / "app", plan=PLAN)
        assert held(federation) == 0
        assert any("back, unused" in line for line in federation.audit("a"))
