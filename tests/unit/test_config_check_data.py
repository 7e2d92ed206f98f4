"""`comity config check --data`: the tables behind the site files, before anybody trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from comity.cli.config import command
from comity.errors import ComityError, ConfigError, DataError

GOOD = "age,outcome\n40,ill\n50,well\n"


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., BaseException | None]:
    def _check(schema: str = 'label = "outcome"', **tables: str) -> BaseException | None:
        members = []
        for name, text in tables.items():
            (tmp_path / f"{name}.csv").write_text(text)
            (tmp_path / f"{name}.toml").write_text(
                f'name = "{name}"\nstate = "{name}"\n[datasets.cases]\npath = "{name}.csv"\n'
                f"[datasets.cases.schema]\n{schema}\n"
            )
            members.append(f'[[sites]]\nname = "{name}"\nfile = "{name}.toml"\n')
        federation = tmp_path / "federation.toml"
        federation.write_text('name = "f"\n' + "".join(members))
        arguments = ["check", str(federation), "--data"]
        return CliRunner().invoke(command, arguments).exception

    return _check


def test_tables_of_one_schema_pass(check: Callable[..., BaseException | None]) -> None:
    assert check(a=GOOD, b=GOOD) is None


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("age,outcome\n40,ill\n", "data set cases: site b has no record with label 'well'"),
        ("age,outcome\n40,well\n", "data set cases: site b has no record with label 'ill'"),
        (GOOD + "60,dead\n", "data set cases: site b has label 'dead', which site a does not have"),
        ("dose,outcome\n40,ill\n50,well\n", "feature 'dose' stands where site a has 'age'"),
        ("age,dose,outcome\n4,1,ill\n5,1,well\n", "site b has 2 features, site a 1"),
        ("age,outcome\n40,ill\ninf,well\n", "b.csv: line 3"),
    ],
)
def test_what_differs_across_sites_is_named(
    check: Callable[..., BaseException | None], table: str, words: str
) -> None:
    error = check(a=GOOD, b=table)
    assert isinstance(error, DataError)
    assert words in error.message
    assert error.hint


def test_classes_hold_labels_in_one_order(check: Callable[..., BaseException | None]) -> None:
    error = check(schema='label = "outcome"\nclasses = ["well", "ill"]', a=GOOD, b=GOOD)
    assert error is None


def test_all_faults_in_the_data_come_at_once(check: Callable[..., BaseException | None]) -> None:
    error = check(a="", b="age,outcome\nx,ill\n", c=GOOD, d="age,outcome\n40,ill\n")
    assert isinstance(error, DataError)
    assert error.message.startswith("3 faults in the data:\n")
    assert [word for word in ("a.csv", "b.csv", "site d") if word not in error.message] == []


def test_a_table_without_a_schema_and_a_folder_are_left_to_their_app(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "a.csv").write_text("not,a\ntable\n")
    (tmp_path / "site.toml").write_text(
        'name = "a"\n[datasets.scans]\npath = "scans"\nformat = "folder"\n'
        '[datasets.cases]\npath = "a.csv"\n'
    )
    result = CliRunner().invoke(command, ["check", str(tmp_path / "site.toml"), "--data"])
    assert result.exit_code == 0


def test_the_limits_of_the_site_file_hold(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "site.toml").write_text(
        'name = "a"\n[datasets.cases]\npath = "a.csv"\nschema = {label = "outcome"}\n'
        "[limits]\nmax-table-rows = 1\n"
    )
    result = CliRunner().invoke(command, ["check", str(tmp_path / "site.toml"), "--data"])
    assert isinstance(result.exception, ComityError)
    assert "a.csv" in result.exception.message


BUDGETED = """name = "a"
[datasets.cases]
path = "a.csv"
records = {records}
schema = {{label = "outcome"}}
[budgets.cases]
epsilon = 1.0
delta = {delta}
"""


@pytest.mark.parametrize(
    ("records", "delta", "words"),
    [
        (1, 0.9, "holds 2 records, and its delta is 0.9"),
        (1, 0.1, "holds 2 records; its site file says at most 1"),
        (1_000_000, 1e-7, ""),
        (2, 0.49, ""),
    ],
)
def test_a_budget_stands_for_the_records_that_there_are(
    tmp_path: Path, records: int, delta: float, words: str
) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "site.toml").write_text(BUDGETED.format(records=records, delta=delta))
    result = CliRunner().invoke(command, ["check", str(tmp_path / "site.toml"), "--data"])
    if not words:
        assert result.exit_code == 0, result.exception
        return
    assert isinstance(result.exception, DataError)
    assert words in result.exception.message
    assert "cases" in result.exception.message


def test_a_budget_without_a_number_of_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    text = BUDGETED.format(records=1, delta=0.1).replace("records = 1\n", "")
    (tmp_path / "site.toml").write_text(text)
    result = CliRunner().invoke(command, ["check", str(tmp_path / "site.toml")])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.faults[0].path == "datasets.cases.records"
