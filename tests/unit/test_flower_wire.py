from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from comity.adapters.flower.arrays import BufferArray
from comity.adapters.flower.wire import (
    Outbox,
    array_bytes,
    decode_records,
    encode_records,
    parse_frame,
)
from comity.errors import Malformed

CONTENT = RecordDict(
    {
        "arrays": ArrayRecord([np.arange(100.0), np.zeros((2, 3), dtype=np.int8)]),
        "metrics": MetricRecord({"loss": 0.1, "n": 3, "all": [1.5, 2.5], "inf": float("inf")}),
        "config": ConfigRecord({"t": "\u00e4", "b": b"\x00\xff", "bs": [b"", b"x"], "on": True}),
        "empty": ConfigRecord(),
    }
)


def carried(content: RecordDict) -> RecordDict:
    import json  # noqa: PLC0415 - what frames are made of

    outbox = Outbox()
    document = json.loads(json.dumps(encode_records(content, outbox)))
    memory = bytearray(outbox.size)
    outbox.write(memoryview(memory))
    return decode_records(
        document, lambda start, length: (memoryview(memory)[start : start + length], None)
    )


def test_records_arrive_as_they_were_sent() -> None:
    arrived: Any = carried(CONTENT)
    assert arrived == CONTENT
    assert list(arrived) == list(CONTENT)
    assert type(arrived["metrics"]["n"]) is int
    assert arrived["config"]["on"] is True
    assert array_bytes(arrived) == array_bytes(CONTENT) == arrived["arrays"].count_bytes() - 2


def test_equal_bytes_are_written_once() -> None:
    record = ArrayRecord([np.zeros(1000)])
    array = record["0"]
    same = BufferArray(array.dtype, array.shape, array.stype, array.data)
    outbox = Outbox()
    encode_records(RecordDict({"a": record, "b": ArrayRecord({"x": array})}), outbox)
    once = outbox.size
    record = ArrayRecord()
    record["same"] = same
    encode_records(RecordDict({"c": record}), outbox)
    assert outbox.size == once


def no_bytes(start: int, length: int) -> tuple[Any, object]:
    raise Malformed(f"{length} bytes at {start}")


@pytest.mark.parametrize(
    "document",
    [
        None,
        7,
        [["a"]],
        [["a", "pickle", []]],
        [[1, "metrics", []]],
        [["a", "metrics", [["x", "text"]]]],
        [["a", "metrics", [[1, 2.0]]]],
        [["a", "metrics", [["x", {"bytes": ""}]]]],
        [["a", "config", [["x", {"bytes": "***"}]]]],
        [["a", "config", [["x", {"other": 1}]]]],
        [["a", "config", [["x", None]]]],
        [["a", "arrays", [["x", "f4", [1], "numpy.ndarray", 0]]]],
        [["a", "arrays", [["x", 4, [1], "numpy.ndarray", 0, 0]]]],
        [["a", "arrays", [["x", "f4", [1.5], "numpy.ndarray", 0, 0]]]],
        [["a", "arrays", [["x", "f4", [1], "numpy.ndarray", -1, 10]]]],
        [["a", "arrays", [["x", "f4", [1], "numpy.ndarray", True, 10]]]],
        [["a", "arrays", [["x", "f4", 1, "numpy.ndarray", 0, 10]]]],
        {"a": "arrays"},
    ],
)
def test_a_document_of_another_form_is_malformed(document: object) -> None:
    with pytest.raises(Malformed):
        decode_records(document, no_bytes)


@pytest.mark.parametrize("frame", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_a_frame_that_is_no_json_object_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        parse_frame(frame)
