"""`comity secagg`: what it says follows from the protocol, and its members' folders are safe."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comity.cli.secagg import command
from comity.errors import ComityError, ConfigError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("sites", "colluders", "honest", "threshold"),
    [(3, 0, 2, 3), (4, 0, 2, 3), (5, 1, 2, 4), (8, 1, 3, 6), (16, 3, 3, 11), (100, 24, 3, 64)],
)
def test_the_plan_follows_the_protocol_s_threshold(
    sites: int, colluders: int, honest: int, threshold: int
) -> None:
    result = run("plan", "--sites", sites, "--json")
    found = json.loads(result.output)
    assert (found["colluders"], found["honest"]) == (colluders, honest)
    assert (found["threshold"], found["tolerated"]) == (threshold, sites - threshold)


def test_it_says_in_words_what_an_administrator_has_to_judge() -> None:
    words = " ".join(run("plan", "--sites", 16).output.split())
    assert "11 sites must answer before a sum opens. 5 of them may drop out" in words
    assert "If the coordinator and 3 sites lie together" in words
    assert "A site sends 4.00 MB a round; in the clear it would be 4.00 MB." in words
    assert "No sum can overflow" in words
    half = " ".join(run("plan", "--sites", 16, "--ring", 16).output.split())
    assert "A site sends 2.00 MB a round" in half
    strict = " ".join(run("plan", "--sites", 4, "--strict").output.split())
    assert "No site may drop out of a round." in strict


def test_a_site_s_own_terms_are_planned_by(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('name = "a"\n[train.secure-sums]\nmax-colluders = 5\nmin-honest = 4\n', "utf-8")
    found = json.loads(run("plan", "--sites", 16, "--site-policy", site, "--json").output)
    assert (found["colluders"], found["honest"], found["threshold"]) == (5, 4, 13)


@pytest.mark.parametrize("arguments", [("--sites", 2), ("--sites", 4, "--colluders", 3)])
def test_a_plan_that_no_round_can_keep_is_refused(arguments: tuple[object, ...]) -> None:
    result = run("plan", *arguments)
    assert isinstance(result.exception, ComityError)
    assert result.exception.hint


def test_members_folders_hold_their_own_key_only_and_are_not_overwritten(tmp_path: Path) -> None:
    result = run("members", "--sites", 3, "--out", tmp_path / "m", "--json")
    folders = [Path(place) for place in json.loads(result.output)["folders"]]
    assert [place.name for place in folders] == ["site-1", "site-2", "site-3", "coordinator"]
    keys = [place / "identity.key" for place in folders]
    assert len({key.read_bytes() for key in keys}) == 4
    for place, key in zip(folders, keys, strict=True):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = [key.read_bytes() for key in keys]
    again = run("members", "--sites", 3, "--out", tmp_path / "m")
    assert isinstance(again.exception, ConfigError)
    assert [key.read_bytes() for key in keys] == before
