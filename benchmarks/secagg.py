"""Measures secure sums beside Flower's SecAgg+, CKKS and plain averaging.

python benchmarks/secagg.py [--quick | --full] [--json FILE]

CPU seconds of one site and of the coordinator, bytes of an upload, the error of the mean: the same
work in the same run, ours and the peers' in turn, medians. Keys of a run are counted to its first
round. A whole round on the local engine is timed with and without secure sums, in wall seconds.
Peers come from their own environment: make peers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from comity.core.policy.rule import SumPolicy
from comity.core.secagg.terms import colluders, honest, least_threshold
from engine_runs import FaultyRunError
from secagg_rounds import Cell, Cost, Federation, comity_round, plain_round
from secure_round import secure_rounds

HERE: Final = Path(__file__).parent
PEER_PYTHON: Final = HERE.parent / ".venv-peers" / "bin" / "python"
SITES: Final = (4, 8, 16, 32, 100)
SIZES: Final = (100_000, 1_000_000, 10_000_000)
RATES: Final = (0.0, 0.1, 0.3)
LARGE: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison; `ratio` is the peer's figure over ours."""

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


class Peer:
    """A process in the peers' environment that answers a line for each line."""

    def __init__(self) -> None:
        if not PEER_PYTHON.exists():
            raise SystemExit("the peers' environment is missing: make peers")
        self._process = subprocess.Popen(
            [PEER_PYTHON, HERE / "secagg_on_flower.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, work: str, cell: Cell) -> tuple[Cost, str] | None:
        """What a peer's round cost, and its version; None where it is not installed."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        assert self._process.stdout is not None  # noqa: S101 - likewise
        self._process.stdin.write(json.dumps({"work": work, **asdict(cell)}) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        if "missing" in found:
            return None
        cost = Cost(found["site_s"], found["coordinator_s"], found["bytes"], found["error"])
        return cost, found["version"]

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def cells(sites: tuple[int, ...], sizes: tuple[int, ...]) -> Iterator[Cell]:
    """Each cell once; drop-outs rounded, never more than the defaults tolerate."""
    terms = SumPolicy()
    for size in sizes:
        for count in sites:
            least = least_threshold(count, colluders(terms, count), honest(terms, count))
            for dropped in dict.fromkeys(min(round(count * rate), count - least) for rate in RATES):
                yield Cell(count, size, dropped)


def compared(cell: Cell, peer: Peer, runs: int) -> list[Row]:
    """Ours in both rings, SecAgg+ and plain averaging, in turn."""
    ours: dict[int, list[Cost]] = {16: [], 32: []}
    theirs: list[Cost] = []
    plain: list[Cost] = []
    version = ""
    keys: list[float] = []
    for _ in range(runs):
        for bits, found in ours.items():
            cost, spent = comity_round(cell, bits)
            found.append(cost)
            keys.append(spent)
        answer = peer.run("secagg+", cell)
        if answer is not None:
            theirs.append(answer[0])
            version = answer[1]
        plain.append(plain_round(cell))
    once = statistics.median(keys)
    rows = [
        _row((str(cell), "keys of a site, once a run"), (once, float("nan")), ("none", ""), None)
    ]
    for bits, found in ours.items():
        rows += list(
            _against(cell, bits, _median(found), (_median(theirs), _median(plain), version))
        )
    return rows


def _against(cell: Cell, bits: int, ours: Cost, others: tuple[Cost, Cost, str]) -> Iterator[Row]:
    theirs, plain, version = others
    work = f"{cell}, ring {bits}"
    special = cell == Cell(16, 1_000_000, 5)
    site_goal = (18 if bits == 16 else 12) if special else 10
    lead_goal = 25 if special else 15 if cell.size <= 1_000_000 else 7
    name = "Flower SecAgg+"
    yield _row((work, "site CPU"), (ours.site_s, theirs.site_s), (name, version), site_goal)
    yield _row(
        (work, "coordinator CPU"),
        (ours.coordinator_s, theirs.coordinator_s),
        (name, version),
        lead_goal,
    )
    goal = 2.0 if not cell.dropped else None
    yield _row(
        (work, "coordinator CPU"),
        (ours.coordinator_s, plain.coordinator_s),
        ("plain averaging", version),
        goal,
    )
    per = ours.size_bytes / cell.size
    bound = 2.02 if bits == 16 else 4.02
    met = per <= bound if cell.size >= 1_000_000 else None
    yield Row(
        work,
        "upload",
        "bytes a number",
        per,
        name,
        version,
        theirs.size_bytes / cell.size,
        theirs.size_bytes / ours.size_bytes,
        f"<= {bound}",
        met,
    )
    error = ours.error or 0.0
    fine = error <= 5e-7 if bits == 32 else None
    yield Row(
        work,
        "relative error of the mean",
        "",
        error,
        name,
        version,
        theirs.error or float("nan"),
        (theirs.error or float("nan")) / error,
        "<= 5e-7" if bits == 32 else None,
        fine,
    )


def _row(
    what: tuple[str, str], values: tuple[float, float], peer: tuple[str, str], goal: float | None
) -> Row:
    ours, theirs = values
    ratio = theirs / ours if ours else float("nan")
    text = None if goal is None else f">= {goal:g} times less"
    return Row(
        *what, "s", ours, *peer, theirs, ratio, text, None if goal is None else ratio >= goal
    )


def _median(found: list[Cost]) -> Cost:
    if not found:
        return Cost(float("nan"), float("nan"), 0, None)
    errors = [cost.error for cost in found if cost.error is not None]
    return Cost(
        statistics.median(cost.site_s for cost in found),
        statistics.median(cost.coordinator_s for cost in found),
        found[0].size_bytes,
        statistics.median(errors) if errors else None,
    )


def encrypted(peer: Peer, size: int) -> list[Row]:
    """CKKS beside our ring of 32 bits."""
    cell = Cell(8, size, 0)
    answer = peer.run("ckks", cell)
    if answer is None:
        return []
    theirs, version = answer
    ours, _ = comity_round(cell, 32)
    name = "CKKS (TenSEAL)"
    cpu = (ours.site_s * 8 + ours.coordinator_s, theirs.site_s * 8 + theirs.coordinator_s)
    return [
        _row((str(cell), "CPU of all"), cpu, (name, version), 100),
        Row(
            str(cell),
            "upload",
            "bytes a number",
            ours.size_bytes / size,
            name,
            version,
            theirs.size_bytes / size,
            theirs.size_bytes / ours.size_bytes,
            ">= 14 times less",
            theirs.size_bytes >= 14 * ours.size_bytes,
        ),
    ]


def whole_rounds(*, quick: bool) -> list[Row]:
    """A secure round beside a plain one on the local engine; ends where the two disagree."""
    try:
        found = secure_rounds(SIZES[0] if quick else SIZES[1], rounds=8, repeats=3 if quick else 5)
    except FaultyRunError as error:
        raise SystemExit(str(error)) from error
    return [Row(**fields) for fields in found]


def large_site() -> list[Row]:
    """Peak memory of a site with 1e8 numbers, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--large-site"], capture_output=True, text=True, check=True
    )
    gigabytes = int(done.stdout.split()[-1]) / 2**20
    return [
        Row(
            f"one of 16 sites x {LARGE:.0e}",
            "peak memory of a site",
            "GiB",
            gigabytes,
            "none",
            "",
            float("nan"),
            float("nan"),
            "<= 1.5 GB with its model",
            gigabytes * 1.0737 <= 1.5,
        )
    ]


def _large_site() -> None:
    """Masks one update of 1e8 numbers; held besides are the model and the update, 400 MB each."""
    made = Federation.linked(Cell(16, LARGE, 0), 32)
    update = {"w": made.model["w"] + np.float32(0.25)}
    made.upload("site-000", made.spec(2, (("w", LARGE, 20),)), update, 100)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def shown(rows: list[Row]) -> Table:
    """The rows for people."""
    table = Table("work", "metric", "ours", "peer", "theirs", "ratio", "goal", "met")
    for row in rows:
        met = "" if row.met is None else "yes" if row.met else "NO"
        table.add_row(
            row.work,
            row.metric,
            f"{row.comity:.4g} {row.unit}",
            f"{row.peer} {row.peer_version}",
            f"{row.peer_value:.4g}",
            f"{row.ratio:.3g}",
            row.goal or "",
            met,
        )
    return table


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size, under a minute")
    parser.add_argument("--full", action="store_true", help="every cell, an hour")
    parser.add_argument("--json", type=Path, help="write rows and machine to this file")
    parser.add_argument("--large-site", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.large_site:
        _large_site()
        return
    if options.quick:
        chosen = list(cells((8,), SIZES[:1]))
    elif options.full:
        chosen = list(cells(SITES, SIZES))
    else:
        chosen = [*cells(SITES[:4], SIZES[:2]), Cell(16, 10_000_000, 0), Cell(100, 100_000, 30)]
    peer, rows = Peer(), []
    for cell in chosen:
        rows += compared(cell, peer, runs=1 if cell.sites * cell.size > 3e7 else 3)
    rows += encrypted(peer, 100_000 if options.quick else 1_000_000)
    peer.close()
    rows += whole_rounds(quick=options.quick)
    if not options.quick:
        rows += large_site()
    Console(width=170).print(shown(rows))
    if options.json:
        machine = {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine()}
        document = {"machine": machine, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(document, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
