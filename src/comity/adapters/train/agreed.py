"""Tables that a federation agreed on: read, and compared across sites, before anybody trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from comity.adapters.train.tables import TableLimits, check_same_schema, read_csv
from comity.errors import DataError
from comity.ids import SiteName
from comity.ports import Table


@dataclass(frozen=True, slots=True)
class AgreedTable:
    """One table of a site, and what the federation agreed on.

    Attributes:
        site: Whose it is.
        dataset: The data set, and the file in it where that is a folder: tables of one name are
            compared across sites.
        path: The CSV file.
        label: Name of the label column.
        features: Names of the features, in order; all other columns when empty.
        classes: The labels, in order; those found when empty.
        limits: Bounds on the file.
    """

    site: SiteName
    dataset: str
    path: Path
    label: str
    features: Sequence[str]
    classes: Sequence[str]
    limits: TableLimits


def check_agreed(tables: Iterable[AgreedTable]) -> None:
    """Reads each table and compares those of one name.

    Raises:
        DataError: A table cannot be trained on; names everything that was found, by site.
    """
    found: dict[str, dict[SiteName, Table]] = {}
    problems: list[DataError] = []
    for one in tables:
        with _collected(problems):
            found.setdefault(one.dataset, {})[one.site] = _read(one)
    for name, of_sites in found.items():
        with _collected(problems, f"data set {name}: "):
            if of_sites:
                check_same_schema(of_sites)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "".join(f"\n  - {problem.message}" for problem in problems)
        hint = "; ".join(dict.fromkeys(problem.hint for problem in problems if problem.hint))
        raise DataError(f"{len(problems)} faults in the data:{listed}", hint=hint)


@contextmanager
def _collected(problems: list[DataError], where: str = "") -> Iterator[None]:
    try:
        yield
    except DataError as error:
        problems.append(DataError(where + error.message, hint=error.hint))


def _read(table: AgreedTable) -> Table:
    return read_csv(
        table.path,
        label=table.label,
        feature_names=table.features,
        label_names=table.classes,
        limits=table.limits,
        in_order=True,
    )
