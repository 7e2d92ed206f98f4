"""The operating system's clock and generator."""

from __future__ import annotations

import os
import time


class SystemClock:
    """`Clock` of this machine."""

    def wall_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never goes backwards."""
        return time.monotonic()


class SystemRng:
    """`Rng` of the operating system."""

    def token(self, size: int) -> bytes:
        """`size` bytes, uniform and unpredictable."""
        return os.urandom(size)
