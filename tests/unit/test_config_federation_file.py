"""The federation file: its members, and the site files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from comity.config.federation import FederationFile, load_federation_file
from comity.errors import ConfigError

TWO = """
name = "pair"
[[sites]]
name = "a"
file = "a/site.toml"
[[sites]]
name = "b"
role = "clinic"
file = "b/site.toml"
"""


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder / "federation.toml"


def faults_of(file: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_federation_file(file)
    return {fault.path: f"{fault.problem} ({fault.hint})" for fault in caught.value.faults}


def test_members_and_their_site_files_are_read_in_order(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {
            "federation.toml": TWO + '[[sites]]\nname = "far"\n[train]\nmin-sites = 3\n',
            "a/site.toml": 'name = "a"\n',
            "b/site.toml": 'name = "b"\n',
        },
    )
    federation = load_federation_file(file)
    assert [(site.name, site.role) for site in federation.sites] == [
        ("a", "site"),
        ("b", "clinic"),
        ("far", "site"),
    ]
    assert (federation.coordinator, federation.train.min_sites) == ("coordinator", 3)
    assert [site.name for site in federation.load_site_files()] == ["a", "b"]


FAULTS = [
    ("", "sites", "is missing"),
    ("sites = []", "sites", "holds 0, and must hold at least 1"),
    ("sites = 3", "sites", "is 3, not a list"),
    ("sites = [1]", "sites.0", "is 1, not a table"),
    ("[[sites]]\nnam = 'a'", "sites.0.nam", "did you mean name?"),
    ("[[sites]]\nname = 'a'\n[[sites]]\nname = 'a'", "sites.1.name", "also the name of sites.0"),
    ("[[sites]]\nname = 'coordinator'", "sites.0.name", "also the coordinator's name"),
    ("coordinator = 'a'\n[[sites]]\nname = 'a'", "sites.0.name", "also the coordinator's name"),
    ("[[sites]]\nname = 'a_b'", "sites.0.name", "use 1 to 63 lower-case letters"),
    ("[[sites]]\nname = 'a'\nfile = 'none.toml'", "sites.0.file", "none.toml does not exist"),
    ("[[sites]]\nname = 'a'\nfile = '.'", "sites.0.file", "is not a file"),
    (
        "[[sites]]\nname = 'a'\n[train]\nmin-sites = 2",
        "train.min-sites",
        "the federation has 1 site",
    ),
    (
        f"[[sites]]\nname = 'a'\n[train]\nmin-sites = 0x{'f' * 5000}",
        "train.min-sites",
        "a huge number",
    ),
    ("[[sites]]\nname = 'a'\n[ask]\ntimeout-s = 0", "ask.timeout-s", "must be above 0"),
    ("[[sites]]\nname = 'a'\n[ask]\ntimeout-s = 1e9", "ask.timeout-s", "must be at most 600"),
]


@pytest.mark.parametrize(("text", "path", "words"), FAULTS, ids=[f"{t!r}"[:60] for t, *_ in FAULTS])
def test_each_fault_has_its_path_and_a_way_out(
    tmp_path: Path, text: str, path: str, words: str
) -> None:
    file = written(tmp_path, {"federation.toml": f'name = "f"\n{text}\n'})
    assert words in faults_of(file)[path]


def site_faults(folder: Path, files: Mapping[str, str]) -> list[str]:
    federation: FederationFile = load_federation_file(
        written(folder, {"federation.toml": TWO, **files})
    )
    with pytest.raises(ConfigError) as caught:
        federation.load_site_files()
    return [str(fault) for fault in caught.value.faults]


def test_the_faults_of_all_site_files_come_at_once(tmp_path: Path) -> None:
    faults = site_faults(
        tmp_path, {"a/site.toml": 'name = "c"\nstat = 1\n', "b/site.toml": "name = [\n"}
    )
    assert len(faults) == 2
    assert "a/site.toml: stat: is not a known key" in faults[0]
    assert "sites.1.file: " in faults[1]
    assert "b/site.toml, line 2, end of file" in faults[1]


def test_a_site_file_of_another_name_and_a_shared_state_folder_are_faults(tmp_path: Path) -> None:
    faults = site_faults(
        tmp_path,
        {
            "a/site.toml": 'name = "c"\nstate = "../state"\n',
            "b/site.toml": 'name = "b"\nstate = "../state"\n',
        },
    )
    assert "is 'c', and the federation calls this site 'a'" in faults[0]
    assert "which is also the state of c" in faults[1]


def test_one_data_set_name_means_one_schema_at_every_site(tmp_path: Path) -> None:
    def site(name: str, schema: str) -> str:
        return f'name = "{name}"\nstate = "{name}"\n[datasets.cases]\npath = "../x.csv"\n{schema}'

    many = ", ".join(f'"feature-{number}"' for number in range(20))
    faults = site_faults(
        tmp_path,
        {
            "x.csv": "",
            "a/site.toml": site("a", f'schema = {{label = "y", features = [{many}]}}'),
            "b/site.toml": site("b", 'schema = {label = "z", classes = ["1", "0"]}'),
        },
    )
    assert [fault.split(": ")[1] for fault in faults] == [
        "datasets.cases.schema.features",
        "datasets.cases.schema.label",
        "datasets.cases.schema.classes",
    ]
    assert all("b/site.toml" in fault for fault in faults)
    assert "is empty, and at site a it is feature-0, feature-1" in faults[0]
    assert "feature-19" not in faults[0]
    assert "is z, and at site a it is y" in faults[1]
    assert "is 1, 0, and at site a it is empty" in faults[2]


def test_a_data_set_without_a_schema_agrees_with_any(tmp_path: Path) -> None:
    table = '[datasets.cases]\npath = "../x.csv"\n'
    file = written(
        tmp_path,
        {
            "federation.toml": TWO,
            "x.csv": "",
            "a/site.toml": f'name = "a"\n{table}',
            "b/site.toml": f'name = "b"\n{table}schema = {{label = "y"}}\n',
        },
    )
    assert len(load_federation_file(file).load_site_files()) == 2
