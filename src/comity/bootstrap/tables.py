"""The tables that site files name: read, and compared across sites, before anybody trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from comity.adapters.train.agreed import AgreedTable, check_agreed
from comity.adapters.train.tables import TableLimits
from comity.config.site import DatasetFormat, SiteFile
from comity.ids import DatasetName, SiteName


def check_tables(sites: Iterable[SiteFile], dataset: DatasetName | None = None) -> None:
    """Reads the tables that have a schema, and compares those of one name across sites.

    Args:
        sites: The site files.
        dataset: Only this data set; all of them when None.

    Raises:
        DataError: A table cannot be trained on; names everything that was found, by site.
    """
    check_agreed(
        table
        for site in sites
        for name in site.datasets
        if dataset in {None, name}
        for table in _agreed_tables(site, name)
    )


def _agreed_tables(site: SiteFile, name: str) -> Iterator[AgreedTable]:

    section = site.datasets[name]
    schema = section.table_schema
    if schema is None:
        return
    folder = section.format is DatasetFormat.FOLDER
    limits = TableLimits(site.limits.max_line_bytes, site.limits.max_table_rows)
    budget = site.budgets.get(name)
    delta = budget.delta if budget else None
    for path in sorted(section.path.glob("*.csv")) if folder else [section.path]:
        table = f"{name}/{path.name}" if folder else name
        yield AgreedTable(
            SiteName(site.name),
            table,
            path,
            schema.label,
            schema.features,
            schema.classes,
            limits,
            section.records,
            delta,
        )
