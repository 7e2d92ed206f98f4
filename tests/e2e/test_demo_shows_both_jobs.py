"""`comity demo` as a stranger runs it: real processes, real journals."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import comity as comity_package
from comity.api.demo_files import fresh_folder, prune, seal_run
from comity.errors import DataError

COMITY = Path(sys.executable).with_name("comity")


def comity(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMITY), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    done = comity(folder, "demo")
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "comity-demo/run-1/results.json").read_text("utf-8"))
    return folder, done.stdout, results


def test_piped_it_is_plain_text(demo: tuple[Path, str, dict[str, Any]]) -> None:
    assert "\x1b" not in demo[1]
    assert "\r" not in demo[1]
    assert "round 20 of 20" in demo[1]


def test_no_raw_record_left_and_the_budget_was_kept(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    results = demo[2]
    assert results["raw_records_that_left"] == 0
    for site in results["sites"]:
        budget = site["budget"]
        assert 0 < budget["epsilon_spent"] <= budget["epsilon_total"] <= 8
        assert budget["delta"] < 1 / sum(results["records"][site["site"]].values())
        assert budget["opened"]


def test_training_together_beats_the_sites_alone_at_the_same_epsilon(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    rows = {row["name"]: row for row in demo[2]["comparison"]}
    together, pooled = rows.pop("federated"), rows.pop("pooled")
    assert demo[2]["seeds"] == 20
    assert {row["epsilon"] for row in rows.values()} == {together["epsilon"]}
    alone = [row["accuracy"]["mean"] for row in rows.values()]
    assert together["accuracy"]["mean"] > sum(alone) / len(alone) + 0.05
    assert together["accuracy"]["mean"] > 0.9
    assert pooled["epsilon"] is None


def test_what_nobody_measured_is_withheld(demo: tuple[Path, str, dict[str, Any]]) -> None:
    assert demo[2]["withheld"] == {"train.metrics = withhold": 4 * 20}
    assert len(demo[2]["history"]["accuracy"]) == 20


def test_what_was_trained_left_only_inside_secure_sums(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    folder, told, _ = demo
    assert "left masked, inside secure sums" in " ".join(told.split())
    for site in ("northgate", "lakeside", "riverside", "st-anne"):
        state = f"comity-demo/run-1/{site}/state"
        done = comity(folder, "audit", "show", "--state", state, "--last", "0", "--json")
        given = [r["sentence"] for r in json.loads(done.stdout)["records"]]
        given = [sentence for sentence in given if "gave coordinator" in sentence]
        masked = [sentence for sentence in given if "masked, with" in sentence]
        assert len(masked) >= 2 * 20
        assert sum("arrays 'arrays' (private by record) inside the sum" in s for s in masked) == 20
        for sentence in set(given) - set(masked):
            assert "gave coordinator protocol '" in sentence
            assert "arrays" not in sentence
            assert "metrics" not in sentence


def test_answers_are_cited_and_the_unanswerable_is_not_guessed_at(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    first, second, third = demo[2]["answers"]
    for answer in (first, second):
        assert answer["citations"]
        assert len({one["site"] for one in answer["citations"]}) >= 2
        for one in answer["citations"]:
            assert f"[{one['number']}]" in answer["answer"]
            text = (demo[0] / "comity-demo/run-1" / one["site"] / one["document"]).read_text(
                "utf-8"
            )
            plain = " ".join(re.sub(r"<[^>]+>", " ", text).split())
            assert " ".join(one["quote"].split()) in plain
    assert third["abstained"]
    assert third["citations"] == []


def test_closed_collections_are_named_alike_for_every_question(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    closed = [answer["closed"] for answer in demo[2]["answers"]]
    assert closed[0] == closed[1] == closed[2]
    assert closed[0]
    assert all(one["policy"].startswith("collections.") for one in closed[0])


class Loads(html.parser.HTMLParser):
    """What a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe", "img", "object", "embed"}:
            self.found.append(tag)
        self.found += [
            f"{name}={value}"
            for name, value in attrs
            if name in {"src", "href"} and not str(value).startswith("#")
        ]


def test_the_report_loads_nothing(demo: tuple[Path, str, dict[str, Any]]) -> None:
    page = (demo[0] / "comity-demo/run-1/report.html").read_text("utf-8")
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page.replace("url(#", "")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_the_report_draws_in_a_browser(
    demo: tuple[Path, str, dict[str, Any]], tmp_path: Path
) -> None:
    picture = tmp_path / "report.png"
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --no-first-run"
    subprocess.run(
        [
            "chromium",
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1200,2400",
            f"--screenshot={picture}",
            f"file://{demo[0] / 'comity-demo/run-1/report.html'}",
        ],
        capture_output=True,
        check=True,
        timeout=100,
    )
    assert picture.stat().st_size > 50_000


def test_the_next_three_commands_work_as_printed(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    commands = demo[1].split("Try next\n")[1].strip().splitlines()
    assert len(commands) == 3
    for line in commands:
        program, *arguments = shlex.split(line)
        assert Path(program) == COMITY
        done = comity(demo[0], *arguments)
        assert done.returncode == 0, (line, done.stderr)


def test_the_journals_verify(demo: tuple[Path, str, dict[str, Any]]) -> None:
    for site in ("northgate", "lakeside", "riverside", "st-anne"):
        state = f"comity-demo/run-1/{site}/state"
        for part in ("audit", "ledger"):
            done = comity(demo[0], part, "verify", "--state", state)
            assert done.returncode == 0, done.stderr


def test_a_budget_that_does_not_cover_the_plan_is_refused_before_training(tmp_path: Path) -> None:
    done = comity(tmp_path, "demo", "--budget", "1")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "budget-exhausted" in done.stderr
    assert "at northgate, lakeside, riverside, st-anne: it costs 2.28 at each" in done.stderr
    assert "try: --budget 2.3 or more" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_error_under_json_is_one_object_on_standard_output(tmp_path: Path) -> None:
    done = comity(tmp_path, "demo", "--budget", "1", "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 3
    assert error["code"] == "budget-exhausted"
    assert error["hint"] == "--budget 2.3 or more"
    assert error["faults"] == []
    done = comity(tmp_path, "demo", "--budget", "x", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (2, "usage")
    (tmp_path / "site.toml").write_text('name = "a"\nwrong = 1\n')
    done = comity(tmp_path, "config", "check", "site.toml", "--json")
    (fault,) = json.loads(done.stdout)["error"]["faults"]
    assert (done.returncode, fault["path"]) == (2, "wrong")
    assert fault["file"].endswith("site.toml")
    assert "wrong: is not a known key" in done.stderr


def test_what_left_is_counted_after_the_questions_and_by_purpose(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    folder, told, results = demo
    for site in results["sites"]:
        state = f"comity-demo/run-1/{site['site']}/state"
        done = comity(folder, "audit", "show", "--state", state, "--last", "0", "--json")
        given = [r["sentence"] for r in json.loads(done.stdout)["records"]]
        assert any("gave clinician" in sentence for sentence in given)
        assert site["answer_bytes"] > 1000
        assert site["training_bytes"] > site["answer_bytes"]
        assert f"{site['training_bytes']:,}" in told
        assert f"{site['answer_bytes']:,}" in told
    report = (folder / "comity-demo/run-1/report.html").read_text("utf-8")
    assert "answers, bytes" in report


def test_what_remains_is_what_the_filter_leaves(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    folder, _, results = demo
    for site in results["sites"]:
        budget = site["budget"]
        assert budget["epsilon_spent"] < budget["epsilon_enforced"] < budget["epsilon_total"]
        left = budget["epsilon_total"] - budget["epsilon_enforced"]
        assert budget["epsilon_remaining"] == pytest.approx(left)
    done = comity(folder, "ledger", "show", "--state", "comity-demo/run-1/northgate/state")
    assert "open to further plans, by the filter" in done.stdout
    assert "2.548 of 3; 0.452 of it remain (order 7)" in " ".join(done.stdout.split())
    lines = results["ledger"]["northgate"]
    assert lines[0].startswith("Reserved: 60 steps of discrete gaussian noise 7")
    assert lines[0].endswith("60 of 60 ran.")


def test_lines_fit_a_narrow_page_and_end_without_spaces(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(COMITY), "demo"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "60"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.split("Where things lie")[0].splitlines()
    assert [line for line in lines if len(line) > 60 or line != line.rstrip()] == []
    assert "\n      (collections." in done.stdout


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(COMITY), "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"mean +/- deviation" in done.stdout
    assert done.stdout.isascii()


@pytest.fixture
def copy(demo: tuple[Path, str, dict[str, Any]], tmp_path: Path) -> Path:
    """The hospitals' files as the demonstration left them, without their journals."""
    shutil.copytree(
        demo[0] / "comity-demo/run-1",
        tmp_path / "run",
        ignore=shutil.ignore_patterns("state", ".comity"),
    )
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (
            lambda names: [name.replace("mean area", "area mean") for name in names],
            ("no column 'mean area'", "column 'area mean' stands in its place"),
        ),
        (
            lambda names: [names[1], names[0], *names[2:]],
            ("column 'mean texture' stands where 'mean radius' was agreed on",),
        ),
    ],
    ids=["renamed", "swapped"],
)
def test_a_wrong_column_at_one_hospital_is_one_error_before_any_training(
    copy: Path, header: Callable[[list[str]], list[str]], words: tuple[str, ...]
) -> None:
    for file in ("records.csv", "held-back.csv"):
        path = copy / "lakeside" / "records" / file
        before = path.read_text("utf-8")
        first, rest = before.split("\n", maxsplit=1)
        path.write_text(",".join(header(first.split(","))) + "\n" + rest, encoding="utf-8")
        with comity_package.Federation.local(copy / "federation.toml") as federation:
            with pytest.raises(DataError) as caught:
                federation.train(copy / "diagnosis", dataset="patients")
            assert not any("for run" in line for line in federation.audit("northgate"))
        told = f"{caught.value.message} {caught.value.hint}"
        for word in (f"lakeside/records/{file}", *words):
            assert word in told
        done = comity(copy, "config", "check", "federation.toml", "--data")
        assert done.returncode == 6
        assert caught.value.message in done.stderr
        path.write_text(before, encoding="utf-8")
    assert comity(copy, "config", "check", "federation.toml", "--data").returncode == 0


def test_old_runs_are_removed_unless_somebody_changed_them(tmp_path: Path) -> None:
    for number in range(1, 6):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        (folder / "report.html").write_text("report")
        seal_run(folder)
    (tmp_path / "run-2" / "my-notes.txt").write_text("mine")
    (tmp_path / "run-3" / ".comity-demo.json").unlink()
    assert fresh_folder(tmp_path) == tmp_path / "run-6"
    assert prune(tmp_path, 1) == [tmp_path / "run-1", tmp_path / "run-4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-2", "run-3", "run-5"]
    assert fresh_folder(tmp_path) == tmp_path / "run-6"


def test_the_report_s_ids_are_unique_and_each_cell_says_what_it_is_of(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    page = (demo[0] / "comity-demo/run-1/report.html").read_text("utf-8")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 20
    for reference in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert reference in ids
    assert page.count("the four together") >= 2
    assert "<td>" not in page
    assert "The privacy ledger" in page
    assert "60 of 60 ran" in page


def test_json_is_one_object_and_a_second_run_gets_a_folder_of_its_own(
    demo: tuple[Path, str, dict[str, Any]],
) -> None:
    done = comity(demo[0], "demo", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["files"]["folder"] == "comity-demo/run-2"
    assert document["run"] != demo[2]["run"]


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    script = f"{COMITY} demo | head -3"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = comity(tmp_path, "demo", "--folder", "file")
    assert done.returncode == 5
    assert "file" in done.stderr
    assert "--folder" in done.stderr
