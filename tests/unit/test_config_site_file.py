"""The site file: what it holds, what it refuses, and that all faults come at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from comity.config.site import DatasetFormat, SiteFile, load_site_file
from comity.core.policy.rule import (
    Budget,
    CollectionPolicy,
    PartKind,
    ReleaseLevel,
    Rule,
    SiteNoise,
    SitePolicy,
    Unit,
)
from comity.errors import ConfigError
from comity.ids import AppDigest, CollectionName, DatasetName

DIGEST = "sha256:" + "0" * 64

WHOLE = f"""
name = "site-a"
state = "var/state"
[datasets.patients]
path = "patients.csv"
unit = "person"
records = 142
mock = "mock.csv"
[datasets.patients.schema]
features = ["age", "dose"]
label = "outcome"
classes = ["well", "ill"]
[datasets.scans]
path = "scans"
format = "folder"
[budgets.patients]
epsilon = 8
delta = 1e-3
unit = "person"
filter-order = 8.0
[train]
trusted-trainers = ["{DIGEST}"]
max-reply-bytes = 1_000_000
max-metrics = 8
unclaimed = "plain"
[train.rules.train]
arrays = "plain"
metrics = "withhold"
[train.rules."query.describe"]
metrics = "plain"
[train.site-noise]
clip-norm = 1.0
noise-multiplier = 0.5
[collections.guidelines]
folder = "docs"
release = "sentences"
askers = ["*", "auditor"]
max-passages-per-question = 3
max-passages-per-day = 30
max-sentences-per-passage = 2
reason = "Public."
[limits]
max-document-bytes = 1000
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    for name in ("patients.csv", "mock.csv"):
        (tmp_path / name).write_text("age,dose,outcome\n1,2,well\n")
    for name in ("scans", "docs", "docs/inner"):
        (tmp_path / name).mkdir()

    def _write(text: str) -> Path:
        file = tmp_path / "site.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return _write


def faults_of(file: Path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_site_file(file)
    assert all(fault.file == str(file) for fault in caught.value.faults)
    return {fault.path: f"{fault.problem} ({fault.hint})" for fault in caught.value.faults}


def test_a_whole_site_file_becomes_a_policy(write: Callable[[str], Path], tmp_path: Path) -> None:
    site = load_site_file(write(WHOLE))
    assert site.state == tmp_path / "var" / "state"
    patients, scans = site.datasets["patients"], site.datasets["scans"]
    assert (patients.path, patients.mock) == (tmp_path / "patients.csv", tmp_path / "mock.csv")
    assert (patients.unit, scans.format) == (Unit.PERSON, DatasetFormat.FOLDER)
    assert patients.table_schema is not None
    assert patients.table_schema.features == ("age", "dose")
    assert site.limits.max_document_bytes == 1000
    policy = site.policy()
    assert policy.budgets == {DatasetName("patients"): Budget(8.0, 1e-3, Unit.PERSON, 8.0)}
    assert policy.train.rules == {
        ("train", PartKind.ARRAYS): Rule.PLAIN,
        ("train", PartKind.METRICS): Rule.WITHHOLD,
        ("query.describe", PartKind.METRICS): Rule.PLAIN,
    }
    assert policy.train.trusted_trainers == {AppDigest(DIGEST)}
    assert policy.train.site_noise == SiteNoise(1.0, 0.5)
    assert policy.train.max_reply_bytes == 1_000_000
    assert (policy.train.max_metrics, policy.train.unclaimed) == (8, Rule.PLAIN)
    name = CollectionName("guidelines")
    assert policy.collections == {
        name: CollectionPolicy(
            name,
            release=ReleaseLevel.SENTENCES,
            askers=frozenset({"*", "auditor"}),
            max_passages_per_question=3,
            max_passages_per_day=30,
            max_sentences_per_passage=2,
            reason="Public.",
        )
    }


def test_a_bare_site_file_lets_nothing_out(write: Callable[[str], Path], tmp_path: Path) -> None:
    site = load_site_file(write('name = "a"'))
    assert site.policy() == SitePolicy()
    assert site.state == tmp_path / "state"


def test_defaults_of_the_file_are_those_of_the_policy(write: Callable[[str], Path]) -> None:
    text = 'name = "a"\n[collections.c]\nfolder = "docs"\n[datasets.d]\npath = "patients.csv"\n'
    text += "records = 5\n"
    policy = load_site_file(write(text + "[budgets.d]\nepsilon = 1\ndelta = 0.1\n")).policy()
    name = CollectionName("c")
    assert policy.collections == {name: CollectionPolicy(name)}
    assert policy.budgets == {DatasetName("d"): Budget(1.0, 0.1)}


def test_a_site_file_is_frozen(write: Callable[[str], Path]) -> None:
    site = load_site_file(write(WHOLE))
    with pytest.raises(ValidationError, match="frozen"):
        site.name = "b"
    with pytest.raises(TypeError):
        site.budgets["patients"] = site.budgets["patients"]  # type: ignore[index]


# text of the file, path of the fault, words of problem and hint
FAULTS = [
    ("", "name", "is missing (The site's name"),
    ("name = 3", "name", "is 3, not a text"),
    ('name = "Site A"', "name", "is 'Site A' (use 1 to 63 lower-case letters"),
    ('nam = "a"', "nam", "is not a known key (did you mean name?)"),
    ("colour = 1", "colour", "is not a known key (known: name, state"),
    ("[dataset.a]", "dataset", "did you mean datasets?"),
    ("datasets = 3", "datasets", "is 3, not a table"),
    ("datasets = [1]", "datasets", "is a list, not a table"),
    ('[datasets."b c"]\npath = "scans"', 'datasets."b c"', "is 'b c' (use 1 to 63"),
    ("[datasets.d]", "datasets.d.path", "is missing"),
    ("[datasets]\nd = 1", "datasets.d", "is 1, not a table"),
    ('[datasets.d]\npath = "no.csv"', "datasets.d.path", "no.csv does not exist"),
    ('[datasets.d]\npath = "patients.csv/x"', "datasets.d.path", "does not exist"),
    ('[datasets.d]\npath = "a\\u0000b"', "datasets.d.path", "holds a control character"),
    (f'[datasets.d]\npath = "{"x" * 300}"', "datasets.d.path", "cannot be read"),
    (f'[datasets.d]\npath = "{"x" * 5000}"', "datasets.d.path", "not a path"),
    ('[datasets.d]\npath = "loop"', "datasets.d.path", "cannot be read"),
    ('[datasets.d]\npath = "scans"', "datasets.d.path", 'set format = "folder"'),
    (
        '[datasets.d]\npath = "patients.csv"\nformat = "folder"',
        "datasets.d.path",
        'set format = "csv"',
    ),
    ('[datasets.d]\npath = "mock.csv"\nformat = "cvs"', "datasets.d.format", "did you mean csv?"),
    ('[datasets.d]\npath = "mock.csv"\nformat = 1', "datasets.d.format", "known: csv, folder"),
    ('[datasets.d]\npath = "mock.csv"\nrecords = 0', "datasets.d.records", "must be at least 1"),
    ('[datasets.d]\npath = "mock.csv"\nrecords = 1.5', "datasets.d.records", "not a whole number"),
    ('[datasets.d]\npath = "mock.csv"\n[datasets.d.schema]', "datasets.d.schema.label", "missing"),
    (
        '[datasets.d]\npath = "mock.csv"\nschema = {label = "y", features = ["a", "a"]}',
        "datasets.d.schema.features",
        "names 'a' twice",
    ),
    (
        '[datasets.d]\npath = "mock.csv"\nschema = {label = "y", features = ["y"]}',
        "datasets.d.schema.label",
        "is also a feature",
    ),
    ('datasets = {a={path="mock.csv"}, b={path="mock.csv"}}', "datasets.b.path", "one source has"),
    (
        'datasets = {a={path="mock.csv"}, b={path="docs/../mock.csv"}}',
        "datasets.b.path",
        "is the same place as datasets.a.path",
    ),
    (
        'datasets = {a={path="mock.csv"}, b={path="link.csv"}}',
        "datasets.b.path",
        "is the same place as datasets.a.path",
    ),
    (
        '[datasets.a]\npath = "mock.csv"\nmock = "mock.csv"',
        "datasets.a.mock",
        "is the same place as datasets.a.path",
    ),
    (
        'collections = {a={folder="docs"}, b={folder="docs/inner"}}',
        "collections.b.folder",
        "overlaps collections.a.folder",
    ),
    ('state = "docs"\n[collections.a]\nfolder = "docs"', "collections.a.folder", "place as state"),
    ('[collections.a]\nfolder = "mock.csv"', "collections.a.folder", "mock.csv is not a folder"),
    ('[collections.a]\nfolder = "docs"\nrelease = "pasages"', "collections.a.release", "passages?"),
    ('[collections.a]\nfolder = "docs"\naskers = "*"', "collections.a.askers", "not a list"),
    ('[collections.a]\nfolder = "docs"\naskers = [""]', "collections.a.askers.0", "is empty"),
    ("state = 3", "state", "is 3, not a path"),
    ('state = "mock.csv"', "state", "mock.csv is not a folder"),
    ("[budgets.d]\nepsilon = 1\ndelta = 0.1", "budgets.d", "names no data set of this file"),
    (
        '[datasets.dd]\npath = "mock.csv"\n[budgets.d]\nepsilon = 1\ndelta = 0.1',
        "budgets.d",
        "did you mean dd?",
    ),
    ("[budgets.d]\nepsilon = 0\ndelta = 0.1", "budgets.d.epsilon", "is 0, and must be above 0"),
    ('[budgets.d]\nepsilon = "8"\ndelta = 0.1', "budgets.d.epsilon", "is '8', not a number"),
    ("[budgets.d]\nepsilon = true\ndelta = 0.1", "budgets.d.epsilon", "is true, not a number"),
    ("[budgets.d]\nepsilon = 8\ndelta = nan", "budgets.d.delta", "is nan, not a finite number"),
    ("[budgets.d]\nepsilon = 8\ndelta = 1", "budgets.d.delta", "is 1, and must be below 1"),
    (
        '[datasets.d]\npath = "mock.csv"\nrecords = 100\n[budgets.d]\nepsilon = 1\ndelta = 0.01',
        "budgets.d.delta",
        "must be below one over the records (100) (write at most 0.001)",
    ),
    (
        f'datasets.d = {{path = "mock.csv", records = 0x{"f" * 5000}}}\n[budgets.d]\ndelta = 0.01',
        "budgets.d.delta",
        "one over the records (a huge number)",
    ),
    ("[train]\nmax-reply-bytes = 0", "train.max-reply-bytes", "is 0, and must be at least 1"),
    ("[train]\nmax_reply_bytes = 9", "train.max_reply_bytes", "did you mean max-reply-bytes?"),
    ("[train]\nmax-metrics = 0", "train.max-metrics", "is 0, and must be at least 1"),
    ('[train]\nunclaimed = "sum"', "train.unclaimed", "is `sum` (write withhold or plain)"),
    ('[train]\ntrusted-trainers = ["x"]', "train.trusted-trainers.0", "`sha256:` and 64 digits"),
    ('[train.rules.trian]\narrays = "plain"', "train.rules.trian", "did you mean train?"),
    ('[train.rules.train]\narray = "plain"', "train.rules.train.array", "did you mean arrays?"),
    ('[train.rules.train]\narrays = "plian"', "train.rules.train.arrays", "did you mean plain?"),
    ("[train.site-noise]\nclip-norm = 1", "train.site-noise.noise-multiplier", "is missing"),
    (
        "[train.site-noise]\nclip-norm = -1\nnoise-multiplier = 1",
        "train.site-noise.clip-norm",
        "is -1, and must be at least 1e-100",
    ),
    (
        "[limits]\nmax-line-bytes = 1979-05-27",
        "limits.max-line-bytes",
        "is 1979-05-27, not a whole",
    ),
    (f'[collections.c]\nfolder="docs"\nreason="{"x" * 5000}"', "collections.c.reason", "longer"),
]


@pytest.mark.parametrize(("text", "path", "words"), FAULTS, ids=[f"{t!r}"[:60] for t, *_ in FAULTS])
def test_each_fault_has_its_path_and_a_way_out(
    write: Callable[[str], Path], tmp_path: Path, text: str, path: str, words: str
) -> None:
    (tmp_path / "link.csv").symlink_to("mock.csv")
    (tmp_path / "loop").symlink_to("loop")
    named = text if "name = " in text or not text else f'name = "a"\n{text}'
    found = faults_of(write(named))
    assert words in found[path]


def test_faults_in_and_between_fields_come_at_once(write: Callable[[str], Path]) -> None:
    found = faults_of(
        write(
            """
            name = "A"
            [datasets.a]
            path = "mock.csv"
            records = 10
            [datasets.b]
            path = "mock.csv"
            colour = 1
            [budgets.a]
            epsilon = -1
            delta = 0.5
            [budgets.c]
            """
        )
    )
    assert set(found) == {
        "name",
        "datasets.b.path",
        "datasets.b.colour",
        "budgets.a.epsilon",
        "budgets.a.delta",
        "budgets.c",
        "budgets.c.epsilon",
        "budgets.c.delta",
    }


def test_a_folder_that_may_not_be_entered_is_a_fault_of_its_field(tmp_path: Path) -> None:
    long = "y" * 4000
    file = tmp_path / "site.toml"
    file.write_text(f'name = "a"\nstate = "{long}"\n')
    assert "cannot be read" in faults_of(file)["state"]


def test_relative_paths_start_from_the_files_folder_whatever_the_working_folder_is(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    write('name = "a"\n[datasets.d]\npath = "patients.csv"\n')
    with contextlib.chdir(tmp_path):
        site: SiteFile = load_site_file(Path("site.toml"))
    assert site.datasets["d"].path == tmp_path / "patients.csv"
