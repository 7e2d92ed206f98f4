"""A crew of warm worker processes: spawned, not forked; array bytes go through shared memory.

Each worker has up to two calls in hand, so that it never waits for this process. A worker that
dies takes down the call that it was in, nothing else: the next call starts another one.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flwr.app import RecordDict

from comity.adapters.flower.app import AppSource
from comity.adapters.flower.calls import AppError, AppFailure, Outcome
from comity.adapters.flower.channel import receive_frame, send_frame, socket_pair
from comity.adapters.flower.crew import Call, Finished
from comity.adapters.flower.segments import Arena, Lease, Segment, open_segment
from comity.adapters.flower.wire import Json, Outbox, decode_records, encode_records, parse_frame
from comity.errors import ConfigError, Malformed, UnavailableError

IN_HAND: Final = 2
_NUMBERS_PER_WRITER: Final = 1 << 32
_STOP_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class CrewSettings:
    """How worker processes are run.

    Attributes:
        workers: How many.
        threads_per_call: Threads that numeric libraries use in one call.
        max_bytes: Bound on one reply and one segment.
        start_timeout_s: How long importing the app may take.
    """

    workers: int
    threads_per_call: int = 1
    max_bytes: int = 1 << 31
    start_timeout_s: float = 120.0


@dataclass(slots=True)
class _State:
    """A node's `Context.state` as it lies in shared memory; this process never reads it."""

    document: Json = field(default_factory=list)
    segment: int = 0
    lease: Lease | None = None


@dataclass(slots=True)
class _Published:
    """A message's content, encoded once for all its receivers."""

    document: str
    segment: int
    lease: Lease | None
    content: RecordDict


@dataclass(slots=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    sock: socket.socket
    ready: bool = False
    in_hand: deque[int] = field(default_factory=deque)
    known: set[int] = field(default_factory=set)
    own: set[int] = field(default_factory=set)
    free: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)


class ProcessCrew:
    """Runs calls of one app in worker processes.

    Args:
        source: Where the workers find the app.
        run_id: The run.
        run_config: What the app sees as ``context.run_config``.
        settings: How many workers, and their limits.
    """

    def __init__(
        self,
        source: AppSource,
        run_id: int,
        run_config: Mapping[str, Any],
        settings: CrewSettings,
    ) -> None:
        self._settings = settings
        self._load = json.dumps(
            {"app": source.to_json(), "run_id": run_id, "run_config": dict(run_config)}
        ).encode()
        self._arena = Arena(1)
        self._segments: dict[int, Segment] = {}
        self._owners: dict[int, _Worker] = {}
        self._workers: list[_Worker] = []
        self._spawned = 0
        self._selector = selectors.DefaultSelector()
        self._calls: dict[int, tuple[Call, _Published]] = {}
        self._queue: deque[int] = deque()
        self._states: dict[int, _State] = {}
        self._lost: list[Finished] = []
        for _ in range(settings.workers):
            self._spawn()

    def wait_ready(self) -> None:
        """Waits until the first worker has loaded the app.

        Raises:
            ConfigError: The app cannot be loaded.
            UnavailableError: It takes too long, or the process dies.
        """
        deadline = time.monotonic() + self._settings.start_timeout_s
        while not any(worker.ready for worker in self._workers):
            if not self._workers:
                raise UnavailableError("every worker process died while it loaded the app")
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnavailableError(
                    f"the app was not loaded within {self._settings.start_timeout_s:.0f} s",
                    hint="raise start_timeout_s",
                )
            self._collect(left)

    def submit(self, calls: Sequence[Call]) -> None:
        """Publishes the calls' contents and hands the first ones out."""
        for call, published in zip(calls, self._publish(calls), strict=True):
            self._calls[call.number] = (call, published)
            self._queue.append(call.number)
        self._hand_out()

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """Collects what workers finished; gives them more to do."""
        finished = self._collect(timeout_s)
        finished += self._lost
        self._lost = []
        self._hand_out()
        return finished

    def close(self) -> None:
        """Stops the workers and all that they started; frees the shared memory."""
        for worker in self._workers:
            worker.sock.close()
        for worker in self._workers:
            _stop(worker.process)
        self._workers.clear()
        self._calls.clear()
        self._queue.clear()
        self._states.clear()
        for number in list(self._segments):
            if number in self._owners:
                self._segments.pop(number).close()
        self._arena.close()
        self._selector.close()

    # --- workers ------------------------------------------------------------------------------

    def _spawn(self) -> None:
        self._spawned += 1
        here, there = socket_pair()
        first = self._spawned * _NUMBERS_PER_WRITER
        arguments = [there.fileno(), os.getpid(), first, self._settings.max_bytes]
        with there:
            process = subprocess.Popen(
                [sys.executable, "-m", "comity.adapters.flower.worker", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                pass_fds=(there.fileno(),),
                env=worker_environment(self._settings.threads_per_call),
                process_group=0,  # so that all it starts can be stopped, and Ctrl-C is ours
            )
        worker = _Worker(process, here)
        self._workers.append(worker)
        self._selector.register(here, selectors.EVENT_READ, worker)
        send_frame(here, self._load)

    def _hand_out(self) -> None:
        while len(self._workers) < min(self._settings.workers, len(self._calls)):
            self._spawn()
        while self._queue:
            worker = min(self._workers, key=lambda w: (not w.ready, len(w.in_hand)))
            if len(worker.in_hand) >= (IN_HAND if worker.ready else 1):
                return
            self._send(worker, self._queue.popleft())

    def _send(self, worker: _Worker, number: int) -> None:
        call, published = self._calls[number]
        state = self._states.setdefault(call.node_id, _State())
        needed = {published.segment, state.segment} - {0} - worker.known - worker.own
        worker.known |= needed
        envelope = {
            "call": number,
            "node_config": dict(call.node_config),
            "metadata": _metadata(call),
            "seed": call.seed.hex() if call.seed else "",
            "content_segment": published.segment,
            "state": state.document,
            "state_segment": state.segment,
            "segments": sorted(needed),
            "free": worker.free,
            "closed": worker.closed,
        }
        worker.free, worker.closed = [], []
        frame = f'{json.dumps(envelope)[:-1]}, "content": {published.document}}}'.encode()
        worker.in_hand.append(number)
        try:
            send_frame(worker.sock, frame, [self._segments[n].fd for n in sorted(needed)])
        except OSError:
            self._bury(worker)

    def _collect(self, timeout_s: float | None) -> list[Finished]:
        finished: list[Finished] = []
        wait_s = 0.0 if self._lost else timeout_s
        for key, _ in self._selector.select(wait_s):
            worker: _Worker = key.data
            try:
                received = receive_frame(worker.sock, max_bytes=self._settings.max_bytes)
                if received is None:
                    self._bury(worker)
                else:
                    finished += self._take(worker, *received)
            except Malformed as error:
                self._bury(worker, type(error).__name__)
        return finished

    def _bury(self, worker: _Worker, error: str = "WorkerLost") -> None:
        """Drops a worker: the call it was in is lost, the others go back to the queue."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._selector.unregister(worker.sock)
        worker.sock.close()
        _stop(worker.process)
        for number in worker.own:
            self._owners.pop(number, None)
        if worker.in_hand:
            number = worker.in_hand.popleft()
            del self._calls[number]
            self._lost.append(Finished(number, AppFailure(error, crashed=True)))
            self._queue.extendleft(reversed(worker.in_hand))
        elif not worker.ready and not self._workers:
            raise UnavailableError(
                f"a worker process ended with status {worker.process.returncode} while it "
                "loaded the app",
                hint="import the app's modules in a Python of your own to see why",
            )

    # --- replies ------------------------------------------------------------------------------

    def _take(self, worker: _Worker, frame: bytes, fds: list[int]) -> list[Finished]:
        reply = parse_frame(frame)
        if "refused" in reply:
            raise ConfigError(str(reply["refused"]), hint=str(reply.get("hint", "")))
        if "ready" in reply:
            worker.ready = True
            return []
        if not worker.in_hand or reply.get("call") != worker.in_hand[0]:
            raise Malformed("a worker answered a call that it was not given")
        self._adopt(worker, reply, fds)
        number = worker.in_hand[0]
        outcome = self._outcome(worker, reply)
        call, _ = self._calls[number]
        if not isinstance(outcome, AppFailure):
            document, segment = reply.get("state"), reply.get("state_segment")
            self._states[call.node_id] = _State(document, segment, self._lease(worker, segment))
        worker.in_hand.popleft()
        del self._calls[number]
        return [Finished(number, outcome)]

    def _adopt(self, worker: _Worker, reply: dict[str, Json], fds: list[int]) -> None:
        numbers = reply.get("segments", [])
        if not isinstance(numbers, list) or len(numbers) != len(fds):
            raise Malformed("descriptors and segments do not match")
        for number, fd in zip(numbers, fds, strict=True):
            if not isinstance(number, int) or number in self._segments:
                raise Malformed("a segment's number is not new")
            self._segments[number] = open_segment(number, fd, max_bytes=self._settings.max_bytes)
            worker.own.add(number)
            self._owners[number] = worker
        for number in reply.get("closed", []):
            if number in worker.own:
                worker.own.discard(number)
                self._forget(number)

    def _outcome(self, worker: _Worker, reply: dict[str, Json]) -> Outcome:
        if "failure" in reply:
            return AppFailure(str(reply["failure"])[:200])
        if "app_error" in reply:
            code, reason = reply["app_error"]
            return AppError(int(code), str(reason))
        number = reply.get("content_segment")
        lease = self._lease(worker, number)

        def source(start: int, length: int) -> tuple[Any, object]:
            return (lease.segment.view(start, length) if lease else b""), lease

        return decode_records(reply.get("content"), source)

    def _lease(self, worker: _Worker, number: Json) -> Lease | None:
        if number == 0:
            return None
        if number not in worker.own:
            raise Malformed("a reply names a segment that is not its worker's")
        return Lease(self._segments[number], self._give_back)

    def _give_back(self, number: int) -> None:
        worker = self._owners.get(number)
        if worker is not None:
            worker.free.append(number)
        elif number in self._segments:
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._owners.pop(number, None)
        self._segments.pop(number).close()
        for worker in self._workers:
            if number in worker.known:
                worker.known.discard(number)
                worker.closed.append(number)

    # --- contents -----------------------------------------------------------------------------

    def _publish(self, calls: Sequence[Call]) -> list[_Published]:
        outbox = Outbox()
        contents = {id(call.message.content): call.message.content for call in calls}
        documents = {key: encode_records(c, outbox) for key, c in contents.items()}
        lease, number = None, 0
        if outbox.size:
            segment = self._arena.take(outbox.size)
            outbox.write(memoryview(segment.map))
            self._segments[segment.number] = segment
            number, lease = segment.number, Lease(segment, self._give_back_own)
        published = {
            key: _Published(json.dumps(document), number, lease, contents[key])
            for key, document in documents.items()
        }
        return [published[id(call.message.content)] for call in calls]

    def _give_back_own(self, number: int) -> None:
        if self._arena.free(number) is not None:
            self._segments.pop(number)
            for worker in self._workers:
                worker.known.discard(number)
                worker.closed.append(number)


def worker_environment(threads_per_call: int) -> dict[str, str]:
    """The caller's environment with what makes workers equal: hash seed and thread counts."""
    fixed = {"PYTHONHASHSEED": "0"}
    for name in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR", "BLIS"):
        fixed[f"{name}_NUM_THREADS"] = str(threads_per_call)
    # Freed blocks stay with the process: faulting 4 MB in again costs more than writing it.
    kept = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
    return kept | dict(os.environ) | fixed


def _metadata(call: Call) -> dict[str, Json]:
    metadata = call.message.metadata
    names = ("run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message_id")
    more = ("group_id", "created_at", "ttl", "message_type", "src_task_id", "dst_task_id")
    return {name: getattr(metadata, name) for name in (*names, *more)}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and all others of its group, and waits for it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.wait(_STOP_TIMEOUT_S)
