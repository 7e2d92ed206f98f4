"""Records and documents with marks that cannot be missed: no byte that leaves a site holds one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

import comity
from comity.adapters.flower.grid import LocalGrid
from comity.adapters.flower.site_engine import Outgoing
from comity.api.demo import DemoSettings, run_demo
from comity.api.results import TrainResult

MARK = 31.415926535897932
SECRET = "zyzzyva-4711"


def forms(value: float) -> list[bytes]:
    """How a number could stand on a wire or in a file."""
    packed = [struct.pack(f"{order}{kind}", value) for order in "<>" for kind in "fd"]
    return [*packed, repr(value).encode(), f"{value:.6f}".encode()]


def everything_in(outgoing: Outgoing) -> bytes:
    content: Any = outgoing.content
    if not hasattr(content, "array_records"):
        return repr(content).encode()
    arrays = [array.data for record in content.array_records.values() for array in record.values()]
    rest = [repr(dict(record)) for record in content.metric_records.values()]
    values = [value for record in content.config_records.values() for value in record.values()]
    rest += [repr(value) for value in values if not isinstance(value, bytes)]
    raw = [value for value in values if isinstance(value, bytes)]
    return b"".join([*arrays, *raw, *(text.encode() for text in rest)])


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that leaves a site's gate for the coordinator; a tap on the line, nothing is changed."""
    seen: list[bytes] = []

    taken = LocalGrid._take

    def tapped(grid: LocalGrid, place: Any, request: Message, outgoing: Outgoing) -> None:
        seen.append(everything_in(outgoing))
        taken(grid, place, request, outgoing)

    monkeypatch.setattr(LocalGrid, "_take", tapped)
    return seen


def plant(folder: Path) -> None:
    for site in ("northgate", "lakeside", "riverside", "st-anne"):
        path = folder / site / "records" / "records.csv"
        head, first, *rest = path.read_text("utf-8").splitlines()
        cells = first.split(",")
        cells[:3] = [repr(MARK)] * 3
        path.write_text("\n".join([head, ",".join(cells), *rest]) + "\n", encoding="utf-8")
        for name in ("incidents", "minutes"):
            note = folder / site / name / "planted.md"
            note.write_text(f"# Sepsis\n\nThe code of the sepsis trolley is {SECRET}.\n", "utf-8")


def test_no_planted_record_or_closed_document_leaves(
    tmp_path: Path, wire: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    first = run_demo(DemoSettings(tmp_path, seeds=1), print)
    wire.clear()
    folder = first.files.folder
    plant(folder)
    for site in ("northgate", "lakeside", "riverside", "st-anne"):
        file = folder / site / "site.toml"
        file.write_text(file.read_text("utf-8").replace("epsilon = 3.0", "epsilon = 8.0"), "utf-8")
    with comity.Federation.local(folder / "federation.toml") as federation:
        result: TrainResult = federation.train(first.files.app, dataset="patients", plan=PLAN)
        answer = federation.ask("What is the code of the sepsis trolley?", asker="visitor")
    model = result.save(tmp_path / "model.npz").read_bytes()
    uploads_and_reveals = 4 * 20 * 2 * 2
    assert len(wire) == uploads_and_reveals + 4
    assert all(len(seen) > 100 for seen in wire)
    shown = capfd.readouterr()
    seen = [*wire, model, repr(answer).encode(), shown.out.encode(), shown.err.encode()]
    assert hits(seen, [*forms(MARK), SECRET.encode()]) == []
    journals = [path.read_bytes() for path in folder.rglob("journal.db*")]
    assert hits(journals, forms(MARK)) == []


def hits(places: Sequence[bytes], needles: Sequence[bytes]) -> list[tuple[int, bytes]]:
    return [
        (number, needle)
        for number, place in enumerate(places)
        for needle in needles
        if needle in place
    ]


def test_the_scan_would_see_a_record_that_left() -> None:
    leaked = struct.pack("<d", MARK)
    assert hits([b"xx" + leaked], forms(MARK)) == [(0, leaked)]


PLAN = comity.training_plan(rounds=20, steps_per_round=3, sampling_rate="0.5", noise_multiplier="7")
