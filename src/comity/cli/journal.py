"""`comity journal`: the way back after a loss."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import click

from comity.adapters.store.heads import read_head
from comity.adapters.store.system import SystemClock, SystemRng
from comity.cli.state import damaged_head, open_state, set_head_aside, state_option
from comity.cli.terminal import console, json_option, print_json
from comity.services.books import CLOCK
from comity.services.custody import Note

_SALT_BYTES = 16
DAY_S = 86_400


@click.group()
def command() -> None:
    """Restore a site's journal after a loss, on the record.

    \b
    Example:
      comity journal restore --state .comity/site-a --reason "disk failed on Monday"
    """  # noqa: D301 - click reads \b as "keep these lines"


@command.command()
@state_option
@click.option(
    "--known",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A peer's copy of this site's newest head; it can show that nothing was lost.",
)
@click.option("--reason", default="", help="What happened; kept beside the chain, erasable.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def restore(folder: Path, known: Path | None, reason: str, *, yes: bool, as_json: bool) -> None:
    """Record that records were lost and open the site again.

    What the lost records spent is unknown, so every privacy budget of this journal counts as
    spent from then on, unless a peer's copy of the head (--known) shows that nothing was lost. If
    a newer copy of the journal exists anywhere, put that back instead.

    \b
    Example:
      comity journal restore --state .comity/site-a --reason "disk failed on Monday"
    """  # noqa: D301 - click reads \b as "keep these lines"
    damage = damaged_head(folder)
    if damage:
        if not yes:
            click.confirm(f"{damage}.\nSet it aside and go on?", abort=True, err=True)
        set_head_aside(folder)
    with open_state(folder, read_only=False) as state:
        behind = state.custody.behind
        if behind and not yes:
            click.confirm(f"{behind}.\nRecord the loss and go on?", abort=True, err=True)
        signed = read_head(known.read_bytes()) if known else None
        head = state.custody.restore(signed, _note(reason) if reason else None)
        closed = state.custody.books.ledger.closed
        document = {
            "site": state.site,
            "was_behind": behind,
            "records": head.sequence,
            "budgets": "spent" if closed else "unchanged",
        }
    if as_json:
        print_json(document)
        return
    told = "every privacy budget counts as spent" if closed else "nothing was lost"
    console().print(
        f"{document['site']} is open again at record {head.sequence}; {told}.",
        markup=False,
        soft_wrap=True,
    )


@command.command()
@state_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def clock(folder: Path, *, yes: bool, as_json: bool) -> None:
    """Record that this machine's clock is right, so that days count from it.

    A clock that is more than 366 days ahead of the last release stops the site, since a wrong one
    would use up the daily quotas of all days until then; one that ran ahead is set back with this
    too. What was counted stays counted.

    \b
    Example:
      comity journal clock --state .comity/site-a
    """  # noqa: D301 - click reads \b as "keep these lines"
    with open_state(folder, read_only=False) as state:
        now = SystemClock().wall_s()
        today, before = int(now // DAY_S), state.custody.books.day
        if not yes:
            shown = datetime.fromtimestamp(now, tz=UTC).strftime("%d %B %Y")
            click.confirm(f"Today is {shown}; record that?", abort=True, err=True)
        head = state.custody.commit([], [(CLOCK, {"day": today})])
        document = {
            "site": state.site,
            "day": today,
            "day_before": before,
            "records": head.sequence,
        }
    if as_json:
        print_json(document)
        return
    console().print(f"{document['site']}: days count from today on.", markup=False)


def _note(text: str) -> Note:
    salted = SystemRng().token(_SALT_BYTES) + text.encode()
    return Note(hashlib.sha256(salted).hexdigest(), salted)
