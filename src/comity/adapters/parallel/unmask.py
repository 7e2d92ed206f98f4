"""Takes masks off over all cores: the vector is cut into slices, a process each.

Worth it only where many sites dropped out of a large cohort; a process takes a third of a second to
start, so smaller work is done in place.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.core.secagg.mask import RingVector, Stream, apply_streams

WORTH_BYTES: Final = 8 * 2**30
"""Key stream bytes, about one and a half seconds of one core, above which processes are started."""
_ALIGNED: Final = 4096


@dataclass(frozen=True, slots=True)
class ParallelUnmask:
    """Applies streams to a vector in place, over `workers` processes where that is worth it.

    Attributes:
        workers: How many; None for one a core.
        worth_bytes: Key stream bytes above which processes are started.
    """

    workers: int | None = None
    worth_bytes: int = WORTH_BYTES

    def __call__(self, vector: RingVector, streams: Sequence[Stream]) -> None:
        """Equal to `apply_streams`, bit for bit."""
        workers = self.workers or len(os.sched_getaffinity(0))
        if workers == 1 or vector.nbytes * len(streams) < self.worth_bytes:
            apply_streams(vector, streams)
            return
        memory = SharedMemory(create=True, size=max(vector.nbytes, 1))
        try:
            shared: NDArray[Any] = np.ndarray(vector.shape, vector.dtype, buffer=memory.buf)
            shared[...] = vector
            self._spread(memory.name, vector, list(streams), workers)
            vector[...] = shared
            del shared
        finally:
            memory.close()
            memory.unlink()

    def _spread(self, name: str, vector: RingVector, streams: list[Stream], workers: int) -> None:
        step = -(-vector.size // (workers * _ALIGNED)) * _ALIGNED
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            slices = [
                pool.submit(
                    unmask_slice,
                    name,
                    vector.dtype.str,
                    (start, min(start + step, vector.size)),
                    streams,
                )
                for start in range(0, vector.size, step)
            ]
            for done in slices:
                done.result()


def unmask_slice(name: str, dtype: str, place: tuple[int, int], streams: list[Stream]) -> None:
    """One process's slice of a vector in shared memory."""
    memory = SharedMemory(name=name)
    try:
        start, stop = place
        count = stop - start
        words: NDArray[Any] = np.ndarray(
            (count,), dtype, buffer=memory.buf, offset=start * np.dtype(dtype).itemsize
        )
        apply_streams(words, streams, start=start)
        del words
    finally:
        memory.close()
