"""A worker's own side, in this process: the test is the parent at the other end of the socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from comity.adapters.flower.channel import receive_frame, send_frame, socket_pair
from comity.adapters.flower.segments import PAGE, Arena, Segment, create_segment, open_segment
from comity.adapters.flower.site_worker import SiteWorker
from comity.adapters.flower.wire import Outbox, decode_records, encode_records

LIMIT = 1 << 20
FIRST = 1 << 32
CLIENT = """
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
kept = []

@app.query("double")
def double(message, context):
    arrays = ArrayRecord({"x": Array(message.content["a"]["x"].numpy() * 2)})
    context.state["before"] = ArrayRecord({"x": message.content["a"]["x"]})
    kept.append(message.content["a"]["x"])
    return Message(RecordDict({"a": arrays, "n": ConfigRecord(context.node_config)}),
                   reply_to=message)

@app.query("kept")
def shown(message, context):
    assert context.state["before"]["x"].numpy()[0] == 1.0
    return Message(RecordDict({"a": ArrayRecord({"x": kept[0]})}), reply_to=message)

@app.query("refuse")
def refuse(message, context):
    return Message(Error(7, "no"), reply_to=message)

@app.query("fail")
def fail(message, context):
    raise SystemExit(1)
"""


class Parent:
    def __init__(self, folder: Path, module: str) -> None:
        self.here, there = socket_pair()
        self.worker = SiteWorker(there, Arena(FIRST, max_idle_bytes=PAGE), LIMIT)
        self.thread = threading.Thread(target=self.worker.serve)
        self.thread.start()
        self.segments: dict[int, Segment] = {}
        self.number = 0
        app = {"folder": str(folder), "client": f"{module}:app", "preload": ["json"]}
        self.send({"app": app, "run_id": 5, "run_config": {"rate": 0.5}})

    def send(self, document: dict[str, Any], *segments: Segment) -> None:
        send_frame(self.here, json.dumps(document).encode(), [segment.fd for segment in segments])

    def receive(self) -> dict[str, Any]:
        received = receive_frame(self.here, max_bytes=LIMIT)
        assert received is not None
        frame, fds = received
        reply: dict[str, Any] = json.loads(frame)
        for number, fd in zip(reply["segments"], fds, strict=True):
            self.segments[number] = open_segment(number, fd, max_bytes=LIMIT)
        return reply

    def call(self, kind: str, content: RecordDict, **more: Any) -> dict[str, Any]:
        self.number += 1
        outbox = Outbox()
        document = encode_records(content, outbox)
        fresh = []
        if outbox.size:
            segment = create_segment(self.number, outbox.size)
            outbox.write(memoryview(segment.map))
            fresh.append(segment)
        metadata = {
            "run_id": 5,
            "message_id": f"m-{self.number}",
            "src_node_id": 1,
            "dst_node_id": 2,
            "reply_to_message_id": "",
            "group_id": "",
            "created_at": 1e12,
            "ttl": 60.0,
            "message_type": f"query.{kind}",
        }
        request = {
            "call": self.number,
            "node_config": {"partition-id": 3},
            "metadata": metadata,
            "seed": "00" * 32,
            "content": document,
            "content_segment": fresh[0].number if fresh else 0,
            "segments": [segment.number for segment in fresh],
            "state": [],
            "state_segment": 0,
        }
        self.send(request | more, *fresh)
        reply = self.receive()
        for segment in fresh:
            segment.map[:] = b"\xff" * segment.size
        assert reply["call"] == self.number
        return reply

    def content(self, reply: dict[str, Any], name: str = "content") -> Any:
        segment = self.segments[reply[f"{name}_segment"]]
        return decode_records(reply[name], lambda start, size: (segment.view(start, size), None))

    def end(self) -> None:
        self.here.close()
        self.thread.join(10)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    module = f"served_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(CLIENT)
    made = Parent(tmp_path, module)
    assert made.receive()["ready"] is True
    yield made
    made.end()
    assert not made.thread.is_alive()


def arrays(value: float) -> RecordDict:
    record = ArrayRecord()
    record["x"] = Array(np.full(100, value))
    return RecordDict({"a": record, "c": ConfigRecord()})


def test_a_call_is_answered_with_content_and_state(parent: Parent) -> None:
    reply = parent.call("double", arrays(1.0))
    content = parent.content(reply)
    assert content["a"]["x"].numpy().tolist() == [2.0] * 100
    assert dict(content["n"]) == {"partition-id": 3}
    assert parent.content(reply, "state")["before"]["x"].numpy()[0] == 1.0


def test_state_may_lie_where_this_worker_wrote_it_and_what_was_kept_is_unharmed(
    parent: Parent,
) -> None:
    first = parent.call("double", arrays(1.0))
    state = {name: first[name] for name in ("state", "state_segment")}
    second = parent.call("kept", RecordDict(), **state)
    assert parent.content(second)["a"]["x"].numpy().tolist() == [1.0] * 100


def test_a_freed_segment_is_used_again_and_too_many_are_closed(parent: Parent) -> None:
    first = parent.call("double", arrays(1.0))
    mine = [first["content_segment"], first["state_segment"]]
    again = parent.call("double", arrays(2.0), free=mine)
    assert again["closed"] == [mine[1]]
    assert mine[0] in {again["content_segment"], again["state_segment"]}


def test_a_segment_that_the_parent_closed_is_forgotten(parent: Parent) -> None:
    parent.call("double", arrays(1.0))
    parent.call("double", arrays(1.0), closed=[1, 77])
    assert 1 not in parent.worker._segments


def test_failures_and_refusals_are_answers_too(parent: Parent) -> None:
    assert parent.call("fail", RecordDict())["failure"] == "SystemExit"
    refused = parent.call("refuse", RecordDict())
    assert refused["app_error"] == [7, "no"]
    assert refused["state"] == []


def test_an_app_that_cannot_be_loaded_is_said_to_be(tmp_path: Path) -> None:
    parent = Parent(tmp_path, "no_such_served_module")
    reply = parent.receive()
    assert "no_such_served_module" in reply["refused"]
    assert reply["hint"]
    parent.end()
    assert not parent.thread.is_alive()


def test_a_worker_whose_parent_left_before_it_began_ends(tmp_path: Path) -> None:
    here, there = socket_pair()
    here.close()
    SiteWorker(there, Arena(FIRST), LIMIT).serve()
    assert list(tmp_path.iterdir()) == []
