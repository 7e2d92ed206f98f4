"""Where the demonstration keeps its runs: each in a folder of its own, whole or not at all."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from types import TracebackType
from typing import Final

from comity.adapters.flower.app import app_digest
from comity.adapters.train.tables import SiteSplit
from comity.errors import UnavailableError
from comity.ports import Table

DATASET: Final = "patients"
DELTA: Final = 1e-5
LABEL: Final = "diagnosis"
KEPT_RUNS: Final = 10
_MADE: Final = ".comity-demo.json"
"""Size and time of each file as the run left it; a folder that differs was changed since."""


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where things lie.

    Attributes:
        folder: This run's own folder.
        federation: The federation file; each hospital's folder lies beside it.
        app: The Flower app.
        model: The trained arrays.
        report: The HTML report.
        results: The same as JSON.
    """

    folder: Path
    federation: Path
    app: Path
    model: Path
    report: Path
    results: Path


class Whole:
    """What fails within leaves no folder behind; a disk that takes nothing is said so.

    Example:
        with Whole(folder):
            write(folder)

    Raises:
        UnavailableError: In place of the `OSError` that a disk gave.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        above = self._folder.parent
        if above.is_dir() and not any(above.iterdir()):
            above.rmdir()
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise UnavailableError(
                f"{error.filename or self._folder}: {error.strerror or error}",
                hint="make room, or choose another place with --folder",
            ) from error


def fresh_folder(place: Path) -> Path:
    """The folder of the next run: a journal is never reset, so a run never reuses one."""
    return place / f"run-{max(_runs(place), default=0) + 1}"


def prepare(folder: Path) -> DemoFiles:
    """Lays out the hospitals' documents and the app in `folder`, which does not exist yet.

    Raises:
        OSError: The folder cannot be written.
    """
    with as_file(files("comity") / "templates") as templates:
        shutil.copytree(templates / "hospitals", folder)
        shutil.copytree(
            templates / "diagnosis",
            folder / "diagnosis",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    return DemoFiles(
        folder=folder,
        federation=folder / "federation.toml",
        app=folder / "diagnosis",
        model=folder / "model.npz",
        report=folder / "report.html",
        results=folder / "results.json",
    )


def write_hospitals(files_of: DemoFiles, splits: Mapping[str, SiteSplit], epsilon: float) -> None:
    """Writes each hospital's records, and the part of its site file that rules training.

    Raises:
        OSError: The folder cannot be written.
    """
    digest = app_digest(files_of.app)
    for name, split in splits.items():
        folder = files_of.folder / name
        records = folder / "records"
        records.mkdir()
        _write_csv(records / "records.csv", split.train)
        _write_csv(records / "held-back.csv", split.held_back)
        with (folder / "site.toml").open("a", encoding="utf-8") as file:
            file.write(_training_sections(digest, epsilon, split.train))


def _training_sections(digest: str, epsilon: float, table: Table) -> str:
    features = "".join(f"  {json.dumps(name)},\n" for name in table.feature_names)
    return f"""
[datasets.{DATASET}]
path = "records"
format = "folder"
records = {len(table.labels)}

# What the hospitals agreed on: each file of records is checked against it before any training.
[datasets.{DATASET}.schema]
label = "{LABEL}"
classes = {json.dumps(table.label_names)}
features = [
{features}]

# The privacy that one patient's record may lose in all, over the life of this data set.
[budgets.{DATASET}]
epsilon = {epsilon!r}
delta = {DELTA!r}

# The one app whose own noise this hospital trusts, by the digest of its code.
[train]
trusted-trainers = ["{digest}"]

# What was trained leaves inside a secure sum; so does the score, which has no rule of its own.
[train.rules.train]
arrays = "sum"
metrics = "withhold"
"""


def _write_csv(path: Path, table: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*table.feature_names, LABEL])
        for row, label in zip(table.features.tolist(), table.labels, strict=True):
            writer.writerow([*(repr(value) for value in row), table.label_names[label]])


# --- runs of before ---------------------------------------------------------------------------


def seal_run(folder: Path) -> None:
    """Notes how the run left its folder, so that a later change can be seen.

    Raises:
        OSError: The note cannot be written.
    """
    (folder / _MADE).write_text(json.dumps(_state(folder)), encoding="utf-8")


def prune(place: Path, keep: int) -> list[Path]:
    """Removes the oldest finished runs beyond `keep`; returns them.

    A folder that anybody changed since its run, by a question asked there or a file added, is
    never removed, and neither is one that this demonstration did not finish.
    """
    runs = _runs(place)
    old = [runs[number] for number in sorted(runs)[: max(0, len(runs) - keep)]]
    untouched = [folder for folder in old if _as_it_was_left(folder)]
    for folder in untouched:
        shutil.rmtree(folder, ignore_errors=True)
    return untouched


def _runs(place: Path) -> dict[int, Path]:
    found = place.glob("run-*") if place.is_dir() else ()
    named = ((re.fullmatch(r"run-(\d{1,9})", path.name), path) for path in found)
    return {int(match[1]): path for match, path in named if match}


def _as_it_was_left(folder: Path) -> bool:
    try:
        noted = json.loads((folder / _MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(noted == _state(folder))


def _state(folder: Path) -> dict[str, list[int]]:
    return dict(sorted(_files(folder)))


def _files(folder: Path) -> Iterator[tuple[str, list[int]]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != _MADE:
            found = path.stat()
            yield path.relative_to(folder).as_posix(), [found.st_size, found.st_mtime_ns]
