"""`comity config`: check, explain and schema as a person and as a program sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from comity.cli.config import command
from comity.config.explain import explain_federation, explain_site
from comity.config.federation import load_federation_file
from comity.config.schema import json_schema
from comity.config.site import load_site_file
from comity.errors import ConfigError

SITE = """
name = "a"
[datasets.patients]
path = "patients.csv"
records = 9
mock = "mock.csv"
[budgets.patients]
epsilon = 20
delta = 0.01
[datasets.spare]
path = "spare.csv"
[train.rules.train]
arrays = "plain"
error = "plain"
[train.rules."query.describe"]
metrics = "plain"
[collections.open]
folder = "docs"
release = "passages"
askers = ["*"]
[collections.shut]
folder = "more"
reason = "Minutes are confidential."
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("patients.csv", "mock.csv", "spare.csv"):
        (tmp_path / name).write_text("x,y\n1,0\n")
    for name in ("docs", "more"):
        (tmp_path / name).mkdir()
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "federation.toml").write_text(
        'name = "f"\n[[sites]]\nname = "a"\nfile = "site.toml"\n[[sites]]\nname = "b"\n'
    )
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def error_of(result: Result) -> ConfigError:
    assert isinstance(result.exception, ConfigError)
    return result.exception


def test_check_says_ok_in_one_line_a_file(folder: Path) -> None:
    result = run("check", folder / "federation.toml", folder / "site.toml")
    assert result.exit_code == 0
    first, second = result.output.splitlines()
    assert first.endswith("federation f of 2 sites")
    assert second.endswith("site a with 2 data sets and 2 collections")


def test_check_reports_the_faults_of_all_files_at_once(folder: Path) -> None:
    (folder / "site.toml").write_text(SITE + "[limit]\n")
    (folder / "other.toml").write_text("name = 1\ncolour = 2\n")
    files = [folder / name for name in ("federation.toml", "site.toml", "other.toml", "none.toml")]
    error = error_of(run("check", *files))
    assert [(Path(fault.file).name, fault.path) for fault in error.faults] == [
        ("site.toml", "limit"),
        ("other.toml", "colour"),
        ("other.toml", "name"),
        ("", "file"),
    ]
    assert "none.toml does not exist" in error.faults[-1].problem
    assert error.message == "4 faults found"


def test_check_as_json_names_each_file(folder: Path) -> None:
    document = json.loads(run("check", folder / "site.toml", "--json").output)
    assert document["ok"]
    assert document["files"][0]["is"] == "site a with 2 data sets and 2 collections"


def test_every_protection_that_is_switched_off_stands_out(folder: Path) -> None:
    opened = {s.path for s in explain_site(load_site_file(folder / "site.toml")) if s.open}
    assert opened == {
        "budgets.patients",
        "train.rules.train.arrays",
        "train.rules.train.error",
        'train.rules."query.describe".metrics',
        "collections.open",
    }


def test_site_noise_closes_the_arrays_that_leave_plainly(folder: Path) -> None:
    noise = "[train.site-noise]\nclip-norm = 1\nnoise-multiplier = 2\n"
    (folder / "site.toml").write_text(SITE + noise)
    found = {s.path: s for s in explain_site(load_site_file(folder / "site.toml"))}
    assert not found["train.rules.train.arrays"].open
    assert "clipped and noised" in found["train.rules.train.arrays"].text
    assert found["train.site-noise"].written


def test_each_statement_says_whether_it_was_written_or_is_the_default(folder: Path) -> None:
    found = {s.path: s.written for s in explain_site(load_site_file(folder / "site.toml"))}
    assert found["train.rules.train.arrays"]
    assert not found["train.rules.train.metrics"]
    assert not found["state"]
    assert not found["limits.max-line-bytes"]
    assert found["collections.shut"]


def test_a_bare_site_is_explained_as_closed(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('name = "a"\n[train]\ntrusted-trainers = []\n')
    statements = list(explain_site(load_site_file(tmp_path / "site.toml")))
    assert not any(statement.open for statement in statements)
    texts = " ".join(statement.text for statement in statements)
    assert "holds no data set" in texts
    assert "opens no collection" in texts
    assert "No trainer is trusted" in texts


def test_a_trusted_trainer_is_named(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    (tmp_path / "site.toml").write_text(f'name = "a"\ntrain.trusted-trainers = ["{digest}"]\n')
    found = {s.path: s for s in explain_site(load_site_file(tmp_path / "site.toml"))}
    assert digest in found["train.trusted-trainers"].text


def test_a_closed_collection_shows_what_the_asker_reads(folder: Path) -> None:
    result = run("explain", folder / "site.toml", "collections.shut")
    assert "open to nobody: nothing leaves" in result.output
    assert "Minutes are confidential." in result.output
    assert "OPEN" not in result.output


def test_explain_marks_what_is_open_and_counts_it(folder: Path) -> None:
    output = run("explain", folder / "site.toml").output
    assert "OPEN  Collection open" in output
    assert "5 protections are switched off or weak" in output
    output = run("explain", folder / "site.toml", "collections").output
    assert "1 protection is switched off or weak" in output


def test_explain_as_json_holds_every_statement(folder: Path) -> None:
    document = json.loads(run("explain", folder / "site.toml", "budgets", "--json").output)
    paths = [(found["path"], found["written"]) for found in document["statements"]]
    assert paths == [
        ("budgets.patients", True),
        ("budgets.patients.filter-order", False),
        ("budgets.spare", False),
    ]


def test_explain_refuses_a_path_that_leads_nowhere(folder: Path) -> None:
    error = error_of(run("explain", folder / "site.toml", "train.rule"))
    assert "says nothing about 'train.rule'" in error.message


def test_a_federation_is_explained_with_one_site_as_too_few(folder: Path) -> None:
    file = folder / "federation.toml"
    file.write_text(file.read_text() + "[train]\nmin-sites = 1\n")
    found = {s.path: s for s in explain_federation(load_federation_file(file))}
    assert found["train.min-sites"].open
    assert found["train.min-sites"].written
    assert not found["train.rounds"].written
    assert "runs here by" in found["sites.0"].text
    assert "runs elsewhere" in found["sites.1"].text
    assert "federation is called f" in run("explain", file).output


@pytest.mark.parametrize("kind", ["federation", "site"])
def test_the_schema_describes_every_key(kind: str) -> None:
    document = json.loads(run("schema", kind).output)
    assert document == json_schema(kind)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    tables = [document, *(d for d in document["$defs"].values() if d["type"] == "object")]
    for table in tables:
        assert table["additionalProperties"] is False
        assert all(field["description"] for field in table["properties"].values())
        assert not any("_" in key for key in table["properties"])


def test_schema_needs_a_kind_that_exists() -> None:
    assert run("schema").exit_code == 2
    assert run("schema", "sites").exit_code == 2
    with pytest.raises(ConfigError, match="no 'sites' file"):
        json_schema("sites")


def test_schema_prints_the_reference_page() -> None:
    assert run("schema", "--reference").output.startswith("# Configuration\n")
