"""One worker process as its parent sees it: started clean, killed with all that it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from comity.adapters.flower.channel import socket_pair
from comity.adapters.flower.strays import crew_mark

_STOP_TIMEOUT_S: Final = 5.0
WORKER_NUMBERS: Final = 1 << 32
"""Each worker numbers its segments in a range of this size; the parent has the first."""
_THREAD_VARIABLES: Final = ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR", "BLIS")


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """A started worker.

    Attributes:
        process: The operating system's process, leader of its own group.
        sock: This side of its socket.
        numbers: The segment numbers that it may use.
        ready: Whether it has loaded the app.
        in_hand: Numbers of the calls that it was given, the one that it is in first.
        asked_back: Calls behind these that it was asked to give back; it answers for each once.
        known: Segments that it has mapped.
        own: Segments that it made.
        free: Segments of its own that it may use again; told with the next call.
        closed: Segments that are gone; told with the next call.
    """

    process: subprocess.Popen[bytes]
    sock: socket.socket
    numbers: range
    ready: bool = False
    in_hand: deque[int] = field(default_factory=deque)
    asked_back: set[int] = field(default_factory=set)
    known: set[int] = field(default_factory=set)
    own: set[int] = field(default_factory=set)
    free: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)

    @classmethod
    def start(cls, writer: int, *, threads_per_call: int, max_bytes: int) -> WorkerProcess:
        """Starts a worker that serves until this side closes its socket or ends.

        Args:
            writer: Unique among a run's workers, from 1; keeps their segment numbers apart.
            threads_per_call: Threads that numeric libraries use.
            max_bytes: Bound on one frame and one segment.
        """
        here, there = socket_pair()
        own = range(writer * WORKER_NUMBERS, (writer + 1) * WORKER_NUMBERS)
        numbers = (there.fileno(), os.getpid(), own.start, max_bytes)
        with there:
            process = subprocess.Popen(  # noqa: S603 - this interpreter and our own module
                # -P: what lies in the working folder is data, never code
                [sys.executable, "-P", "-m", "comity.adapters.flower.worker", *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                pass_fds=(there.fileno(),),
                env=fixed_environment(threads_per_call) | crew_mark(),
                process_group=0,  # so that all it starts can be stopped, and Ctrl-C stays ours
            )
        return cls(process, here, own)

    @property
    def is_idle(self) -> bool:
        """Whether it can begin with a call at once."""
        return self.ready and not self.in_hand and not self.asked_back

    def kill(self) -> None:
        """Kills the process and all others of its group, waits for it, closes the socket."""
        self.sock.close()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.process.kill()
        self.process.wait(_STOP_TIMEOUT_S)


def fixed_environment(threads_per_call: int) -> dict[str, str]:
    """The caller's environment, with what decides bits fixed: hash seed and thread counts.

    Freed memory stays with the process: faulting 4 MB in again costs more than writing it.
    """
    fixed = {f"{name}_NUM_THREADS": str(threads_per_call) for name in _THREAD_VARIABLES}
    kept = {f"MALLOC_{name}_THRESHOLD_": str(1 << 30) for name in ("MMAP", "TRIM")}
    return kept | {"MALLOC_ARENA_MAX": "1"} | dict(os.environ) | fixed | {"PYTHONHASHSEED": "0"}
