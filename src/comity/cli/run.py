"""`comity run`: any Flower app, on this machine, without Ray."""

from __future__ import annotations

import ctypes
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from comity.cli.terminal import json_option, print_json
from comity.events import Event, ExchangeFinished, SiteDropped

if TYPE_CHECKING:
    from comity.adapters.flower.engine import RunOutcome

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--engine", type=click.Choice(["local"]), default="local", show_default=True)
@click.option("--sites", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--run-config", "overrides", multiple=True, metavar="KEY=VALUE")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", is_flag=True, help="Run the sites in this process, one after the other.")
@click.option("--parallel-threads", is_flag=True, help="Likewise, overlapping: no determinism.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Worker processes; one a core if unset."
)
@json_option
def command(
    folder: Path, engine: str, sites: int, overrides: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Run a Flower app on this machine, each site in a worker process.

    FOLDER holds the app's pyproject.toml with [tool.flwr.app]. The app runs unmodified, in this
    environment and working folder; what it prints appears here.

    \b
    Example:
      comity run ./quickstart-numpy --sites 4 --run-config num-server-rounds=5
    """  # noqa: D301 - click reads \b as "keep these lines"
    del engine
    from comity.adapters.flower.engine import EngineSettings  # noqa: PLC0415 - flwr takes 0.4 s
    from comity.bootstrap import run_flower_app  # noqa: PLC0415 - likewise

    keep_large_blocks()
    options["threads"] = options["threads"] or options["parallel_threads"]
    settings = EngineSettings(**options)
    err = Console(stderr=True, highlight=False)
    err.print(f"{sites} simulated sites without a policy file: everything they answer passes")
    outcome = run_flower_app(folder, sites, settings, overrides, _Progress(err))
    report = _report(outcome)
    if as_json:
        print_json(report)
    else:
        err.print(_summary(outcome))


class _Progress:
    """Says one line for each exchange, and each dropout, on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: Event) -> None:
        if isinstance(event, ExchangeFinished):
            lost = f", {event.dropouts} dropped out" if event.dropouts else ""
            self._console.print(
                f"exchange {event.number}: {event.message_type}, {event.asked} sites{lost}, "
                f"{event.seconds:.2f} s"
            )
        elif isinstance(event, SiteDropped):
            self._console.print(f"{event.site} dropped out: {event.error}")


def keep_large_blocks() -> None:
    """Lets freed memory stay with this process: faulting in 4 MB costs more than writing it."""
    libc = ctypes.CDLL(None)
    for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        libc.mallopt(parameter, 1 << 30)


def _report(outcome: RunOutcome) -> dict[str, Any]:
    fields = {f.name: getattr(outcome, f.name) for f in dataclasses.fields(outcome)}
    fields["arrays"] = {
        name: {key: list(array.shape) for key, array in record.items()}
        for name, record in outcome.arrays.items()
    }
    return fields


def _summary(outcome: RunOutcome) -> str:
    dropped = sum(outcome.dropouts.values())
    lost = f", {dropped} without a usable one" if dropped else ""
    return (
        f"{outcome.exchanges} exchanges in {outcome.seconds:.2f} s: {outcome.replies} replies"
        f"{lost} (seed {outcome.seed})"
    )
