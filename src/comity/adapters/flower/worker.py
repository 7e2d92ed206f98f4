"""Entry point of a worker process: ``python -m comity.adapters.flower.worker SOCKET FIRST MAX``."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves app calls on an inherited socket; dies with its parent."""
    fd, parent, first_segment, max_bytes = map(int, sys.argv[1:])
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    from comity.adapters.flower.segments import Arena  # noqa: PLC0415 - after the death signal
    from comity.adapters.flower.site_worker import SiteWorker  # noqa: PLC0415 - likewise

    SiteWorker(socket.socket(fileno=fd), Arena(first_segment), max_bytes).serve()


if __name__ == "__main__":
    main()
