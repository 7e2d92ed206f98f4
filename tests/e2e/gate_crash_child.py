"""Started by the crash test: works through a gate and kills itself at the n-th step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from tests.fakes.gate_site import (
    PATIENTS,
    FaultyHeads,
    FaultyJournal,
    Site,
    exchange,
    plan,
    private_arrays,
)

from comity.adapters.store.heads import FileHeadKeeper
from comity.adapters.store.journal import SqliteJournal
from comity.adapters.store.layout import state_layout
from comity.release import Released


def main() -> None:
    folder, step = Path(sys.argv[1]), int(sys.argv[2])
    passed = 0

    def fault(point: str) -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)
        print("passed", point, flush=True)

    layout = state_layout(folder, create=True)
    site = Site(
        journal=FaultyJournal(SqliteJournal(layout.journal), fault),
        heads=FaultyHeads(FileHeadKeeper(layout.head), fault),
    )
    gate = site.gate()
    reservation = gate.reserve(PATIENTS, plan(4), purpose="study")
    print("reserved", reservation, flush=True)
    for number in range(3):
        (outcome,) = gate.release(exchange(f"e{number}"), [private_arrays(reservation)])
        fault("before the released value leaves")
        print("left" if isinstance(outcome, Released) else "stayed", flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main()
