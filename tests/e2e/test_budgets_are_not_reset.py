"""Ways to get a budget back that must not work, or must not work in silence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import comity
from comity.adapters.store.sources import source_digests
from comity.config.site import load_site_file
from comity.errors import ConfigError, JournalBehind, PolicyRefused, UnavailableError
from comity.events import Event, JournalStarted
from comity.ids import DatasetName

PLAN = comity.training_plan(rounds=10, steps_per_round=1, sampling_rate="0.5", noise_multiplier="7")


def write(folder: Path, name: str = "patients", path: str = "records") -> Path:
    (folder / "site.toml").write_text(
        f"""name = "a"
[datasets.{name}]
path = "{path}"
format = "folder"
records = 1000
[budgets.{name}]
epsilon = 3.0
delta = 1e-5
"""
    )
    return folder / "federation.toml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.csv").write_text("x,y\n1,2\n")
    (tmp_path / "records" / "two.csv").write_text("x,y\n3,4\n")
    (tmp_path / "federation.toml").write_text(
        'name = "f"\n[train]\nmin-sites = 1\n[[sites]]\nname = "a"\nfile = "site.toml"\n'
    )
    write(tmp_path)
    return tmp_path


def spend(folder: Path, name: str = "patients") -> float:
    with comity.Federation.local(folder / "federation.toml") as federation:
        gate = federation._sites[0].gate
        gate.reserve(DatasetName(name), PLAN, purpose="x")
        return gate.budget(DatasetName(name)).epsilon_plan


def held(folder: Path, name: str) -> float:
    with comity.Federation.local(folder / "federation.toml") as federation:
        return federation._sites[0].gate.budget(DatasetName(name)).epsilon_plan


def test_a_fresh_journal_for_a_budget_is_told_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[Event] = []
    comity.Federation.local(folder / "federation.toml", heard.append).close()
    assert heard == [JournalStarted("a", ("patients",))]  # type: ignore[arg-type]
    comity.Federation.local(folder / "federation.toml", heard.append).close()
    assert len(heard) == 1
    shutil.rmtree(folder / "state")
    shutil.rmtree(folder / ".comity")
    comity.Federation.local(folder / "federation.toml").close()
    assert "a: began a fresh journal" in capsys.readouterr().err


def test_a_deleted_state_folder_is_noticed_by_the_head_kept_beside_the_federation_file(
    folder: Path,
) -> None:
    spend(folder)
    shutil.rmtree(folder / "state")
    with pytest.raises(JournalBehind, match="deleted or replaced") as caught:
        spend(folder)
    assert ".comity/heads/a.json" in caught.value.hint
    (folder / ".comity" / "heads" / "a.json").unlink()
    assert spend(folder) > 0


def test_an_old_copy_of_the_whole_state_folder_is_noticed(folder: Path) -> None:
    spend(folder)
    shutil.copytree(folder / "state", folder / "old")
    spend(folder)
    shutil.rmtree(folder / "state")
    (folder / "old").rename(folder / "state")
    for _ in range(2):  # opening again does not forget it
        with pytest.raises(JournalBehind, match="were cut off"):
            spend(folder)


def test_a_folder_that_keeps_no_heads_is_no_obstacle(folder: Path) -> None:
    (folder / ".comity").write_text("a file")
    assert spend(folder) > 0


def test_a_source_that_is_moved_and_renamed_keeps_its_spend(folder: Path) -> None:
    before = spend(folder)
    (folder / "records").rename(folder / "other")
    write(folder, "people", "other")
    assert held(folder, "people") == before


@pytest.mark.parametrize("make", [shutil.copy, os.link])
def test_a_copy_and_a_hard_link_under_a_new_name_carry_the_spend(
    folder: Path, make: object
) -> None:
    before = spend(folder)
    (folder / "other").mkdir()
    for file in ("one.csv", "two.csv"):
        make(folder / "records" / file, folder / "other" / f"new-{file}")  # type: ignore[operator]
    write(folder, "people", "other")
    assert held(folder, "people") == before


def test_one_content_under_two_names_with_a_budget_each_is_refused(folder: Path) -> None:
    shutil.copytree(folder / "records", folder / "other")
    text = (folder / "site.toml").read_text()
    more = text.split("\n", 1)[1].replace("patients", "people").replace('"records"', '"other"')
    (folder / "site.toml").write_text(text + more)
    with pytest.raises(PolicyRefused, match="have one source"):
        spend(folder)


def test_new_records_under_the_same_name_or_place_keep_the_spend(folder: Path) -> None:
    before = spend(folder)
    (folder / "records" / "one.csv").write_text("x,y\n1,2\n5,6\n")
    assert held(folder, "patients") == before
    write(folder, "people")
    assert held(folder, "people") == before


def test_hard_links_under_two_names_are_one_place_to_config_check(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,y\n1,2\n")
    os.link(tmp_path / "d.csv", tmp_path / "hard.csv")
    (tmp_path / "site.toml").write_text(
        'name = "s"\n[datasets.one]\npath = "d.csv"\n[datasets.two]\npath = "hard.csv"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_site_file(tmp_path / "site.toml")
    assert "is the same place as" in str(caught.value.faults[0])


def test_digests_differ_by_content_key_and_number_of_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"a" * 100)
    two.write_bytes(b"a" * 99 + b"b")
    contents = {source_digests(path, key)[0] for path in (one, two) for key in (b"k", b"l")}
    assert len(contents) == 4
    with pytest.raises(UnavailableError):
        source_digests(tmp_path / "none", b"k")
