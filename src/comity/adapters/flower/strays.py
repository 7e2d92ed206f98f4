"""Processes that an app started and that moved out of their worker's process group.

When their parent is gone they become children of the nearest process that asked for it, Linux's
child subreaper, instead of the system's first. A mark in the environment that a worker starts with
tells them from the caller's own children. An app that starts a program with an environment made
anew, detached, still gets away.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SET_SUBREAPER: Final = 36
_GET_SUBREAPER: Final = 37
_ROUNDS: Final = 100
"""How often to look again: what is ended may have had children of its own."""
MARK: Final = "COMITY_CREW_OF"


def crew_mark() -> dict[str, str]:
    """What a worker's environment says of whose it is."""
    return {MARK: str(os.getpid())}


def adopt_strays() -> bool:
    """Makes this process the parent of all orphans below it; whether it was that before."""
    libc, before = ctypes.CDLL(None), ctypes.c_int(0)
    libc.prctl(_GET_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(_SET_SUBREAPER, 1, 0, 0, 0)
    return bool(before.value)


def end_strays(*, adopting: bool) -> None:
    """Kills the orphans that carry this process's mark; goes on adopting only if `adopting`."""
    for _ in range(_ROUNDS):
        found = [pid for pid in _children() if _is_marked(pid)]
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    ctypes.CDLL(None).prctl(_SET_SUBREAPER, int(adopting), 0, 0, 0)


def _children() -> Iterator[int]:
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that just ended, or a kernel without this
            yield from map(int, listed.read_text().split())


def _is_marked(pid: int) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{MARK}={os.getpid()}".encode() in variables
