"""`comity ask`: one question, answered from all sites' documents with citations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from comity.cli.terminal import console, json_option, print_json
from comity.events import Event, JournalStarted

if TYPE_CHECKING:
    from comity.config.federation import FederationFile
    from comity.services.answer import Answer

MEMBER: Final = "member"
"""Who asks where nobody is named."""
EVERY_MEMBER: Final = "*"
"""What opens a collection to everybody, as site files write it."""


@click.command()
@click.argument("question")
@click.option(
    "--federation",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The federation file; its sites with a site file are asked.",
)
@click.option("--as", "asker", default=MEMBER, show_default=True, metavar="ROLE", help="Who asks.")
@click.option("--as-indexed", is_flag=True, help="Do not look for changed documents before asking.")
@json_option
def command(
    question: str, federation: Path, asker: str, *, as_indexed: bool, as_json: bool
) -> None:
    """Ask the federation a question and get a cited answer.

    Each site searches its own documents and decides what leaves. The answer quotes sentences, each
    with its site, document and the words; collections that a site keeps closed to ROLE are listed
    with the reason. Where no document that is open to ROLE carries an answer, it says so.

    \b
    Example:
      comity ask "How often is the gearbox oil changed?" --federation federation.toml --as engineer
    """  # noqa: D301 - click reads \b as "keep these lines"
    from comity.bootstrap import open_gateway  # noqa: PLC0415 - slow to import
    from comity.config.federation import load_federation_file  # noqa: PLC0415 - likewise

    file = load_federation_file(federation)
    _warn_of_unknown(asker, file)
    folder = federation.absolute().parent
    with open_gateway(file, ingest=not as_indexed, events=_events, folder=folder) as gateway:
        answer = gateway.ask(question, asker=asker)
    if as_json:
        print_json(answer.record())
    else:
        print_answer(answer)


def _warn_of_unknown(asker: str, file: FederationFile) -> None:
    """A misspelt role is answered as any member: say so, by what the site files name alone."""
    sections = [one for site in file.load_site_files() for one in site.collections.values()]
    named = frozenset[str]().union(*(one.askers for one in sections)) - {EVERY_MEMBER}
    if named and asker not in named | {MEMBER}:
        click.echo(
            f'warning: no site file here names "{asker}"; they name {", ".join(sorted(named))}. '
            "Only what is open to every member is asked.",
            err=True,
        )


def _events(event: Event) -> None:
    if isinstance(event, JournalStarted):
        click.echo(str(event), err=True)


def print_answer(answer: Answer) -> None:
    """Prints an answer: its text, what the marks stand for, what stayed closed and why."""
    from comity.core.answer.plain import plain  # noqa: PLC0415 - shown texts are untrusted

    out = console()
    out.print(Text("\n".join(plain(line) for line in answer.text.split("\n"))))
    if answer.citations:
        out.print()
    for one in answer.citations:
        out.print(Text(f"[{one.number}] {one.site}, {plain(one.title)} ({plain(one.document)})"))
        out.print(Text(f"    “{plain(one.quote)}”"))
    if answer.closed:
        out.print(Text("\nClosed to you:"))
    for closed in answer.closed:
        place = f"{closed.site}, {closed.collection}"
        out.print(Text(f"  {place}: {plain(closed.reason)} ({plain(closed.policy)})"))
    for silent in answer.silent:
        out.print(Text(f"No answer from {silent.site}: {plain(silent.reason)}"))
