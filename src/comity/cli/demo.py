"""`comity demo`: the two jobs, on one machine, in under a minute."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from comity.cli.terminal import console, json_option, print_json, print_table, print_wrapped
from comity.events import Event, ExchangeFinished, SiteDropped

if TYPE_CHECKING:
    from comity.api.demo import DemoResult
    from comity.services.answer import Answer

ASKED_AS: Final = "clinician"
COMPARED: Final = (
    "Accuracy and AUC on the same held-back records. Each hospital alone, and the federation, "
    "train at the same epsilon. Pooled is the forbidden upper bound: all records in one place, no "
    "protection, computed outside the federation."
)
NOT_KNOWN_BEFOREHAND: Final = (
    "Which hospital is best alone is not known beforehand, and by chance it can reach the score of "
    "the four."
)
EPSILON_IN_WORDS: Final = (
    "Epsilon bounds what anyone can learn about one patient from what left in training: smaller is "
    "safer."
)
SUMS_IN_WORDS: Final = (
    "What was trained, and each round's score, left masked, inside secure sums: the coordinator "
    "read the hospitals' totals, no single one's part. The scores carry no privacy claim."
)


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path("comity-demo"),
    show_default=True,
    help="Where runs are kept, each in a folder of its own.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True, max=8),
    default=3.0,
    show_default=True,
    help="Each hospital's total epsilon; a plan that does not fit is refused.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="How many runs are kept; an older one that nobody changed since is removed.",
)
@json_option
def command(folder: Path, budget: float, keep: int, *, as_json: bool) -> None:
    """Four hospitals train one diagnosis model and answer three questions.

    Real patient records, real noise, real journals; no network. Takes less than a minute.

    \b
    Example:
      comity demo
      comity demo --budget 1     # refused before training, with what would fit
    """  # noqa: D301 - click reads \b as "keep these lines"
    from comity.api.demo import (  # noqa: PLC0415 - takes a second
        DemoSettings,
        planned_rounds,
        run_demo,
    )
    from comity.api.demo_files import prune  # noqa: PLC0415 - takes a second

    out = Console(stderr=True, quiet=True) if as_json else console()
    with _telling(out, planned_rounds()) as (step, events):
        result = run_demo(DemoSettings(folder, budget), step, events)
    document = record(result)
    _keep(result, document)
    prune(folder, keep)
    if as_json:
        print_json(document)
    else:
        _show(out, result)


@contextmanager
def _telling(
    out: Console, rounds: int
) -> Iterator[tuple[Callable[[str], None], Callable[[Event], None]]]:
    """A bar for the rounds on a terminal, a line now and then when piped."""
    columns = (
        TextColumn("  round"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[lost]}"),
    )
    bar = Progress(*columns, console=out, disable=not out.is_terminal, transient=False)
    task = bar.add_task("rounds", total=rounds, visible=False, lost="")
    done = 0

    def step(words: str) -> None:
        if done:
            bar.stop()
        print_wrapped(out, words, style="bold")

    def events(event: Event) -> None:
        nonlocal done
        if isinstance(event, SiteDropped):
            bar.update(task, lost=f"{event.site} dropped out")
        if isinstance(event, ExchangeFinished) and event.message_type == "train":
            done += 1
            if done == 1:
                bar.start()
            bar.update(task, completed=done, visible=True)
            if not out.is_terminal and (done % 5 == 0 or done == rounds):
                out.print(f"  round {done} of {rounds}")

    try:
        yield step, events
    finally:
        bar.stop()


def _keep(result: DemoResult, document: dict[str, Any]) -> None:
    from comity.adapters.report.page import render  # noqa: PLC0415 - matplotlib takes 0.5 s
    from comity.api.demo_files import Whole, seal_run  # noqa: PLC0415 - likewise

    with Whole(result.files.folder):
        result.files.results.write_text(json.dumps(document, indent=2), encoding="utf-8")
        result.files.report.write_text(render(document), encoding="utf-8")
        seal_run(result.files.folder)


def record(result: DemoResult) -> dict[str, Any]:
    """The result as JSON-ready fields: what `--json` prints and the report is made from."""
    run = result.run
    return {
        "run": run.run,
        "training_s": round(run.seconds, 2),
        "seeds": result.seeds,
        "records": {
            site: {"train": train, "held_back": held}
            for site, (train, held) in result.records.items()
        },
        "history": {name: list(values) for name, values in run.history.items()},
        "comparison": [
            {
                "name": row.name,
                "label": label_of(row.name),
                "epsilon": row.epsilon,
                "accuracy": {"mean": row.accuracy.mean, "deviation": row.accuracy.deviation},
                "auc": {"mean": row.auc.mean, "deviation": row.auc.deviation},
            }
            for row in result.comparison
        ],
        "sites": [
            {
                "site": site.site,
                "training_bytes": site.released_bytes,
                "answer_bytes": result.answered_bytes[site.site],
                "released_parts": site.released_parts,
                "raw_records": site.unprotected_parts,
                "budget": dataclasses.asdict(site.budget) if site.budget else None,
            }
            for site in run.sites
        ],
        "raw_records_that_left": sum(site.unprotected_parts for site in run.sites),
        "withheld": dict(run.withheld),
        "answers": [answer.record() for answer in result.answers],
        "ledger": {site: list(lines) for site, lines in result.ledger.items()},
        "audit": {site: list(lines) for site, lines in result.audit.items()},
        "files": {
            field.name: str(getattr(result.files, field.name))
            for field in dataclasses.fields(result.files)
        },
    }


def _show(out: Console, result: DemoResult) -> None:
    out.print()
    print_table(out, _comparison(result))
    for note in (COMPARED, NOT_KNOWN_BEFOREHAND):
        print_wrapped(out, note, style="dim")
    out.print()
    print_table(out, _leaving(result))
    raw = sum(site.unprotected_parts for site in result.run.sites)
    out.print(f"raw records that left: [bold]{raw}[/] (counted from the audit chains)")
    for note in (EPSILON_IN_WORDS, SUMS_IN_WORDS):
        print_wrapped(out, note, style="dim")
    for number, answer in enumerate(result.answers, 1):
        _show_answer(out, number, answer)
    _show_closed(out, result.answers[-1])
    _show_ending(out, result)


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )


def _comparison(result: DemoResult) -> Table:
    table = _table(f"One diagnosis model ({result.seeds} seeds, mean ± deviation)")
    table.add_column("trained by")
    for name in ("accuracy", "AUC", "epsilon"):
        table.add_column(name, justify="right")
    for row in result.comparison:
        epsilon = "none" if row.epsilon is None else f"{row.epsilon:.2f}"
        style = "bold" if row.name == "federated" else "dim" if row.name == "pooled" else ""
        table.add_row(label_of(row.name), str(row.accuracy), str(row.auc), epsilon, style=style)
    return table


def label_of(name: str) -> str:
    """How tables and charts call a way of training."""
    names = {"federated": "the four together", "pooled": "pooled (forbidden)"}
    return names.get(name, f"{name} alone")


def _leaving(result: DemoResult) -> Table:
    table = _table("What left each hospital")
    table.add_column("hospital")
    for name in ("patients", "training, bytes", "answers, bytes", "epsilon spent"):
        table.add_column(name, justify="right")
    for site in result.run.sites:
        budget = site.budget
        table.add_row(
            site.site,
            str(result.records[site.site][0]),
            f"{site.released_bytes:,}",
            f"{result.answered_bytes[site.site]:,}",
            f"{budget.epsilon_spent:.2f} of {budget.epsilon_total:g}" if budget else "none",
        )
    return table


def _show_answer(out: Console, number: int, answer: Answer) -> None:
    out.print()
    print_wrapped(out, f"Question {number}: {answer.question}", hanging=2, style="bold")
    print_wrapped(out, answer.text, indent=2)
    for one in answer.citations:
        source = f"{one.site}, {one.title} ({one.document})"
        print_wrapped(out, f"[{one.number}] {source}", indent=2, style="cyan")
        print_wrapped(out, f'"{one.quote}"', indent=6, style="dim")


def _show_closed(out: Console, answer: Answer) -> None:
    out.print()
    out.print("[bold]Not opened to this asker[/] (whatever they hold):")
    for one in answer.closed:
        told = f"{one.site}, {one.collection}: {one.reason} ({one.policy})"
        print_wrapped(out, told, indent=2, hanging=6)


def _show_ending(out: Console, result: DemoResult) -> None:
    files = result.files
    out.print()
    out.print("[bold]Where things lie[/]")
    for name, path in (
        ("report", files.report),
        ("model", files.model),
        ("journals", files.folder / "HOSPITAL" / "state" / "journal.db"),
    ):
        out.print(f"  {name:9}{path}", markup=False, soft_wrap=True)
    out.print("[bold]Try next[/]")
    for line in next_commands(result):
        out.print(f"  {line}", markup=False, soft_wrap=True)


def next_commands(result: DemoResult) -> tuple[str, ...]:
    """Three commands that work as they stand."""
    files = result.files
    question = "How is a patient with delirium cared for?"
    comity = program()
    return (
        f"{comity} audit show --state {files.folder}/northgate/state",
        f'{comity} ask "{question}" --federation {files.federation} --as {ASKED_AS}',
        f"{comity} new my-app --template numpy",
    )


def program() -> str:
    """What to type for this very program: its name where the PATH finds it, else its path."""
    started = Path(sys.argv[0]).absolute()
    found = shutil.which("comity")
    if found is not None and Path(found).absolute() == started:
        return "comity"
    here = Path.cwd()
    return str(started.relative_to(here) if started.is_relative_to(here) else started)
