"""`comity audit`: what left a site, and who asked for it."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from pathlib import Path

import click

from comity.cli.state import open_state, state_option
from comity.cli.terminal import console, json_option, print_json
from comity.services.audit import describe


@click.group()
def command() -> None:
    """Show or verify what left a site, and who asked for it.

    \b
    Example:
      comity audit show --state .comity/site-a
    """  # noqa: D301 - click reads \b as "keep these lines"


@command.command()
@state_option
@click.option("--last", default=20, show_default=True, help="How many records; 0 for all.")
@json_option
def show(folder: Path, last: int, *, as_json: bool) -> None:
    """Tell what left this site, to whom and for what, one sentence a record.

    \b
    Example:
      comity audit show --state .comity/site-a --last 5
    """  # noqa: D301 - click reads \b as "keep these lines"
    with open_state(folder) as state:
        records = deque(state.journal.records(), maxlen=last or None)
        lines = [describe(record, state.site) for record in records]
        document = {"site": state.site, "records": [asdict(line) for line in lines]}
    if as_json:
        print_json(document)
        return
    out = console()
    for line in lines:
        out.print(f"{line.sequence:>6}  {line.sentence}", markup=False, soft_wrap=True)
    if not lines:
        out.print("Nothing is recorded yet.")


@command.command()
@state_option
@json_option
def verify(folder: Path, *, as_json: bool) -> None:
    """Verify that no record was altered, removed, reordered, cut off or put back from a copy.

    \b
    Example:
      comity audit verify --state .comity/site-a
    """  # noqa: D301 - click reads \b as "keep these lines"
    with open_state(folder) as state:
        state.check_whole()
        head = state.custody.books.head
        told = len([describe(record, state.site).sequence for record in state.journal.records()])
        document = {"site": state.site, "records": told, "head": head.hash.hex()}
    if as_json:
        print_json(document)
        return
    console().print(
        f"{document['site']}: {told} records verified, none altered, removed, reordered or cut "
        "off; the kept head agrees.",
        soft_wrap=True,
    )
