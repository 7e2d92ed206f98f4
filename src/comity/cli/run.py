"""`comity run`: any Flower app, on this machine, without Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from comity.cli.terminal import json_option, print_json
from comity.config.faults import counted
from comity.events import Event, ExchangeFinished, SiteDropped

if TYPE_CHECKING:
    from comity.adapters.flower.engine import RunOutcome


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(["local"]),
    default="local",
    show_default=True,
    help="What carries messages; `local` is this machine.",
)
@click.option(
    "--sites",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="How many simulated sites.",
)
@click.option(
    "--run-config",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override the app's own configuration; may be repeated.",
)
@click.option(
    "--site-policy",
    "policy",
    type=click.Path(path_type=Path),
    help="A site file whose policy every simulated site follows.",
)
@click.option(
    "--secure",
    is_flag=True,
    help="Sum what the sites reply, so that nobody sees a single site's update.",
)
@click.option(
    "--ring",
    type=click.Choice(["16", "32"]),
    default="32",
    show_default=True,
    help="Bits of a masked number; 16 halves the bytes and coarsens the mean.",
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="What all app randomness comes from: equal seeds give equal bits.",
)
@click.option("--threads", is_flag=True, help="Run the sites in this process, one after the other.")
@click.option(
    "--parallel-threads", is_flag=True, help="Likewise, overlapping: gives determinism up."
)
@click.option(
    "--unsafe-threads-with-policy",
    is_flag=True,
    help="Allow threads under a site policy, past which an app can then reach.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Worker processes; one a core by default."
)
@click.option(
    "--threads-per-call",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads that numeric libraries use in one app call.",
)
@json_option
def command(**options: Any) -> None:  # noqa: ANN401 - click passes each option by its name
    """Run a Flower app on this machine, each site in a worker process.

    FOLDER holds the app's pyproject.toml with [tool.flwr.app]. The app runs unmodified, in this
    environment and working folder; what it prints appears here.

    \b
    Example:
      comity run ./quickstart-numpy --sites 4 --run-config num-server-rounds=5
    """  # noqa: D301 - click reads \b as "keep these lines"
    from comity.adapters.flower.engine import EngineSettings  # noqa: PLC0415 - flwr takes 0.4 s
    from comity.adapters.flower.worker_process import (  # noqa: PLC0415 - likewise
        fixed_environment,
    )
    from comity.bootstrap import RunOptions, run_flower_app  # noqa: PLC0415 - likewise
    from comity.services.sum_plan import SumSettings  # noqa: PLC0415 - likewise

    folder, sites, policy = (options.pop(name) for name in ("folder", "sites", "policy"))
    secure, ring = options.pop("secure"), int(options.pop("ring"))
    overrides, as_json = options.pop("overrides"), options.pop("as_json")
    del options["engine"]
    restart_with(fixed_environment(options["threads_per_call"]))
    options["threads"] = options["threads"] or options["parallel_threads"]
    err = Console(stderr=True, highlight=False, soft_wrap=True)
    if policy is None and not secure:
        err.print("No site policy: these sites are your own, and everything they answer passes.")
    settings = EngineSettings(**options)
    asked = RunOptions(overrides, policy, SumSettings(ring_bits=ring) if secure else None)
    with _output_to_stderr() if as_json else contextlib.nullcontext():
        outcome = run_flower_app(folder, sites, settings, asked, _Progress(err))
    if as_json:
        print_json(_report(outcome))
    else:
        err.print(_summary(outcome))


def restart_with(environment: dict[str, str]) -> None:
    """Starts this program again under `environment`, once, where it decides bits.

    Python reads its hash seed, and numeric libraries their thread counts, only at the start. A
    caller who embeds the command keeps an environment of their own.
    """
    if Path(sys.argv[0]).name == "comity" and dict(os.environ) != environment:
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - this very program


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Sends what the app prints, here and in its workers, to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class _Progress:
    """One line for each exchange and each dropout, on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, event: Event) -> None:
        if isinstance(event, ExchangeFinished):
            lost = f", {event.dropouts} dropped out" if event.dropouts else ""
            self._console.print(
                f"exchange {event.number}: {event.message_type}, "
                f"{counted(event.asked, 'site')}{lost}, "
                f"{event.seconds:.2f} s"
            )
        elif isinstance(event, SiteDropped):
            self._console.print(f"{event.site} dropped out: {event.error}", markup=False)


def _report(outcome: RunOutcome) -> dict[str, Any]:
    fields = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
    fields["arrays"] = {
        name: {key: list(array.shape) for key, array in record.items()}
        for name, record in outcome.arrays.items()
    }
    for name in ("arrays", "metrics"):  # what an app left nothing of is not there
        if not fields[name]:
            del fields[name]
    return fields


def _summary(outcome: RunOutcome) -> str:
    dropped = sum(outcome.dropouts.values())
    lost = f", {dropped} without a usable one" if dropped else ""
    count = sum(outcome.withheld.values())
    withheld = (
        f", {counted(count, 'part')} withheld ({', '.join(outcome.withheld)})" if count else ""
    )
    return (
        f"{counted(outcome.exchanges, 'exchange')} in {outcome.seconds:.2f} s: "
        f"{counted(outcome.replies, 'reply', 'replies')}"
        f"{lost}{withheld} (seed {outcome.seed})"
    )
