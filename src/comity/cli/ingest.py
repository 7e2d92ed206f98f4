"""`comity ingest`: a folder of documents becomes searchable at a site."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from comity.cli.terminal import console, json_option, print_json
from comity.errors import ConfigError, DataError

if TYPE_CHECKING:
    from comity.ids import CollectionName
    from comity.services.ingest import IngestReport

MAX_NAMED: Final = 20
"""Documents that an error names one by one."""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--site-file", "site_file", type=click.Path(path_type=Path), required=True, metavar="FILE"
)
@click.option("--collection", metavar="NAME", help="Only this collection of the site file.")
@json_option
def command(folder: Path | None, site_file: Path, collection: str | None, *, as_json: bool) -> None:
    """Make a folder of documents searchable at a site.

    Without FOLDER, each collection takes in the folder that the site file names. Only what changed
    is read again; what is gone is removed. Text, Markdown and HTML files are read; other kinds are
    skipped and counted. A file that cannot be read is named at the end, as an error, and the others
    are searchable.

    \b
    Example:
      comity ingest --site-file north/site.toml
      comity ingest ./new-manuals --site-file north/site.toml --collection devices
    """  # noqa: D301 - click reads \b as "keep these lines"
    from comity.bootstrap import ingest_folder, open_passages  # noqa: PLC0415 - slow to import
    from comity.config.site import load_site_file  # noqa: PLC0415 - likewise
    from comity.ids import CollectionName  # noqa: PLC0415 - likewise

    site = load_site_file(site_file)
    names = [collection] if collection else list(site.collections)
    if folder is not None and len(names) != 1:
        raise ConfigError("a folder goes into one collection", hint="name it: --collection NAME")
    unknown = set(names) - set(site.collections)
    if unknown or not names:
        known = ", ".join(sorted(site.collections)) or "none"
        raise ConfigError(
            f"{site_file} has no collection {collection or ''}".rstrip(),
            hint=f"write [collections.NAME] in it; it has {known}",
        )
    reports: dict[CollectionName, IngestReport] = {}
    with open_passages(site) as store:
        for name in map(CollectionName, names):
            source = folder or site.collections[name].folder
            reports[name] = ingest_folder(site, store, name, source)
    if as_json:
        print_json(
            {
                "site": site.name,
                "collections": {
                    name: dataclasses.asdict(report) for name, report in reports.items()
                },
            }
        )
    else:
        for name, report in reports.items():
            _print(name, report)
    _check_all_taken_in(reports)


def _print(name: str, report: IngestReport) -> None:
    files = "1 file" if report.skipped == 1 else f"{report.skipped} files"
    skipped = f"; {files} of other kinds skipped" if report.skipped else ""
    console().print(
        f"{name}: {report.added} added, {report.replaced} replaced, {report.removed} removed, "
        f"{report.unchanged} unchanged; {report.passages} passages written{skipped}"
    )


def _check_all_taken_in(reports: Mapping[CollectionName, IngestReport]) -> None:
    """The others are searchable; what is not must not go unnoticed in a script.

    Raises:
        DataError: Names each document that was not taken in, why, and the way out.
    """
    refused = [one for report in reports.values() for one in report.refused]
    lines = [f"\n  - {one.reason}" + (f" ({one.hint})" if one.hint else "") for one in refused]
    if lines:
        more = f"\n  - and {len(lines) - MAX_NAMED} more" if len(lines) > MAX_NAMED else ""
        count = "1 document was" if len(lines) == 1 else f"{len(lines)} documents were"
        raise DataError(
            f"{count} not taken in:{''.join(lines[:MAX_NAMED])}{more}",
            hint="correct them and ingest again",
        )
