"""All segments of a run as the parent keeps them: whose they are, who reads them, when free.

A segment is used again once nothing reads it: for a message's content when all receivers answered,
for a reply when the server side dropped it. What is gone here is told to each worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from comity.adapters.flower.channel import close_all
from comity.adapters.flower.segments import Arena, Lease, Segment, open_segment
from comity.adapters.flower.wire import Outbox
from comity.adapters.flower.worker_process import WORKER_NUMBERS, WorkerProcess
from comity.errors import Malformed


@dataclass(slots=True)
class SharedPool:
    """Segments by number: this process's own, and those that workers sent."""

    max_bytes: int
    workers: list[WorkerProcess]
    _arena: Arena = field(default_factory=lambda: Arena(1))
    _segments: dict[int, Segment] = field(default_factory=dict)
    _owners: dict[int, WorkerProcess] = field(default_factory=dict)

    def publish(self, outbox: Outbox) -> Lease | None:
        """Writes array bytes once, for all their receivers; None when there are none."""
        if not outbox.size:
            return None
        segment = self._arena.take(outbox.size)
        outbox.write(memoryview(segment.map))
        self._segments[segment.number] = segment
        return Lease(segment, self._give_back)

    def adopt(self, worker: WorkerProcess, numbers: Sequence[object], fds: Sequence[int]) -> None:
        """Maps segments that a worker made.

        Raises:
            Malformed: Their numbers are not new, or they are not safe to map.
        """
        fresh = [
            number
            for number in numbers
            if isinstance(number, int) and number in worker.numbers and number not in self._segments
        ]
        if not len(set(fresh)) == len(numbers) == len(fds):
            close_all(fds)
            raise Malformed("the segments of a reply are not new, or not its worker's")
        for number, fd in zip(fresh, fds, strict=True):
            self._segments[number] = open_segment(number, fd, max_bytes=self.max_bytes)
            self._owners[number] = worker
            worker.own.add(number)

    def lease(self, worker: WorkerProcess, number: object) -> Lease | None:
        """Holds a worker's segment; None for number 0, which stands for no bytes.

        Raises:
            Malformed: The segment is not that worker's.
        """
        if number == 0:
            return None
        if not isinstance(number, int) or number not in worker.own:
            raise Malformed("a reply names a segment that is not its worker's")
        return Lease(self._segments[number], self._give_back)

    def introduce(self, worker: WorkerProcess, leases: Iterable[Lease | None]) -> list[Segment]:
        """Those segments that the worker has not mapped yet; from now on it has."""
        numbers = {lease.segment.number for lease in leases if lease is not None}
        fresh = sorted(numbers - worker.known - worker.own)
        worker.known.update(fresh)
        return [self._segments[number] for number in fresh]

    def disown(self, worker: WorkerProcess) -> None:
        """Keeps a dead worker's segments only as long as they are read."""
        for number in worker.own:
            self._owners.pop(number, None)
        for number in worker.free:
            self._forget(number)

    def drop(self, worker: WorkerProcess, numbers: Iterable[object]) -> None:
        """Forgets segments that their worker closed."""
        for number in numbers:
            if isinstance(number, int) and number in worker.own:
                worker.own.discard(number)
                self._owners.pop(number, None)
                self._forget(number)

    def close(self) -> None:
        """Gives all memory back; bytes that are still read stay until their reader is gone."""
        for number, segment in self._segments.items():
            if number >= WORKER_NUMBERS:
                segment.close()
        self._segments.clear()
        self._owners.clear()
        self._arena.close()

    def _give_back(self, number: int) -> None:
        worker = self._owners.get(number)
        if worker is not None:
            worker.free.append(number)
        elif number in self._segments:
            if number < WORKER_NUMBERS and self._arena.free(number) is None:
                return
            self._forget(number)

    def _forget(self, number: int) -> None:
        segment = self._segments.pop(number, None)
        if segment is None:
            return
        if number >= WORKER_NUMBERS:
            segment.close()
        for worker in self.workers:
            if number in worker.known:
                worker.known.discard(number)
                worker.closed.append(number)
