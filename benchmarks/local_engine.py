"""Measures the local engine beside Flower's own Ray simulation and a plain training loop.

python benchmarks/local_engine.py [--quick] [--json FILE]

The same Flower apps, unmodified, run on each engine in turn; figures are medians over runs.
Flower's simulation comes from the peers' environment: make peers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from engine_runs import HERE, PEERS, Engine, FaultyRunError, Timings, Work, measure

RAY: Final = Engine("Flower on Ray", "run_on_ray.py")
PLAIN: Final = Engine("plain loop", "plain_loop.py")
PROCESSES: Final = Engine("worker processes")
THREADS: Final = Engine("threads", options={"settings": {"threads": True}})
PARALLEL: Final = Engine(
    "parallel threads", options={"settings": {"threads": True, "parallel_threads": True}}
)
GATED: Final = Engine(
    "worker processes, durable gates", options={"policy": str(HERE / "open_site.toml")}
)
SITES, USERS, COHORT = 10, 200, 50
SMALL, LARGE = "10 KB", "4 MB"
SIZES: Final = {SMALL: 10_000, LARGE: 4_000_000}
FASTER: Final = {
    (PROCESSES.name, SMALL): 8.0,
    (PROCESSES.name, LARGE): 3.0,
    (THREADS.name, SMALL): 17.0,
    (THREADS.name, LARGE): 5.0,
    (PARALLEL.name, SMALL): 17.0,
    (PARALLEL.name, LARGE): 5.0,
}
FIRST_S: Final = {PROCESSES.name: 3.0, THREADS.name: 1.0, PARALLEL.name: 1.0}
OVER_PLAIN: Final = 1.15


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    Attributes:
        work: What was run, and how here.
        metric: What was measured.
        unit: Of both figures.
        comity: Ours.
        peer: With whom it is compared.
        peer_version: The peer's version.
        peer_value: The peer's figure in the same run.
        ratio: The peer's figure over ours, median of runs side by side: above one, ours is faster.
        goal: What was aimed at; None where a figure is only told.
        met: Whether it was reached.
    """

    work: str
    metric: str
    unit: str
    comity: float
    peer: str
    peer_version: str
    peer_value: float
    ratio: float
    goal: str | None = None
    met: bool | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table and writes the rows; 1 when a run was faulty."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one size, one run each: no verdict")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows, machine, versions")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if not PEERS.exists():
        console.print("Flower's simulation is not installed: make peers")
        return 1
    versions = _versions()
    try:
        rows, replies = _measured(versions, quick=options.quick)
    except FaultyRunError as error:
        console.print(str(error), markup=False)
        return 1
    machine = _machine()
    console.print(_table(rows))
    console.print(
        f"{machine['cores']} cores, {machine['cpu']}; every one of {sum(replies.values())} "
        "replies was usable; ratio: the peer's figure over ours, median of runs side by side"
    )
    if options.json:
        document = {
            "machine": machine,
            "versions": versions,
            "replies": replies,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


def _measured(versions: Mapping[str, str], *, quick: bool) -> tuple[list[Row], dict[str, int]]:
    rows: list[Row] = []
    replies: dict[str, int] = {}
    repeats = 1 if quick else 5
    for size in [SMALL] if quick else SIZES:
        work = _moving_arrays(size, rounds=10 if quick else 30)
        found = measure(work, [RAY, PROCESSES, THREADS, PARALLEL, GATED], repeats)
        _agree(work, found)
        rows += _ray_rows(size, found, versions)
        replies |= {f"{work.name}: {name}": timed.replies for name, timed in found.items()}
    work = _training(rounds=3 if quick else 20)
    found = measure(work, [PLAIN, PROCESSES, THREADS, PARALLEL], repeats)
    rows += _plain_rows(work, found, versions)
    replies |= {f"{work.name}: {name}": timed.replies for name, timed in found.items()}
    return rows, replies


def _moving_arrays(size: str, rounds: int) -> Work:
    config = [f"rounds={rounds}", f"array-bytes={SIZES[size]}"]
    order = {"folder": str(HERE / "apps" / "rounds"), "sites": SITES, "config": config}
    return Work(f"{SITES} sites, {size}", order, rounds, SITES)


def _training(rounds: int) -> Work:
    order = {
        "folder": str(HERE / "apps" / "cohort"),
        "sites": USERS,
        "config": [f"rounds={rounds}", f"cohort={COHORT}"],
        "rounds": rounds,
        "users": USERS,
        "cohort": COHORT,
        "threads": 1,
    }
    return Work(f"PyTorch, {COHORT} of {USERS} users", order, rounds, COHORT)


def _agree(work: Work, found: Mapping[str, Timings]) -> None:
    """Engines that did the same work have the same model, up to the order of float32 sums."""
    means = {name: timed.mean for name, timed in found.items()}
    expected = means[RAY.name]
    if not all(math.isclose(mean, expected, rel_tol=1e-5) for mean in means.values()):
        raise FaultyRunError(f"{work.name}: final models differ: {means}")


def _ray_rows(
    size: str, found: Mapping[str, Timings], versions: Mapping[str, str]
) -> Iterator[Row]:
    version = f"flwr {versions['peer flwr']}, ray {versions['peer ray']}"
    ray = found[RAY.name]
    for engine in (PROCESSES, THREADS, PARALLEL, GATED):
        ours = found[engine.name]
        for metric, told in (
            ("rounds", "a round"),
            ("first", "first round"),
            ("command", "first round, Python's start too"),
        ):
            value, ratio = ours.median(metric), ours.ratio(ray, metric)
            least = FASTER.get((engine.name, size)) if metric == "rounds" else None
            most = FIRST_S.get(engine.name) if metric == "first" else None
            yield Row(
                f"{SITES} sites, {size}, {engine.name}",
                told,
                "s",
                value,
                RAY.name,
                version,
                ray.median(metric),
                ratio,
                f">= {least:g}x" if least else f"<= {most:g} s" if most else None,
                ratio >= least if least else value <= most if most else None,
            )
    gated, plain = found[GATED.name], found[PROCESSES.name]
    figures = gated.median("rounds"), plain.median("rounds"), gated.ratio(plain, "rounds")
    work = f"{SITES} sites, {size}, {GATED.name}"
    peer = "Comity without a site policy"
    yield Row(work, "a round", "s", figures[0], peer, versions["comity"], *figures[1:])


def _plain_rows(
    work: Work, found: Mapping[str, Timings], versions: Mapping[str, str]
) -> Iterator[Row]:
    version = f"torch {versions['torch']}"
    plain = found[PLAIN.name]
    for engine in (PROCESSES, THREADS, PARALLEL):
        for metric, told in (
            ("rounds", "a round"),
            ("whole", f"{work.rounds} rounds, Python's start too"),
        ):
            ours = found[engine.name]
            value, theirs, ratio = (
                ours.median(metric),
                plain.median(metric),
                ours.ratio(plain, metric),
            )
            goal = f"<= {OVER_PLAIN}x the plain loop" if metric == "rounds" else None
            met = ratio >= 1 / OVER_PLAIN if goal else None
            name = f"{work.name}, {engine.name}"
            yield Row(name, told, "s", value, PLAIN.name, version, theirs, ratio, goal, met)


def _table(rows: Sequence[Row]) -> Table:
    table = Table()
    for name in ("work", "metric", "peer", "goal", "met"):
        table.add_column(name)
    for position, name in ((2, "comity"), (4, "peer's"), (5, "ratio")):
        table.add_column(name, justify="right")
        table.columns.insert(position, table.columns.pop())
    for row in rows:
        met = "" if row.met is None else "yes" if row.met else "NO"
        figures = (_seconds(row.comity), row.peer, _seconds(row.peer_value), f"{row.ratio:.2f}x")
        table.add_row(row.work, row.metric, *figures, row.goal or "", met)
    return table


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": names[0] if names else platform.machine(),
        "load": os.getloadavg()[0],
    }


def _versions() -> dict[str, str]:
    ours = {name: importlib.metadata.version(name) for name in ("comity", "flwr", "numpy", "torch")}
    code = "import importlib.metadata as m; print(m.version('flwr'), m.version('ray'))"
    asked = subprocess.run([PEERS, "-c", code], capture_output=True, text=True, check=True)
    flwr, ray = asked.stdout.split()
    return {**ours, "python": platform.python_version(), "peer flwr": flwr, "peer ray": ray}


if __name__ == "__main__":
    sys.exit(main())
