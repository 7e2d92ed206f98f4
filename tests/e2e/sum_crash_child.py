"""Started by the crash test: one site of a secure sum kills itself at the n-th step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.fakes.gate_site import PATIENTS, plan
from tests.fakes.lasting_sum_site import lasting
from tests.fakes.sum_sites import federation

from comity.ports import SealedUpload


def main() -> None:
    folder, step = Path(sys.argv[1]), int(sys.argv[2])
    passed, armed = 0, False

    def fault(point: str) -> None:
        nonlocal passed
        passed += armed
        if armed and passed == step:
            os.kill(os.getpid(), signal.SIGKILL)
        print("passed", point, flush=True)

    site = lasting(folder, fault=fault)

    def tamper(stage: str, name: str, body: Any) -> Any:
        if name == site.name:
            if stage in {"announced", "invited", "revealed"}:
                fault(f"before {stage} leaves")
            raw = body.header if isinstance(body, SealedUpload) else body
            print(stage, raw.hex(), flush=True)
        return body

    four = federation(sites=[site], tamper=tamper)
    site.gate.reserve(PATIENTS, plan(8), purpose="study")
    armed = True
    four.sum()
    print("done", flush=True)


if __name__ == "__main__":
    main()
