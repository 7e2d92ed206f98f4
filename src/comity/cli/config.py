"""`comity config`: check, explain or export the federation and site files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from comity.cli.terminal import console, json_option, print_json
from comity.config.explain import Statement, explain_federation, explain_site
from comity.config.federation import FederationFile, load_federation_file
from comity.config.read import read_toml
from comity.config.schema import KINDS, json_schema, reference_page
from comity.config.site import SiteFile, load_site_file
from comity.errors import ConfigError, Fault

_FILE: Final = click.Path(path_type=Path)


@click.group(short_help="Check, explain or export the federation and site files.")
def command() -> None:
    """Check, explain or export the federation and site files.

    \b
    Example:
      comity config check federation.toml
    """  # noqa: D301 - click reads \b as "keep these lines"


@command.command()
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE...")
@click.option("--data", is_flag=True, help="Also read the tables: are they fit to train on?")
@json_option
def check(files: tuple[Path, ...], *, data: bool, as_json: bool) -> None:
    """Print everything that is wrong with the files, or a short OK.

    A federation file is checked together with the site files that it names. With --data every
    table that has a schema is read: no record, no NaN, a missing, renamed or moved column, a label
    missing, another order of features at another site.

    \b
    Example:
      comity config check federation.toml site-a/site.toml
      comity config check federation.toml --data
    """  # noqa: D301 - click reads \b as "keep these lines"
    checked: list[tuple[Path, str]] = []
    sites: list[SiteFile] = []
    errors: list[ConfigError] = []
    for file in files:
        try:
            found = _load(file)
            checked.append((file, _summary(found)))
            sites += found.load_site_files() if isinstance(found, FederationFile) else [found]
        except ConfigError as error:
            errors.append(error)
    if errors:
        raise _together(errors)
    if data:
        from comity.bootstrap.tables import check_tables  # noqa: PLC0415 - only with --data

        check_tables({site.name: site for site in sites}.values())
    if as_json:
        print_json({"ok": True, "files": [{"file": file, "is": what} for file, what in checked]})
        return
    out = console()
    for file, what in checked:
        out.print(f"OK  {file}: {what}", markup=False, soft_wrap=True)


@command.command()
@click.argument("file", type=_FILE)
@click.argument("path", default="")
@json_option
def explain(file: Path, path: str, *, as_json: bool) -> None:
    """Say in plain sentences what FILE allows, and what of it is a default.

    PATH, such as train.rules, limits it to a part of the file. A protection that is switched off
    is marked OPEN.

    \b
    Example:
      comity config explain site-a/site.toml train
    """  # noqa: D301 - click reads \b as "keep these lines"
    statements = [found for found in _statements(_load(file)) if _under(found.path, path)]
    if not statements:
        raise ConfigError(
            f"{file} says nothing about {path!r}",
            hint=f"leave PATH out to see everything: comity config explain {file}",
        )
    if as_json:
        print_json({"file": file, "statements": [dataclasses.asdict(s) for s in statements]})
        return
    out = console()
    for found in statements:
        mark = Text("OPEN  ", style="bold red") if found.open else Text("      ")
        source = "written" if found.written else "default"
        out.print(mark + Text(found.text), soft_wrap=True)
        out.print(Text(f"      {found.path} ({source})", style="dim"), soft_wrap=True)
    opened = sum(found.open for found in statements)
    if opened:
        noun = "protection is" if opened == 1 else "protections are"
        out.print(Text(f"{opened} {noun} switched off or weak; see OPEN above.", style="bold red"))


@command.command()
@click.argument("kind", required=False, type=click.Choice(sorted(KINDS)))
@click.option("--reference", is_flag=True, help="Print the reference page of all files instead.")
@json_option
def schema(kind: str | None, *, reference: bool, as_json: bool) -> None:
    """Print the JSON schema of a kind of file, for editors and other tools.

    \b
    Example:
      comity config schema site > site.schema.json
    """  # noqa: D301 - click reads \b as "keep these lines"
    del as_json  # a schema is JSON either way
    if reference:
        click.echo(reference_page(), nl=False)
        return
    if kind is None:
        raise click.UsageError(f"name a KIND: {' or '.join(sorted(KINDS))}")
    print_json(json_schema(kind))


def _load(file: Path) -> FederationFile | SiteFile:
    """Reads either kind: a file that lists sites, or is called so, is a federation file."""
    if "sites" in read_toml(file) or file.name.startswith("federation"):
        found = load_federation_file(file)
        found.load_site_files()
        return found
    return load_site_file(file)


def _together(errors: Sequence[ConfigError]) -> ConfigError:
    """One error with the faults of all, each once."""
    if len(errors) == 1:
        return errors[0]
    faults: dict[Fault, None] = {}
    for error in errors:
        faults.update(dict.fromkeys(error.faults or (Fault("file", error.message, error.hint),)))
    return ConfigError(f"{len(faults)} faults found", faults=faults)


def _summary(found: FederationFile | SiteFile) -> str:
    if isinstance(found, FederationFile):
        return f"federation {found.name} of {_count(found.sites, 'site')}"
    datasets, collections = (
        _count(found.datasets, "data set"),
        _count(found.collections, "collection"),
    )
    return f"site {found.name} with {datasets} and {collections}"


def _count(things: Iterable[object], what: str) -> str:
    number = sum(1 for _ in things)
    return f"{number} {what}" + ("" if number == 1 else "s")


def _statements(found: FederationFile | SiteFile) -> Iterable[Statement]:
    return explain_federation(found) if isinstance(found, FederationFile) else explain_site(found)


def _under(path: str, part: str) -> bool:
    return not part or path == part or path.startswith(f"{part}.")
