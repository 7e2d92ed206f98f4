"""Shared memory without names: anonymous, sealed, reused, gone with its last process.

A segment is a memfd that its writer made, sealed against shrinking (so that a reader cannot be
made to fault), and sent over a Unix socket. Nothing appears in /dev/shm, so nothing is left behind
however a process ends. Readers map it read-only.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from comity.errors import Malformed

PAGE: Final = 1 << 16
MAX_DESCRIPTORS: Final = 1 << 16
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def allow_descriptors() -> None:
    """Lifts this process's soft limit on open files: each segment holds one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclass(slots=True, eq=False)
class Segment:
    """One mapped piece of shared memory; `number` is unique among all processes of a run."""

    number: int
    fd: int
    size: int
    map: mmap.mmap

    def view(self, start: int, length: int) -> memoryview:
        """The bytes from `start` on.

        Raises:
            Malformed: They do not lie inside the segment.
        """
        if start < 0 or length < 0 or start + length > self.size:
            raise Malformed(f"{length} bytes at {start} lie outside a segment of {self.size}")
        return memoryview(self.map)[start : start + length]

    def close(self) -> None:
        """Gives the memory back; a view that still lives keeps its pages until it is gone."""
        os.close(self.fd)
        try:
            self.map.close()
        except BufferError:
            return


def create_segment(number: int, size: int) -> Segment:
    """A new writable segment of at least `size` bytes."""
    size = -(-size // PAGE) * PAGE
    fd = os.memfd_create("comity", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    mapped = mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
    return Segment(number, fd, size, mapped)


def open_segment(number: int, fd: int, *, max_bytes: int) -> Segment:
    """Maps a segment that another process made, read-only; takes over `fd`.

    Raises:
        Malformed: It could shrink while it is read, or is larger than `max_bytes`.
    """
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
    except OSError:
        sealed = False
    size = os.fstat(fd).st_size
    if not sealed or not 0 < size <= max_bytes + PAGE:
        os.close(fd)
        raise Malformed("a shared segment is not sealed, or is larger than allowed")
    try:
        mapped = mmap.mmap(fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
    except OSError as error:  # opened for writing only
        os.close(fd)
        raise Malformed(f"a shared segment cannot be read: {error.strerror}") from error
    return Segment(number, fd, size, mapped)


class Lease:
    """Keeps a segment from being reused while anything still reads it."""

    __slots__ = ("__weakref__", "segment")

    def __init__(self, segment: Segment, give_back: Callable[[int], object]) -> None:
        self.segment = segment
        weakref.finalize(self, give_back, segment.number).atexit = False


@dataclass(slots=True)
class Arena:
    """The segments that one process writes; freed ones are used again, smallest that fits first.

    Attributes:
        first: Number of the first segment; callers keep ranges apart.
        max_idle_bytes: How much freed memory is kept for reuse.
    """

    first: int
    max_idle_bytes: int = 1 << 30
    _made: int = 0
    _busy: dict[int, Segment] = field(default_factory=dict)
    _idle: list[Segment] = field(default_factory=list)

    def take(self, size: int) -> Segment:
        """A writable segment of at least `size` bytes, busy until `free`."""
        fits = [s for s in self._idle if size <= s.size <= 4 * max(size, PAGE)]
        if fits:
            segment = min(fits, key=lambda s: s.size)
            self._idle.remove(segment)
        else:
            segment = create_segment(self.first + self._made, size)
            self._made += 1
        self._busy[segment.number] = segment
        return segment

    def written(self, number: int) -> Segment | None:
        """A busy segment of this arena, or None."""
        return self._busy.get(number)

    def free(self, number: int) -> Segment | None:
        """Makes a segment reusable; returns it closed when enough memory is idle already."""
        segment = self._busy.pop(number, None)
        if segment is None:
            return None
        if segment.size + sum(s.size for s in self._idle) > self.max_idle_bytes:
            segment.close()
            return segment
        self._idle.append(segment)
        return None

    def close(self) -> None:
        """Closes all segments."""
        for segment in (*self._busy.values(), *self._idle):
            segment.close()
        self._busy.clear()
        self._idle.clear()
