"""What a worker process does: load the app once, then answer calls until the socket closes."""

from __future__ import annotations

import json
import select
import socket
import sys
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, Context, Metadata, RecordDict
from flwr.clientapp import ClientApp

from comity.adapters.flower.app import AppSource, load_client
from comity.adapters.flower.arrays import Buffer
from comity.adapters.flower.calls import AppError, AppFailure, Outcome, call_app
from comity.adapters.flower.channel import receive_frame, send_frame
from comity.adapters.flower.private_names import enter_run, with_metadata
from comity.adapters.flower.segments import Arena, Segment, allow_descriptors, open_segment
from comity.adapters.flower.wire import Json, Outbox, decode_records, encode_records, parse_frame
from comity.errors import ConfigError


@dataclass(slots=True)
class SiteWorker:
    """Answers app calls for any site, one at a time."""

    sock: socket.socket
    arena: Arena
    max_bytes: int
    _segments: dict[int, Segment] = field(default_factory=dict)
    _announced: set[int] = field(default_factory=set)
    _closed: list[int] = field(default_factory=list)
    _waiting: deque[dict[str, Json]] = field(default_factory=deque)
    _run_id: int = 0
    _run_config: dict[str, Any] = field(default_factory=dict)

    def serve(self) -> None:
        """Loads the app that the first frame names, says whether that worked, answers calls."""
        allow_descriptors()
        request = self._receive()
        if request is None:
            return
        self._run_id, self._run_config = request["run_id"], request["run_config"]
        enter_run(self._run_id)
        try:
            app = load_client(AppSource.from_json(request["app"]))
        except ConfigError as error:
            self._send({"refused": error.message, "hint": error.hint})
            return
        self._send({"ready": True})
        while (request := self._next()) is not None:
            self._answer(app, request)

    def _next(self) -> dict[str, Json] | None:
        """The next call, after giving back those of which the parent asks it."""
        arrived = select.poll()
        arrived.register(self.sock, select.POLLIN)
        while not self._waiting or arrived.poll(0):
            request = self._receive()
            if request is None:
                return None
            if "back" not in request:
                self._waiting.append(request)
                continue
            kept = [one for one in self._waiting if one["call"] != request["back"]]
            if len(kept) < len(self._waiting):
                self._waiting = deque(kept)
                self._send({"call": request["back"], "back": True})
        return self._waiting.popleft()

    def _receive(self) -> dict[str, Json] | None:
        received = receive_frame(self.sock, max_bytes=self.max_bytes)
        if received is None:
            return None
        frame, fds = received
        request = parse_frame(frame)
        for number, fd in zip(request.get("segments", ()), fds, strict=True):
            self._segments[number] = open_segment(number, fd, max_bytes=self.max_bytes)
        for number in request.get("closed", ()):
            if (segment := self._segments.pop(number, None)) is not None:
                segment.close()
        for number in request.get("free", ()):
            if self.arena.free(number) is not None:
                self._closed.append(number)
        return request

    def _answer(self, app: ClientApp, request: dict[str, Json]) -> None:
        lent: list[weakref.ref[Any]] = []
        message = with_metadata(
            Metadata(**request["metadata"]),
            self._records(request["content"], request["content_segment"], lent),
        )
        state = self._records(request["state"], request["state_segment"], lent)
        node_id, config = message.metadata.dst_node_id, request["node_config"]
        context = Context(self._run_id, node_id, config, state, dict(self._run_config))
        outcome = call_app(app, message, context, bytes.fromhex(request["seed"]))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        reply, fresh = self._reply(request["call"], outcome, context.state)
        del message, state, context, outcome
        for reference in lent:
            # The sender reuses this memory soon: an array that the app kept gets its own bytes.
            if (array := reference()) is not None:
                array.data  # noqa: B018 - reading it copies
        self._send(reply, fresh)

    def _records(self, document: Json, segment: int, lent: list[weakref.ref[Any]]) -> RecordDict:
        # A node's state may lie where this very worker wrote it.
        held = self._segments.get(segment) or self.arena.written(segment)

        def source(start: int, length: int) -> tuple[Buffer, None]:
            return (held.view(start, length) if held else b""), None

        content = decode_records(document, source)
        for record in content.values():
            if isinstance(record, ArrayRecord):
                lent.extend(weakref.ref(array) for array in record.values())
        return content

    def _reply(
        self, call: int, outcome: Outcome, state: RecordDict
    ) -> tuple[dict[str, Json], list[Segment]]:
        reply: dict[str, Json] = {"call": call}
        fresh: list[Segment] = []
        if isinstance(outcome, AppFailure):
            return reply | {"failure": outcome.error}, fresh
        self._place("state", state, reply, fresh)
        if isinstance(outcome, AppError):
            return reply | {"app_error": [outcome.code, outcome.reason]}, fresh
        self._place("content", outcome, reply, fresh)
        return reply, fresh

    def _place(
        self, name: str, content: RecordDict, reply: dict[str, Json], fresh: list[Segment]
    ) -> None:
        outbox = Outbox()
        reply[name] = encode_records(content, outbox)
        reply[f"{name}_segment"] = 0
        if not outbox.size:
            return
        segment = self.arena.take(outbox.size)
        outbox.write(memoryview(segment.map))
        reply[f"{name}_segment"] = segment.number
        if segment.number not in self._announced:
            self._announced.add(segment.number)
            fresh.append(segment)

    def _send(self, reply: dict[str, Json], fresh: Sequence[Segment] = ()) -> None:
        reply["segments"] = [segment.number for segment in fresh]
        reply["closed"], self._closed = self._closed, []
        send_frame(self.sock, json.dumps(reply).encode(), [segment.fd for segment in fresh])
