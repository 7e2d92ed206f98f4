"""The tables that site files name: read, and compared across sites, before anybody trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from comity.adapters.train.tables import TableLimits, check_same_schema, read_csv
from comity.config.site import DatasetFormat, SiteFile
from comity.errors import DataError
from comity.ids import SiteName
from comity.ports import Table


def check_tables(sites: Iterable[SiteFile]) -> None:
    """Reads each table that has a schema, and compares those of one name.

    Raises:
        DataError: A table cannot be trained on; names everything that was found, by site.
    """
    found: dict[str, dict[SiteName, Table]] = {}
    problems: list[DataError] = []
    for site in sites:
        for name in site.datasets:
            with _collected(problems):
                table = _table(site, name)
                if table is not None:
                    _check_records(site, name, len(table.labels))
                    found.setdefault(name, {})[SiteName(site.name)] = table
    for name, tables in found.items():
        with _collected(problems, f"data set {name}: "):
            check_same_schema(tables)
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


def _check_records(site: SiteFile, name: str, found: int) -> None:
    """Checks that a table is no larger than its site file says, and delta small enough for it.

    Raises:
        DataError: It is not.
    """
    records, budget = site.datasets[name].records, site.budgets.get(name)
    if budget is not None and budget.delta * found >= 1:
        raise DataError(
            f"site {site.name}: data set {name} holds {found:,} records, and its delta is "
            f"{budget.delta:g}, which is not below one over that",
            hint=f"set budgets.{name}.delta to at most {1 / (10 * found):.1g}",
        )
    if records is not None and found > records:
        raise DataError(
            f"site {site.name}: data set {name} holds {found:,} records; its site file says at "
            f"most {records:,}",
            hint=f"set datasets.{name}.records to at least {found}",
        )


def _table(site: SiteFile, name: str) -> Table | None:
    dataset = site.datasets[name]
    if dataset.format is not DatasetFormat.CSV or dataset.table_schema is None:
        return None
    limits = TableLimits(site.limits.max_line_bytes, site.limits.max_table_rows)
    return read_csv(
        dataset.path,
        label=dataset.table_schema.label,
        feature_names=dataset.table_schema.features,
        label_names=dataset.table_schema.classes,
        limits=limits,
    )
