"""The example hospitals: prepared questions, and the abstention threshold on held-out ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from comity.bootstrap import open_gateway
from comity.cli.ask import command as ask
from comity.cli.ingest import command as ingest
from comity.config.federation import load_federation_file
from comity.errors import ConfigError
from comity.services.ask import NOTHING_FOUND, Gateway

ANSWERABLE = """\
An occlusion alarm goes off on the pump - what do I do?
When are antibiotics started in sepsis?
Time limit for the first antibiotic dose in septic patients
When should warfarin be stopped before an operation?
How long before surgery is apixaban stopped?
At which haemoglobin are red cells transfused?
How often are patients turned on a standard mattress?
Which pH of the aspirate makes a feeding tube safe to feed?
What is the dose of tenecteplase in stroke?
How often is the defibrillator checked?
Can a patient with a pacemaker be scanned in the MRI?
What score on the 4AT means delirium?
When is HIV prophylaxis started after a needlestick injury?
How warm should the incubator be before the baby arrives?
Who may press the button of a PCA pump?
How soon should a hip fracture be operated?
What magnesium dose is given in severe asthma?
Within which time is tranexamic acid given in postpartum haemorrhage?
How many visitors may be at a bed?
Are flowers allowed on the intensive care unit?""".splitlines()
UNANSWERABLE = """\
What dose of ivermectin is recommended for scabies?
How is gene therapy for haemophilia financed?
Which vaccine is given to staff against influenza?
What is the salary of a ward sister?
What is the dose of ketamine for sedation of children in the MRI scanner?
Which antibiotics are used for Lyme disease?
How soon must antibiotics be given in bacterial meningitis?
How is a tracheostomy tube changed?
When should chemotherapy be stopped before surgery?
How do I reset my password for the electronic record?
Which pump is used for insulin in pregnancy?
How often are lift engineers on call?
How is malaria prophylaxis chosen for travellers?
How is burn surface area estimated?
When is a lumbar puncture contraindicated?
May dogs visit patients on the intensive care unit?
Are cats and dogs welcome during visiting hours?
Which sutures are used for skin closure?""".splitlines()


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals") / "all"
    with resources.as_file(resources.files("comity") / "templates" / "hospitals") as packaged:
        shutil.copytree(packaged, folder)
    return folder


@pytest.fixture(scope="module")
def gateway(hospitals: Path) -> Iterator[Gateway]:
    with open_gateway(load_federation_file(hospitals / "federation.toml")) as opened:
        yield opened


def test_each_hospital_has_about_fifteen_documents_and_closes_something(hospitals: Path) -> None:
    file = load_federation_file(hospitals / "federation.toml")
    for site in file.load_site_files():
        count = sum(1 for one in site.collections.values() for _ in one.folder.iterdir())
        assert 14 <= count <= 16
        assert any("*" not in one.askers for one in site.collections.values())


def test_the_prepared_questions_are_answered_across_sites_or_not_at_all(
    hospitals: Path, gateway: Gateway
) -> None:
    prepared = json.loads((hospitals / "questions.json").read_text())["questions"]
    assert [one["answerable"] for one in prepared] == [True, True, False]
    for one in prepared:
        answer = gateway.ask(one["question"], asker="clinician")
        if one["answerable"]:
            assert len({citation.site for citation in answer.citations}) >= 2
        else:
            assert answer.text == NOTHING_FOUND
        assert {closed.site for closed in answer.closed} >= {"northgate", "riverside", "st-anne"}


def test_held_out_questions_are_answered_or_abstained_from(gateway: Gateway) -> None:
    missed = [one for one in ANSWERABLE if gateway.ask(one, asker="clinician").abstained]
    guessed = [one for one in UNANSWERABLE if not gateway.ask(one, asker="clinician").abstained]
    assert guessed == []
    assert len(missed) <= 1, missed


def test_the_documents_answer_what_was_asked(gateway: Gateway) -> None:
    expected = {
        "How soon must antibiotics be given in suspected sepsis?": "within one hour",
        "When should warfarin be stopped before an operation?": "Stop warfarin five full days",
        "At which haemoglobin are red cells transfused?": "below 70 g/L",
        "Which pH of the aspirate makes a feeding tube safe to feed?": "5.0 or below",
        "How soon should a hip fracture be operated?": "within 36 hours",
    }
    for asked, words in expected.items():
        assert words in gateway.ask(asked, asker="clinician").text


def test_a_stranger_sees_fewer_collections_than_a_clinician(gateway: Gateway) -> None:
    asked = "How soon must antibiotics be given in suspected sepsis?"
    clinician, stranger = (gateway.ask(asked, asker=one) for one in ("clinician", "stranger"))
    assert len(stranger.closed) > len(clinician.closed)
    assert {one.collection for one in stranger.citations} <= {"guidelines", "devices"}


def test_the_commands_take_in_and_answer(hospitals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(hospitals, folder, ignore=shutil.ignore_patterns("state"))
    (folder / "northgate" / "devices" / "bad.txt").write_bytes(b"\xff")
    site = str(folder / "northgate" / "site.toml")
    taken = CliRunner().invoke(ingest, ["--site-file", site])
    assert "devices: 5 added, 0 replaced" in taken.output
    assert "byte 0: 0xff is not UTF-8 (save the file in UTF-8)" in str(taken.exception)
    again = CliRunner().invoke(
        ingest,
        [
            str(folder / "lakeside/devices"),
            "--site-file",
            site,
            "--collection",
            "devices",
            "--json",
        ],
    )
    report = json.loads(again.output)["collections"]["devices"]
    assert (report["added"], report["removed"]) == (4, 5)
    federation = ["--federation", str(folder / "federation.toml")]
    asked = "How soon must antibiotics be given in suspected sepsis?"
    shown = CliRunner().invoke(ask, [asked, *federation])
    assert "within one hour" in shown.output
    assert "northgate, incidents: Incident notes name colleagues" in shown.output
    told = json.loads(
        CliRunner().invoke(ask, [asked, *federation, "--as-indexed", "--json"]).output
    )
    assert told["abstained"] is False
    assert {"site", "document", "quote", "label"} <= told["citations"][0].keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--collection", "none"], "has no collection none"),
        (["."], "a folder goes into one collection"),
    ],
)
def test_a_wrong_collection_is_refused_by_name(
    hospitals: Path, arguments: list[str], message: str
) -> None:
    site = str(hospitals / "lakeside" / "site.toml")
    result = CliRunner().invoke(ingest, [*arguments, "--site-file", site])
    assert isinstance(result.exception, ConfigError)
    assert message in result.exception.message


def test_a_federation_without_a_site_here_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text(
        'name = "f"\n[[sites]]\nname = "far"\n[train]\nmin-sites = 1\n'
    )
    file = load_federation_file(tmp_path / "federation.toml")
    with pytest.raises(ConfigError, match="no site of f runs on this machine"), open_gateway(file):
        pass


def test_a_misspelt_role_is_warned_of_by_what_the_site_files_name_alone(
    hospitals: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(hospitals, folder, ignore=shutil.ignore_patterns("state"))
    asked = ["How soon must antibiotics be given in sepsis?", "--federation"]
    asked += [str(folder / "federation.toml"), "--json", "--as"]
    warned = CliRunner().invoke(ask, [*asked, "clinicain"])
    assert warned.stderr == (
        'warning: no site file here names "clinicain"; they name clinician, quality. '
        "Only what is open to every member is asked.\n"
    )
    assert json.loads(warned.stdout)["abstained"] is False
    for role in ("clinician", "member"):
        assert CliRunner().invoke(ask, [*asked, role]).stderr == ""


def test_an_ingestion_says_how_many_files_it_skipped(hospitals: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(hospitals, folder, ignore=shutil.ignore_patterns("state"))
    (folder / "northgate" / "devices" / "plan.png").write_bytes(b"\x89PNG")
    arguments = ["--site-file", str(folder / "northgate" / "site.toml"), "--collection", "devices"]
    taken = CliRunner().invoke(ingest, arguments)
    assert taken.exit_code == 0
    assert "passages written; 1 file of other kinds skipped" in " ".join(taken.output.split())
    told = json.loads(CliRunner().invoke(ingest, [*arguments, "--json"]).output)
    assert told["collections"]["devices"]["skipped"] == 1
