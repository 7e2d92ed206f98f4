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
        records: The most that its site file says it holds; None says nothing.
        delta: Of the data set's budget; None where it has none.
    """

    site: SiteName
    dataset: str
    path: Path
    label: str
    features: Sequence[str]
    classes: Sequence[str]
    limits: TableLimits
    records: int | None = None
    delta: float | None = None


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
    read = read_csv(
        table.path,
        label=table.label,
        feature_names=table.features,
        label_names=table.classes,
        limits=table.limits,
        in_order=True,
    )
    _check_records(table, len(read.labels))
    return read


def _check_records(table: AgreedTable, found: int) -> None:
    """Checks that a table is no larger than its site file says, and delta small enough for it.

    Raises:
        DataError: It is not.
    """
    name = table.dataset.split("/", 1)[0]
    if table.delta is not None and table.delta * found >= 1:
        raise DataError(
            f"site {table.site}: data set {table.dataset} holds {found:,} records, and its delta "
            f"is {table.delta:g}, which is not below one over that",
            hint=f"set budgets.{name}.delta to at most {1 / (10 * found):.1g}",
        )
    if table.records is not None and found > table.records:
        raise DataError(
            f"site {table.site}: data set {table.dataset} holds {found:,} records; its site file "
            f"says at most {table.records:,}",
            hint=f"set datasets.{name}.records to at least {found}",
        )
