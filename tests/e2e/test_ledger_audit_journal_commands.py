"""`comity ledger`, `audit` and `journal` over a site's state, as a person or a script sees them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.fakes.gate_site import (
    IDENTITY,
    PATIENTS,
    Site,
    arrays,
    exchange,
    open_policy,
    passage,
    plan,
    private_arrays,
    question,
)

from comity.adapters.pki import write_identity
from comity.adapters.store.heads import FileHeadKeeper, write_head
from comity.adapters.store.journal import SqliteJournal
from comity.adapters.store.layout import StateLayout, state_layout
from comity.cli.main import group
from comity.core.policy.rule import Budget, PartKind, SitePolicy
from comity.errors import ComityError, ConfigError, Verification
from comity.ids import DatasetName
from comity.services.gate import Part

MAIN = "from comity.cli.main import main; main()"
DEVICES = DatasetName("devices")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    layout = state_layout(tmp_path / "state", create=True)
    write_identity(layout.identity, IDENTITY)
    policy = open_policy(budgets={PATIENTS: Budget(8, 1e-5), DEVICES: Budget(8, 1e-5)})
    site = Site(policy, SqliteJournal(layout.journal), FileHeadKeeper(layout.head))
    gate = site.gate()
    gate.bind_dataset(PATIENTS, "sha256:" + "1" * 64)
    gate.bind_dataset(DEVICES, "sha256:" + "2" * 64)
    used = gate.reserve(PATIENTS, plan(4), purpose="study")
    gate.free(gate.reserve(PATIENTS, plan(2), purpose="study"))
    gate.release(exchange(), [private_arrays(used), Part(PartKind.ARRAYS, "big", _big().value)])
    gate.release(question(), [passage(1), passage(2), passage(3)])
    Site(SitePolicy(), site.journal, site.heads).gate()
    assert isinstance(site.journal, SqliteJournal)
    site.journal.close()
    return tmp_path / "state"


def _big() -> Part:
    part = arrays()
    part.value["w"] = part.value["w"].repeat(50_000)
    return part


def run(*arguments: object, fails: bool = False) -> Any:
    result = CliRunner().invoke(group, [str(argument) for argument in arguments])
    if fails:
        assert isinstance(result.exception, ComityError), result.output
        return result.exception
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def layout_of(state: Path) -> StateLayout:
    return state_layout(state)


def cut(state: Path) -> None:
    with sqlite3.connect(layout_of(state).journal) as db:
        db.execute("DELETE FROM record WHERE sequence > 6")
    db.close()


def test_audit_show_tells_each_record_in_a_sentence(state: Path) -> None:
    told = " ".join(run("audit", "show", "--state", state, "--last", 0).split())
    for sentence in [
        "On 3 March 2026 14:02 UTC site-b took up policy",
        "with protections off: train.arrays = plain",
        "with every protection on.",
        "bound data set patients to source sha256:1111",
        "reserved 4 x discrete gaussian 2.0 (poisson 0.1) on data set patients",
        "back, unused.",
        "let the first output of data set patients leave.",
        "spent 1 x discrete gaussian 2.0 (poisson 0.1) of reservation",
        "gave coordinator arrays 'model' (25 bytes, private by record), arrays 'big' (1.2 MB,",
        "no record-level claim) for run 17, round 4 (train).",
        "gave analyst passage 'p1'",
        "in a fetch exchange; withheld passage 'p3' (collections.guidelines.max_passages_per",
    ]:
        assert sentence in told


def test_audit_show_as_json_holds_the_last_records(state: Path) -> None:
    document = json.loads(run("audit", "show", "--state", state, "--last", 2, "--json"))
    assert document["site"] == "site-b"
    assert [record["kind"] for record in document["records"]] == ["exchange", "policy"]


def test_ledger_show_gives_the_figures_of_each_data_set(state: Path) -> None:
    document = json.loads(run("ledger", "show", "--state", state, "--json"))
    patients, devices = document["data_sets"]
    assert (patients["data_set"], patients["total"], patients["delta"]) == ("patients", 8, "1e-05")
    assert 0 < patients["spent"] < patients["reserved"] < 8
    assert patients["enforced"] > patients["reserved"]
    assert patients["plan"][0]["count"] == 4
    assert (devices["reserved"], devices["total"], devices["state"]) == (0.0, None, "new")
    told = run("ledger", "show", "--state", state)
    assert "Privacy budget of site-b" in told
    assert "patients" in told
    assert "(order 4)" in told


@pytest.mark.parametrize("name", ["ledger", "audit"])
def test_verify_says_what_was_verified(state: Path, name: str) -> None:
    assert "records verified" in run(name, "verify", "--state", state)
    document = json.loads(run(name, "verify", "--state", state, "--json"))
    assert document["records"] == 11
    assert len(document["head"]) == 64


def test_a_cut_tail_is_shown_named_and_restored(state: Path) -> None:
    cut(state)
    assert "records were cut off" in run("ledger", "show", "--state", state)
    assert isinstance(run("audit", "verify", "--state", state, fails=True), Verification)
    told = run("journal", "restore", "--state", state, "--yes", "--reason", "disk failed")
    assert "every privacy budget counts as spent" in told
    assert "records verified" in run("audit", "verify", "--state", state)
    told = " ".join(run("audit", "show", "--state", state, "--last", 3).split())
    assert "lost the record that stood here." in told
    assert "was opened again after 5 records were lost" in told
    assert "closed its ledger: every budget counts as spent." in told
    document = json.loads(run("ledger", "show", "--state", state, "--json"))
    for row in document["data_sets"]:
        assert row["state"] == "closed: records were lost, so all of it counts as spent"
        assert row["remaining"] == 0
        assert row["spent"] is None or row["spent"] >= row["total"]
    assert "all of it counts as spent" in run("ledger", "show", "--state", state)


def test_restore_asks_before_it_writes(state: Path) -> None:
    cut(state)
    arguments = ["journal", "restore", "--state", str(state)]
    assert CliRunner().invoke(group, arguments, input="n\n").exit_code == 1
    assert isinstance(run("audit", "verify", "--state", state, fails=True), Verification)
    assert CliRunner().invoke(group, arguments, input="y\n").exit_code == 0


def test_restore_with_a_peers_copy_loses_nothing(state: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.json"
    known.write_bytes(layout_of(state).head.read_bytes())
    layout_of(state).head.unlink()
    arguments = ("journal", "restore", "--state", state, "--known", known, "--yes", "--json")
    assert json.loads(run(*arguments))["budgets"] == "unchanged"
    told = " ".join(run("audit", "show", "--state", state, "--last", 1).split())
    assert "a peer's copy shows that nothing was lost" in told


def test_a_folder_without_state_is_named_with_the_way_out(tmp_path: Path) -> None:
    error = run("ledger", "show", "--state", tmp_path, fails=True)
    assert isinstance(error, ConfigError)
    assert "holds no site state" in error.message
    assert not list(tmp_path.iterdir())


def test_an_empty_journal_is_shown_as_empty(tmp_path: Path) -> None:
    layout = state_layout(tmp_path / "state", create=True)
    write_identity(layout.identity, IDENTITY)
    SqliteJournal(layout.journal).close()
    assert "Nothing is recorded yet." in run("audit", "show", "--state", tmp_path / "state")
    told = run("ledger", "show", "--state", tmp_path / "state")
    assert told == "state has no data set on its books yet.\n"


def test_the_program_exits_by_kind_and_prints_no_traceback(state: Path) -> None:
    cut(state)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "audit", "verify", "--state", str(state)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 4
    assert "5 records were cut off" in done.stderr
    assert "Traceback" not in done.stderr


def test_looking_at_a_running_sites_journal_disturbs_it_not(state: Path) -> None:
    layout = layout_of(state)
    writer = SqliteJournal(layout.journal)
    site = Site(journal=writer, heads=FileHeadKeeper(layout.head))
    gate = site.gate()
    gate.release(exchange("e9"), [arrays()])
    assert "records verified" in run("audit", "verify", "--state", state)
    signed = gate.head()
    assert layout.head.read_bytes() == write_head(signed)
    writer.close()


def reserve_unused(state: Path) -> str:
    layout = layout_of(state)
    policy = open_policy(budgets={PATIENTS: Budget(8, 1e-5), DEVICES: Budget(8, 1e-5)})
    journal = SqliteJournal(layout.journal)
    site = Site(policy, journal, FileHeadKeeper(layout.head))
    site.rng.count = 1_000
    reservation = site.gate().reserve(DEVICES, plan(3), purpose="killed")
    journal.close()
    return reservation


def test_a_plan_that_was_never_used_is_listed_and_given_back_on_the_record(state: Path) -> None:
    reservation = reserve_unused(state)
    assert reservation in run("ledger", "show", "--state", state)
    (unused,) = json.loads(run("ledger", "show", "--state", state, "--json"))["unused"]
    assert (unused["reservation"], unused["data_set"]) == (reservation, "devices")
    document = json.loads(run("ledger", "free", reservation, "--state", state, "--json"))
    assert (document["freed"], document["data_set"]) == (reservation, "devices")
    assert json.loads(run("ledger", "show", "--state", state, "--json"))["unused"] == []
    assert "back, unused." in run("audit", "show", "--state", state, "--last", 1)
    again = run("ledger", "free", reservation, "--state", state, fails=True)
    assert "given back before" in again.message


def test_a_plan_of_which_something_left_is_not_given_back(state: Path) -> None:
    with sqlite3.connect(layout_of(state).journal) as db:
        (body,) = db.execute("SELECT body FROM record WHERE kind = 'ledger.committed'").fetchone()
    db.close()
    used = json.loads(body)["reservation"]
    error = run("ledger", "free", used, "--state", state, fails=True)
    assert "it stays spent" in error.message
    unknown = run("ledger", "free", "nothing", "--state", state, fails=True)
    assert "there is no reservation nothing" in unknown.message


@pytest.mark.parametrize("content", ["{}", "nonsense", "", '{"schema_version":99}'])
def test_a_damaged_head_is_named_by_path_and_can_be_restored_from(
    state: Path, content: str
) -> None:
    head = layout_of(state).head
    head.write_text(content)
    error = run("ledger", "verify", "--state", state, fails=True)
    assert str(head) in error.message
    assert "comity journal restore" in error.hint
    assert "is open again" in run("journal", "restore", "--state", state, "--yes")
    assert head.with_name("head.json.damaged").read_text() == content
    assert "records verified" in run("ledger", "verify", "--state", state)
