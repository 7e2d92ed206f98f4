"""Measures secure sums beside Flower's SecAgg+, CKKS and plain averaging.

python benchmarks/secagg.py [--quick | --full] [--json FILE]

CPU seconds of one site and of the coordinator, bytes of an upload, the error of the mean: the same
work in the same run, ours and the peers' in turn, medians. Keys of a run are counted to its first
round. Peers come from their own environment: make peers.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from comity.adapters.pki.keys import Identity, verify_signature
from comity.core.policy.rule import SumPolicy
from comity.core.secagg import coordinator as sums
from comity.core.secagg.codec import encode
from comity.core.secagg.mask import RingVector, apply_streams
from comity.core.secagg.messages import AnnounceRequest, Invitation, RoundSpec
from comity.core.secagg.quantize import exponents, mean_arrays
from comity.core.secagg.ring import limit
from comity.core.secagg.site import step
from comity.core.secagg.site_keys import ANNOUNCE_RANDOM_BYTES, binding_of
from comity.core.secagg.site_state import Member, SiteState
from comity.core.secagg.site_upload import (
    UPLOAD_RANDOM_BYTES,
    Contribution,
    MaskedUpload,
    received_digest,
)
from comity.core.secagg.sum_state import SumState, Void
from comity.core.secagg.terms import colluders, honest, least_threshold
from comity.core.secagg.unmask import finished, unmasking

HERE: Final = Path(__file__).parent
PEER_PYTHON: Final = HERE.parent / ".venv-peers" / "bin" / "python"
SITES: Final = (4, 8, 16, 32, 100)
SIZES: Final = (100_000, 1_000_000, 10_000_000)
RATES: Final = (0.0, 0.1, 0.3)
HEADROOM: Final = {16: 2.0, 32: 16.0}
LARGE: Final = 100_000_000
LEADER: Final = "coordinator"


@dataclass(frozen=True, slots=True)
class Cell:
    """One size of work: sites, numbers, sites that drop out before their upload."""

    sites: int
    size: int
    dropped: int

    def __str__(self) -> str:
        return f"{self.sites} sites x {self.size:.0e}, {self.dropped} dropped"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round cost: CPU seconds, bytes of an upload, relative error of the mean."""

    site_s: float
    coordinator_s: float
    size_bytes: int
    error: float | None


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


class Clock:
    """CPU seconds of this process, added up by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def run(self, name: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever `work` gives
        """Runs `work` on the account of `name`."""
        began = time.process_time()
        result = work()
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - began
        return result


@dataclass(slots=True)
class Federation:
    """Sites and a coordinator of ours, linked, with what each of them spent."""

    cell: Cell
    bits: int
    clock: Clock
    leader: Identity
    members: dict[str, Member]
    states: dict[str, SiteState]
    model: dict[str, Any]
    binding: bytes = b""

    @classmethod
    def linked(cls, cell: Cell, bits: int) -> Federation:
        """Makes keys and links every site; that is counted by itself, once a run."""
        names = tuple(f"site-{number:03}" for number in range(cell.sites))
        identities = {name: Identity.from_seed(os.urandom(32)) for name in names}
        leader = Identity.from_seed(os.urandom(32))
        roster = {name: identity.public_key() for name, identity in identities.items()}
        members = {
            name: Member(
                "bench",
                name,
                1,
                roster,
                leader.public_key(),
                SumPolicy(),
                identity.sign,
                verify_signature,
            )
            for name, identity in identities.items()
        }
        states = dict.fromkeys(names, SiteState(run="run"))
        model = {"w": np.random.default_rng(7).normal(0, 0.1, cell.size).astype(np.float32)}
        made = cls(cell, bits, Clock(), leader, members, states, model)
        made._link()
        return made

    def _link(self) -> None:
        asked = AnnounceRequest("bench", "run", 1, 1, 1)
        bodies = tuple(
            encode(self.step(f"keys {name}", name, asked, ANNOUNCE_RANDOM_BYTES))
            for name in self.members
        )
        self.binding = binding_of(bodies)
        invitation = Invitation(encode(self.spec(1, ())), bodies)
        for name in self.members:
            self.step(f"keys {name}", name, invitation, 0)

    def step(self, account: str, name: str, message: Any, random_bytes: int) -> Any:  # noqa: ANN401 - any message, any answer
        """One message to a site, on somebody's account."""
        state, random = self.states[name], os.urandom(random_bytes)
        self.states[name], answer = self.clock.run(
            account, lambda: step(self.members[name], state, message, random)
        )
        return answer

    def spec(self, number: int, tensors: tuple[tuple[str, int, int], ...]) -> RoundSpec:
        """The plan of a round."""
        count, terms, names = self.cell.sites, SumPolicy(), tuple(self.members)
        least = least_threshold(count, colluders(terms, count), honest(terms, count))
        return RoundSpec(
            federation="bench",
            run="run",
            epoch=1,
            round_number=number,
            attempt=1,
            message_type="train",
            cohort=names,
            threshold=least,
            ring_bits=self.bits,
            tensors=tensors,
            metric_slots=4,
            weight_key="num-examples",
            max_weight=512,
        )

    def upload(self, name: str, spec: RoundSpec, update: dict[str, Any], count: int) -> Any:  # noqa: ANN401 - a MaskedUpload
        """A site's whole work of exchange 1."""
        self.step(name, name, Invitation(encode(spec)), 0)
        received = self.clock.run(name, lambda: received_digest(self.model))
        names = ("arrays", "metrics", "loss")
        given = Contribution(update, self.model, float(count), (0.5,), names, received)
        return self.step(name, name, given, UPLOAD_RANDOM_BYTES)


def comity_round(cell: Cell, bits: int) -> tuple[Cost, float]:
    """One whole round of ours on the state machines, and the seconds of a site's keys."""
    made = Federation.linked(cell, bits)
    (exponent,) = exponents([0.5], limit(bits, cell.sites), HEADROOM[bits])
    spec, clock = made.spec(2, (("w", cell.size, exponent),)), made.clock
    received = clock.run(LEADER, lambda: received_digest(made.model))
    state, total = clock.run(LEADER, lambda: sums.opened(spec, made.binding, received))
    rng, names = np.random.default_rng(8), spec.cohort[cell.dropped :]
    true, weight, sent = np.zeros(cell.size), 0, 0
    for name in names:
        change = rng.normal(0, 0.01, cell.size).astype(np.float32)
        update, count = {"w": made.model["w"] + change}, int(rng.integers(10, 500))
        true += update["w"].astype(np.float64) * count
        weight += count
        masked: MaskedUpload = made.upload(name, spec, update, count)
        sent = masked.vector.nbytes + len(encode(masked.upload))
        vectors = (masked.vector, total)
        state = clock.run(LEADER, functools.partial(sums.step, state, name, masked.upload, vectors))
    mean = _revealed(made, state, total)
    error = float(np.linalg.norm(mean - true / weight) / np.linalg.norm(true / weight))
    site = statistics.median(clock.spent[name] for name in names)
    keys = statistics.median(clock.spent[f"keys {name}"] for name in names)
    return Cost(site, clock.spent[LEADER], sent, error), keys


def _revealed(made: Federation, state: SumState, total: RingVector) -> NDArray[Any]:
    clock = made.clock
    state = clock.run(LEADER, functools.partial(sums.closed, state))
    asking = functools.partial(sums.reveal_requests, state, made.leader.sign)
    for name, request in clock.run(LEADER, asking).items():
        answer = made.step(name, name, request, 0)
        if not sums.is_enough(state):
            state = clock.run(LEADER, functools.partial(sums.step, state, name, answer))

    def opened() -> Any:  # noqa: ANN401 - an array
        streams = unmasking(state)
        if isinstance(streams, Void):
            raise SystemExit(f"{made.cell}: {streams}")
        apply_streams(total, streams[0])
        result = finished(state, total, streams[1])
        if isinstance(result, Void):
            raise SystemExit(f"{made.cell}: {result}")
        return mean_arrays(total, state.spec.plan(), result.share, made.model)["w"]

    mean: NDArray[Any] = clock.run(LEADER, opened)
    return mean


def plain_round(cell: Cell) -> Cost:
    """Plain float averaging with Flower's own records and aggregation."""
    rng, clock = np.random.default_rng(7), Clock()
    replies, sent = [], 0
    for number in range(cell.dropped, cell.sites):
        update = rng.normal(0, 0.1, cell.size).astype(np.float32)
        record = clock.run(str(number), functools.partial(_recorded, update))
        sent = len(record["w"].data)
        replies.append(
            RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": number + 1})})
        )
    clock.run(LEADER, functools.partial(aggregate_arrayrecords, replies, "num-examples"))
    site = statistics.median(spent for name, spent in clock.spent.items() if name != LEADER)
    return Cost(site, clock.spent[LEADER], sent, None)


def _recorded(update: NDArray[np.float32]) -> ArrayRecord:
    return ArrayRecord({"w": Array(update)})


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
    if not options.quick:
        rows += large_site()
    Console(width=170).print(shown(rows))
    if options.json:
        machine = {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine()}
        document = {"machine": machine, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(document, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
