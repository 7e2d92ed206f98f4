"""A crew in this process: no start-up, no copies; the app shares its process with everything.

One call at a time on one thread, only while the server side waits, with the process's global
generators put back afterwards: the same bits as in worker processes. With more than one thread
calls overlap, generators are left alone, and that promise is given up.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from comity.adapters.flower.arrays import own_copy
from comity.adapters.flower.calls import AppFailure, Outcome, call_app
from comity.adapters.flower.crew import Call, Finished
from comity.adapters.flower.private_names import with_metadata
from comity.adapters.flower.seeds import GeneratorStates


@dataclass(slots=True)
class ThreadCrew:
    """Calls `app` in this process, on `threads` threads of its own."""

    app: ClientApp
    run_id: int
    run_config: Mapping[str, Any]
    threads: int = 1
    _waiting: queue.SimpleQueue[Call | None] = field(default_factory=queue.SimpleQueue)
    _finished: queue.SimpleQueue[Finished] = field(default_factory=queue.SimpleQueue)
    _submitted: list[Call] = field(default_factory=list)
    _under_way: int = 0
    _states: dict[int, RecordDict] = field(default_factory=dict)
    _locks: dict[int, threading.Lock] = field(default_factory=dict)
    _started: list[threading.Thread] = field(default_factory=list)

    def submit(self, calls: Sequence[Call]) -> None:
        """Keeps the calls for the next `wait`."""
        for call in calls:
            self._states.setdefault(call.node_id, RecordDict())
            self._locks.setdefault(call.node_id, threading.Lock())
        self._submitted.extend(calls)

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """Runs what was submitted; returns when all is done or time is up."""
        self._start_threads()
        states = GeneratorStates.now()
        finished: list[Finished] = []
        # One at a time goes out, so that calls which time has run out for are not begun.
        while self._submitted and self._under_way < self.threads:
            self._under_way += 1
            self._waiting.put(self._submitted.pop(0))
        try:
            finished.append(self._finished.get(timeout=timeout_s))
            self._under_way -= 1
        except queue.Empty:
            return finished
        finally:
            states.restore()
        return finished

    def close(self) -> None:
        """Lets idle threads end; one that hangs in an app call dies with the process."""
        for _ in self._started:
            self._waiting.put(None)

    def _start_threads(self) -> None:
        while len(self._started) < self.threads:
            thread = threading.Thread(target=self._work, name="comity-site", daemon=True)
            thread.start()
            self._started.append(thread)

    def _work(self) -> None:
        while (call := self._waiting.get()) is not None:
            with self._locks[call.node_id]:
                self._finished.put(Finished(call.number, self._call(call)))

    def _call(self, call: Call) -> Outcome:
        message = with_metadata(call.message.metadata, own_copy(call.message.content))
        # A failed call leaves no trace in the state, as when a process is lost.
        state = own_copy(self._states[call.node_id])
        config = dict(call.node_config)
        context = Context(self.run_id, call.node_id, config, state, dict(self.run_config))
        outcome = call_app(self.app, message, context, call.seed)
        if isinstance(outcome, AppFailure):
            return outcome
        self._states[call.node_id] = context.state
        return own_copy(outcome) if isinstance(outcome, RecordDict) else outcome
