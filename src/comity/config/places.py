"""Faults that lie between the fields of a site file, found in the unchecked document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

from comity.config.faults import did_you_mean, dotted, shown
from comity.config.section import nested
from comity.errors import Fault

DEFAULT_STATE: Final = "state"
MAX_PATH: Final = 4096
"""Characters of a path, as Linux has it."""

Found = tuple[str, str, str]
"""Dotted path, problem, hint."""


def faults_between_fields(document: Mapping[str, Any], file: Path) -> Iterator[Fault]:
    """Each fault of a site file that no single field shows.

    Works on the document as read, so that a fault elsewhere hides none of these: sources and
    folders under two names, budgets without a data set or too large for its records, columns
    named twice, a format that is not what lies on disk.
    """
    folder = file.absolute().parent
    for check in (_shared_sources, _formats):
        for path, problem, hint in check(document, folder):
            yield Fault(path, problem, hint, str(file))
    for path, problem, hint in (*_budgets(document), *_schemas(document)):
        yield Fault(path, problem, hint, str(file))


def _shared_sources(document: Mapping[str, Any], folder: Path) -> Iterator[Found]:
    """Two names over one source would each spend a budget of their own for the same records."""
    seen: list[tuple[str, Path]] = []
    for path, place in _places(document, folder):
        for other, taken in seen:
            same = place == taken or _same_file(place, taken)
            if same or place in taken.parents or taken in place.parents:
                relation = "is the same place as" if same else "overlaps"
                problem = f"{relation} {other}: {place}"
                yield path, problem, "give each its own file or folder: one source has one name"
        seen.append((path, place))


def _same_file(place: Path, other: Path) -> bool:
    """Whether two paths are one file or folder on disk: hard links, or mounts of one folder."""
    try:
        return place.samefile(other)
    except OSError:
        return False


def _places(document: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Path]]:
    """Each place on disk that the file names, by its dotted path."""
    for location, value in _named_places(document):
        place = _place(folder, value)
        if place is not None:
            yield dotted(location), place


def _named_places(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], object]]:
    yield ("state",), document.get("state", DEFAULT_STATE)
    for name, table in nested(document, "datasets").items():
        for key in ("path", "mock"):
            yield ("datasets", name, key), nested(table).get(key)
    for name, table in nested(document, "collections").items():
        yield ("collections", name, "folder"), nested(table).get("folder")


def _place(folder: Path, value: object) -> Path | None:
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_PATH:
        return None
    try:
        return (folder / value).resolve()
    except (OSError, RuntimeError):  # a loop of links: the field's own check reports it
        return None


def _formats(document: Mapping[str, Any], folder: Path) -> Iterator[Found]:
    for name, table in nested(document, "datasets").items():
        format_ = nested(table).get("format", "csv")
        for key in ("path", "mock"):
            place = _place(folder, nested(table).get(key))
            if place is None or not _exists(place):
                continue  # the field's own check reports it
            at = dotted(("datasets", name, key))
            if format_ == "csv" and place.is_dir():
                yield at, f"{place} is a folder, and the format is csv", 'set format = "folder"'
            if format_ == "folder" and not place.is_dir():
                yield at, f"{place} is a file, and the format is folder", 'set format = "csv"'


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:
        return False


def _budgets(document: Mapping[str, Any]) -> Iterator[Found]:
    datasets = nested(document, "datasets")
    for name, budget in nested(document, "budgets").items():
        if name not in datasets:
            hint = did_you_mean(name, datasets) if datasets else f"add [datasets.{name}]"
            yield dotted(("budgets", name)), "names no data set of this file", hint
        delta, records = nested(budget).get("delta"), nested(datasets.get(name)).get("records")
        if name in datasets and records is None:
            problem = f"is missing, and budgets.{name} bounds delta by it"
            yield dotted(("datasets", name, "records")), problem, "write how many it holds at most"
        if _number(delta) and _number(records) and records >= 1 and 1 / records <= delta < 1:
            problem = f"is {delta}, and must be below one over the records ({shown(records)})"
            yield (
                dotted(("budgets", name, "delta")),
                problem,
                f"write at most {1 / (10 * records):.1g}",
            )


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _schemas(document: Mapping[str, Any]) -> Iterator[Found]:
    for name, table in nested(document, "datasets").items():
        schema = nested(table, "schema")
        at = ("datasets", name, "schema")
        for key in ("features", "classes"):
            for word in _twice(schema.get(key)):
                yield dotted((*at, key)), f"names {shown(word)} twice", "name each once"
        features = schema.get("features")
        if isinstance(features, list) and schema.get("label") in features:
            problem = "is also a feature, so the model would be told the answer"
            yield dotted((*at, "label")), problem, "take it out of features"


def _twice(words: object) -> Iterable[str]:
    texts = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
    return dict.fromkeys(word for word in texts if texts.count(word) > 1)
