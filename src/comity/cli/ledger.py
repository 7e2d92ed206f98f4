"""`comity ledger`: what a site's data sets were promised and what was spent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from comity.cli.state import open_state, state_option
from comity.cli.terminal import console, json_option, print_json, print_table, print_wrapped
from comity.core.policy.rule import Budget, Unit
from comity.core.privacy.ledger import Account, Freed, LedgerState, plan_record
from comity.errors import WrongStage
from comity.ids import ReservationId
from comity.services.ledger import budget_state

_COLUMNS: Final = ("data set", "total", "reserved", "spent", "remaining")


@click.group()
def command() -> None:
    """Show or verify a site's privacy budget; free what was reserved and never used.

    \b
    Example:
      comity ledger show --state .comity/site-a
    """  # noqa: D301 - click reads \b as "keep these lines"


@command.command()
@state_option
@json_option
def show(folder: Path, *, as_json: bool) -> None:
    """Show each data set's budget: total, reserved, spent, and what remains for further plans.

    Plans of which nothing has left are listed with their ids: comity ledger free gives one back.

    \b
    Example:
      comity ledger show --state .comity/site-a
    """  # noqa: D301 - click reads \b as "keep these lines"
    with open_state(folder) as state:
        books = state.custody.books
        closed = books.ledger.closed
        rows = [_figures(account, closed=closed) for account in books.ledger.accounts.values()]
        document = {"site": state.site, "records": books.head.sequence, "data_sets": rows}
        document["unused"] = _unused(books.ledger)
        if state.custody.behind:
            document["behind"] = state.custody.behind
    if as_json:
        print_json(document)
        return
    _print(document)


@command.command()
@state_option
@json_option
def verify(folder: Path, *, as_json: bool) -> None:
    """Verify every record, the kept head, and that what was spent was reserved before.

    Names any altered, removed, reordered or cut-off record, and an old copy put back (exit 4).

    \b
    Example:
      comity ledger verify --state .comity/site-a
    """  # noqa: D301 - click reads \b as "keep these lines"
    with open_state(folder) as state:
        state.check_whole()
        books = state.custody.books
        reservations = len(books.ledger.holders)
        document = {
            "site": state.site,
            "records": books.head.sequence,
            "head": books.head.hash.hex(),
            "data_sets": len(books.ledger.accounts),
            "reservations": reservations,
        }
    if as_json:
        print_json(document)
        return
    print_wrapped(
        console(),
        f"{document['site']}: {document['records']} records verified, each linked to the one "
        f"before; the kept head agrees. Data sets: {document['data_sets']}, reservations: "
        f"{reservations}; nothing ran that was not reserved.",
    )


@command.command()
@click.argument("reservation")
@state_option
@json_option
def free(reservation: str, folder: Path, *, as_json: bool) -> None:
    """Give a reserved plan back of which nothing has left; recorded in the journal.

    For a plan whose run was killed: a run that fails frees its plans itself. Refused if anything of
    the plan left. The ids of unused plans stand in: comity ledger show.

    \b
    Example:
      comity ledger free 5f1c0a9be2d34b7790aa16bd03c1e824 --state .comity/site-a
    """  # noqa: D301 - click reads \b as "keep these lines"
    with open_state(folder, read_only=False) as state:
        account, held = state.custody.books.ledger.reservation(ReservationId(reservation))
        if held.freed:
            raise WrongStage(f"reservation {reservation} was given back before")
        head = state.custody.commit([Freed(held.reservation)])
        document = {
            "site": state.site,
            "data_set": account.dataset,
            "freed": held.reservation,
            "records": head.sequence,
        }
    if as_json:
        print_json(document)
        return
    console().print(
        f"{document['site']}: reservation {reservation} on {document['data_set']} was given back.",
        markup=False,
        soft_wrap=True,
    )


def _print(document: Mapping[str, Any]) -> None:
    out, rows = console(), document["data_sets"]
    if rows:
        title = f"Privacy budget of {document['site']} (epsilon)"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for column in _COLUMNS:
            table.add_column(column, justify="left" if column == "data set" else "right")
        for row in rows:
            table.add_row(*(_cell(row[column.replace(" ", "_")]) for column in _COLUMNS))
        print_table(out, table)
    else:
        out.print(f"{document['site']} has no data set on its books yet.", markup=False)
    for row in rows:
        claim = f"for one {row['unit']}, at delta {row['delta']}; " if row["unit"] else ""
        print_wrapped(out, f"{row['data_set']}: {claim}{row['state']}.")
        if row["note"]:
            print_wrapped(out, f"That is: {row['note']} (order {float(row['order']):g}).")
    for held in document["unused"]:
        events = sum(int(item["count"]) for item in held["plan"])
        print_wrapped(
            out,
            f"Reserved and unused: {held['reservation']} on {held['data_set']}, {events} events.",
        )
    if document.get("behind"):
        print_wrapped(out, f"Nothing leaves this site: {document['behind']}.")


def _unused(ledger: LedgerState) -> list[dict[str, Any]]:
    return [
        {
            "reservation": held.reservation,
            "data_set": account.dataset,
            "plan": plan_record(held.plan),
        }
        for account in ledger.accounts.values()
        for held in account.reservations.values()
        if not (held.freed or held.spent.spends)
    ]


def _figures(account: Account, *, closed: bool) -> dict[str, Any]:
    from comity.adapters.accounting.dp_accountant import (  # noqa: PLC0415 - 1 s to import
        DpAccountant,
    )

    reserved = account.reserved
    figures: dict[str, Any] = {
        "data_set": account.dataset,
        "unit": "",
        "total": None,
        "reserved": None if closed else 0.0,
        "spent": None if closed else 0.0,
        "remaining": 0.0 if closed else None,
        "enforced": None,
        "order": account.filter_order,
        "delta": account.delta,
        "state": "closed: records were lost, so all of it counts as spent" if closed else "new",
        "note": "",
        "plan": [{**spend.event.as_record(), "count": spend.count} for spend in reserved.spends],
    }
    if account.epsilon and reserved.spends:
        budget = Budget(
            float(account.epsilon),
            float(account.delta),
            unit=Unit(reserved.spends[0].event.unit),
            filter_order=float(account.filter_order),
        )
        found = budget_state(account, budget, DpAccountant(), closed=closed)
        figures |= {
            "unit": found.unit,
            "total": found.epsilon_total,
            "reserved": found.epsilon_plan,
            "spent": found.epsilon_spent,
            "remaining": found.epsilon_remaining,
            "enforced": found.epsilon_enforced,
            "state": found.state,
            "note": found.told,
        }
    return figures


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
