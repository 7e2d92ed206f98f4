"""A crew of warm worker processes: spawned, not forked; array bytes go through shared memory.

Each worker has up to two calls in hand, so that it never waits for this process; the one that it
has not begun is asked back when another worker idles. A worker that dies takes down the call that
it was in, nothing else: another one is started.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.adapters.flower.app import AppSource, Scalar
from comity.adapters.flower.arrays import Buffer
from comity.adapters.flower.calls import AppError, AppFailure, Outcome
from comity.adapters.flower.channel import receive_frame, send_frame
from comity.adapters.flower.crew import Call, Finished
from comity.adapters.flower.segments import Lease, allow_descriptors
from comity.adapters.flower.shared_pool import SharedPool
from comity.adapters.flower.strays import adopt_strays, end_strays
from comity.adapters.flower.wire import Json, Outbox, decode_records, encode_records, parse_frame
from comity.adapters.flower.worker_process import WorkerProcess
from comity.errors import ConfigError, Malformed, UnavailableError

IN_HAND: Final = 2
MAX_FAILED_STARTS: Final = 3
_CODES: Final = 1 << 31
"""An app's error code is a 32-bit number, as on Flower's own wire."""
_METADATA: Final = (
    "run_id",
    "message_id",
    "src_node_id",
    "dst_node_id",
    "reply_to_message_id",
    "group_id",
    "created_at",
    "ttl",
    "message_type",
    "src_task_id",
    "dst_task_id",
)


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


def spawn_worker(writer: int, settings: CrewSettings) -> WorkerProcess:
    """Starts a worker process."""
    return WorkerProcess.start(
        writer, threads_per_call=settings.threads_per_call, max_bytes=settings.max_bytes
    )


@dataclass(frozen=True, slots=True)
class _Records:
    """Encoded records and the segment of their arrays; a node's state is kept so, unread."""

    document: str = "[]"
    lease: Lease | None = None

    @property
    def segment(self) -> int:
        return 0 if self.lease is None else self.lease.segment.number


@dataclass(slots=True)
class ProcessCrew:
    """Runs calls of one app in worker processes.

    Attributes:
        source: Where the workers find the app.
        run_id: The run.
        run_config: What the app sees as ``context.run_config``.
        settings: How many workers, and their limits.
        spawn: Starts a worker, given its number from 1.
    """

    source: AppSource
    run_id: int
    run_config: Mapping[str, Scalar]
    settings: CrewSettings
    spawn: Callable[[int, CrewSettings], WorkerProcess] = spawn_worker
    _workers: list[WorkerProcess] = field(default_factory=list)
    _pool: SharedPool = field(init=False)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _calls: dict[int, tuple[Call, _Records]] = field(default_factory=dict)
    _queue: deque[int] = field(default_factory=deque)
    _states: dict[int, _Records] = field(default_factory=dict)
    _lost: list[Finished] = field(default_factory=list)
    _adopting: bool = False
    _starts: int = 0
    _failed_starts: int = 0

    def __post_init__(self) -> None:
        self._pool = SharedPool(self.settings.max_bytes, self._workers)

    def start(self) -> None:
        """Starts the workers, which load the app while the caller goes on."""
        allow_descriptors()
        if not self._starts:
            self._adopting = adopt_strays()
        for _ in range(self.settings.workers):
            self._start_worker()

    def wait_ready(self) -> None:
        """Waits until the first worker has loaded the app.

        Raises:
            ConfigError: The app cannot be loaded.
            UnavailableError: It takes too long, or the processes die.
        """
        deadline = time.monotonic() + self.settings.start_timeout_s
        while not any(worker.ready for worker in self._workers):
            left = deadline - time.monotonic()
            if left <= 0:
                raise UnavailableError(
                    f"the app was not loaded within {self.settings.start_timeout_s:g} s",
                    hint="raise start_timeout_s",
                )
            if not self._workers:
                self._start_worker()
            self._collect(left)

    def submit(self, calls: Sequence[Call]) -> None:
        """Publishes the calls' contents, each once, and hands the first calls out."""
        outbox = Outbox()
        contents = {id(call.message.content): call.message.content for call in calls}
        encoded = {key: encode_records(content, outbox) for key, content in contents.items()}
        lease = self._pool.publish(outbox)
        published = {key: _Records(json.dumps(doc), lease) for key, doc in encoded.items()}
        for call in calls:
            self._calls[call.number] = (call, published[id(call.message.content)])
            self._queue.append(call.number)
        self._hand_out()

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """Collects what workers finished; gives them more to do."""
        finished = self._collect(0.0 if self._lost else timeout_s)
        self._hand_out()
        finished += self._lost
        self._lost = []
        return finished

    def abandon(self, numbers: Collection[int]) -> None:
        """Forgets calls: those not begun never are, a worker that is in one is killed."""
        self._queue = deque(number for number in self._queue if number not in numbers)
        for worker in list(self._workers):
            for number in [number for number in list(worker.in_hand)[1:] if number in numbers]:
                self._ask_back(worker, number)
            begun = worker.in_hand[0] if worker.in_hand else None
            if begun in numbers or (begun is None and worker.asked_back & set(numbers)):
                self._bury(worker)
        for number in numbers:
            self._calls.pop(number, None)
        self._queue = deque(number for number in self._queue if number in self._calls)
        self._lost = [lost for lost in self._lost if lost.number not in numbers]

    def close(self) -> None:
        """Stops the workers and all that they started; frees the shared memory."""
        for worker in self._workers:
            worker.kill()
        end_strays(adopting=self._adopting)
        self._workers.clear()
        self._calls.clear()
        self._queue.clear()
        self._states.clear()
        self._pool.close()
        self._selector.close()

    # --- workers ------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        self._starts += 1
        worker = self.spawn(self._starts, self.settings)
        self._workers.append(worker)
        self._selector.register(worker.sock, selectors.EVENT_READ, worker)
        app = {"run_id": self.run_id, "run_config": dict(self.run_config)}
        self._send(worker, json.dumps({"app": self.source.to_json()} | app), ())

    def _hand_out(self) -> None:
        while self._queue:
            while len(self._workers) < min(self.settings.workers, len(self._calls)):
                self._start_worker()
            worker = min(self._workers, key=_load)
            if _load(worker)[1] >= (IN_HAND if worker.ready else 1):
                return
            self._give(worker, self._queue.popleft())
        self._balance()

    def _balance(self) -> None:
        """Lets idle workers have what waits behind a call that takes long, or for ever."""
        for idle in [worker for worker in self._workers if worker.is_idle]:
            behind = [worker for worker in self._workers if len(worker.in_hand) >= IN_HAND]
            if not behind:
                return
            number = behind[0].in_hand[-1]
            self._ask_back(behind[0], number)
            self._give(idle, number)

    def _ask_back(self, worker: WorkerProcess, number: int) -> None:
        worker.in_hand.remove(number)
        worker.asked_back.add(number)
        self._send(worker, json.dumps({"back": number}), ())

    def _give(self, worker: WorkerProcess, number: int) -> None:
        call, content = self._calls[number]
        state = self._states.get(call.node_id, _Records())
        fresh = self._pool.introduce(worker, (content.lease, state.lease))
        metadata = call.message.metadata
        envelope = {
            "call": number,
            "node_config": dict(call.node_config),
            "metadata": {name: getattr(metadata, name) for name in _METADATA},
            "seed": call.seed.hex(),
            "content_segment": content.segment,
            "state_segment": state.segment,
            "segments": [segment.number for segment in fresh],
            "free": worker.free,
            "closed": worker.closed,
        }
        worker.free, worker.closed = [], []
        worker.in_hand.append(number)
        head = json.dumps(envelope)[:-1]
        frame = f'{head}, "content": {content.document}, "state": {state.document}}}'
        self._send(worker, frame, [segment.fd for segment in fresh])

    def _send(self, worker: WorkerProcess, frame: str, fds: Sequence[int]) -> None:
        # A worker that is gone is found when it is read from: first what it had answered, then
        # its end.
        with contextlib.suppress(OSError):
            send_frame(worker.sock, frame.encode(), fds)

    def _collect(self, timeout_s: float | None) -> list[Finished]:
        finished: list[Finished] = []
        for key, _ in self._selector.select(timeout_s):
            worker: WorkerProcess = key.data
            try:
                received = receive_frame(worker.sock, max_bytes=self.settings.max_bytes)
                if received is None:
                    self._bury(worker)
                else:
                    finished += self._take(worker, *received)
            except Malformed as error:
                self._bury(worker, type(error).__name__)
        return finished

    def _bury(self, worker: WorkerProcess, error: str = "WorkerLost") -> None:
        """Drops a worker: the call that it was in is lost, the others go back to the queue."""
        self._workers.remove(worker)
        self._selector.unregister(worker.sock)
        worker.kill()
        self._pool.disown(worker)
        if worker.in_hand:
            number = worker.in_hand.popleft()
            self._calls.pop(number, None)
            self._lost.append(Finished(number, AppFailure(error, crashed=True)))
            self._queue.extendleft(reversed(worker.in_hand))
        if worker.ready:
            return
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise UnavailableError(
                f"a worker process ended with status {worker.process.returncode} while it "
                "loaded the app",
                hint="import the app's modules in a Python of your own to see why",
            )

    # --- replies ------------------------------------------------------------------------------

    def _take(self, worker: WorkerProcess, frame: bytes, fds: list[int]) -> list[Finished]:
        reply = parse_frame(frame)
        if not worker.ready:
            self._take_start(worker, reply)
            return []
        number, is_back = reply.get("call"), "back" in reply
        begun = {worker.in_hand[0]} if worker.in_hand else worker.asked_back
        if type(number) is not int or number not in (worker.asked_back if is_back else begun):
            raise Malformed("a worker answered a call that it was not given")
        self._pool.adopt(worker, _listed(reply, "segments"), fds)
        self._pool.drop(worker, _listed(reply, "closed"))
        if number in worker.asked_back:
            # Given back, or begun before it was asked back: then it runs elsewhere, too, and what
            # was lent for this answer is free at once.
            worker.asked_back.remove(number)
            for name in ("content_segment", "state_segment"):
                self._pool.lease(worker, reply.get(name, 0))
            return []
        call, _ = self._calls[number]
        outcome = self._outcome(worker, reply)
        if not isinstance(outcome, AppFailure):
            lease = self._pool.lease(worker, reply.get("state_segment"))
            self._states[call.node_id] = _Records(json.dumps(reply.get("state")), lease)
        worker.in_hand.popleft()
        del self._calls[number]
        return [Finished(number, outcome)]

    def _take_start(self, worker: WorkerProcess, reply: dict[str, Json]) -> None:
        if "refused" in reply:
            raise ConfigError(str(reply["refused"]), hint=str(reply.get("hint", "")))
        if "ready" not in reply:
            raise Malformed("a worker answered before it had loaded the app")
        worker.ready, self._failed_starts = True, 0

    def _outcome(self, worker: WorkerProcess, reply: dict[str, Json]) -> Outcome:
        if "failure" in reply:
            return AppFailure(str(reply["failure"]))
        if "app_error" in reply:
            return _app_error(reply["app_error"])
        lease = self._pool.lease(worker, reply.get("content_segment"))

        def source(start: int, length: int) -> tuple[Buffer, object]:
            return (lease.segment.view(start, length) if lease else b""), lease

        return decode_records(reply.get("content"), source)


def _load(worker: WorkerProcess) -> tuple[bool, int]:
    return not worker.ready, IN_HAND if worker.asked_back else len(worker.in_hand)


def _listed(reply: dict[str, Json], name: str) -> list[object]:
    found = reply.get(name, [])
    if not isinstance(found, list):
        raise Malformed(f"{name} is not a list")
    return found


def _app_error(document: Json) -> AppError:
    match document:
        case [int(code), str(reason)] if type(code) is int and -_CODES <= code < _CODES:
            return AppError(code, reason)
    raise Malformed("an app's error does not parse")
