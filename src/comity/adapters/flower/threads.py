"""A crew in this process: no start-up, no copies; the app shares its process with everything.

One call at a time on one thread, begun only while the server side waits, with the process's
global generators put back afterwards: the same bits as in worker processes. With more than one
thread calls overlap, and that promise is given up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from comity.adapters.flower.app import Scalar
from comity.adapters.flower.arrays import own_copy
from comity.adapters.flower.calls import AppFailure, Outcome, call_app
from comity.adapters.flower.crew import Call, Finished
from comity.adapters.flower.private_names import with_metadata
from comity.adapters.flower.seeds import GeneratorStates


@dataclass(slots=True)
class ThreadCrew:
    """Calls `app` in this process, on `threads` threads of its own.

    A call that hangs keeps its thread: it cannot be stopped from outside, and ends with the
    process.
    """

    app: ClientApp
    run_id: int
    run_config: Mapping[str, Scalar]
    threads: int = 1
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _queue: deque[Call] = field(default_factory=deque)
    _busy: set[int] = field(default_factory=set)
    _finished: list[Finished] = field(default_factory=list)
    _states: dict[int, RecordDict] = field(default_factory=dict)
    _abandoned: set[int] = field(default_factory=set)
    _started: int = 0
    _open: bool = False
    _closed: bool = False

    def submit(self, calls: Sequence[Call]) -> None:
        """Keeps the calls for the next `wait`."""
        with self._turn:
            self._queue.extend(calls)
        while self._started < self.threads:
            self._started += 1
            threading.Thread(target=self._work, name="comity-site", daemon=True).start()

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """Runs what was submitted; returns when all is done or time is up."""
        states = GeneratorStates.now()
        try:
            with self._turn:
                self._open = True
                self._turn.notify_all()
                self._turn.wait_for(self._idle, timeout_s)
                finished, self._finished = self._finished, []
                return finished
        finally:
            self._open = False
            states.restore()

    def abandon(self, numbers: Collection[int]) -> None:
        """Forgets calls: those not begun never are, one under way ends without a trace."""
        with self._turn:
            self._queue = deque(call for call in self._queue if call.number not in numbers)
            self._finished = [done for done in self._finished if done.number not in numbers]
            self._abandoned.update(numbers)

    def close(self) -> None:
        """Lets the threads end; calls that were not begun are dropped."""
        with self._turn:
            self._closed = True
            self._queue.clear()
            self._turn.notify_all()

    def _idle(self) -> bool:
        return not self._queue and not self._busy

    def _work(self) -> None:
        while (call := self._next()) is not None:
            outcome, state = self._call(call)
            with self._turn:
                self._busy.discard(call.node_id)
                if call.number not in self._abandoned:
                    self._states[call.node_id] = state
                    self._finished.append(Finished(call.number, outcome))
                if self._idle() or self.threads > 1:
                    self._turn.notify_all()

    def _next(self) -> Call | None:
        with self._turn:
            while True:
                if self._closed:
                    return None
                for call in self._queue if self._open else ():
                    if call.node_id not in self._busy:
                        self._queue.remove(call)
                        self._busy.add(call.node_id)
                        return call
                self._turn.wait()

    def _call(self, call: Call) -> tuple[Outcome, RecordDict]:
        message = with_metadata(call.message.metadata, own_copy(call.message.content))
        before = self._states.get(call.node_id) or RecordDict()
        config = dict(call.node_config)
        state, run_config = own_copy(before), dict(self.run_config)
        context = Context(self.run_id, call.node_id, config, state, run_config)
        outcome = call_app(self.app, message, context, None if self.threads > 1 else call.seed)
        if isinstance(outcome, AppFailure):
            return outcome, before  # as when a worker process is lost
        return own_copy(outcome) if isinstance(outcome, RecordDict) else outcome, context.state
