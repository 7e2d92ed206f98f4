"""Records between processes: JSON for structure, shared segments for array bytes, no pickle.

    records = [[name, "arrays", [[key, dtype, shape, stype, start, length], ...]],
               [name, "metrics", [[key, value], ...]],
               [name, "config", [[key, value or {"bytes": base64}], ...]]]

The array bytes of one set of records lie in one segment, which the frame around it names.
What comes from an app's process is checked field by field and never executed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from comity.adapters.flower.arrays import NO_DECODING, Buffer, BufferArray, Record
from comity.errors import Malformed

T = TypeVar("T")
Json = Any
"""What `json` reads and writes."""


@dataclass(slots=True)
class Outbox:
    """Collects array bytes that will lie in one segment, one after the other."""

    pieces: list[Buffer] = field(default_factory=list)
    size: int = 0
    _seen: dict[int, int] = field(default_factory=dict)

    def add(self, data: Buffer) -> int:
        """Where `data` will start; equal objects are stored once."""
        start = self._seen.get(id(data))
        if start is None:
            start = self._seen[id(data)] = self.size
            self.pieces.append(data)
            self.size += -(-len(data) // 64) * 64
        return start

    def write(self, target: memoryview) -> None:
        """Copies everything to `target`."""
        start = 0
        for piece in self.pieces:
            target[start : start + len(piece)] = piece
            start += -(-len(piece) // 64) * 64


class Source(Protocol):
    """Where array bytes are read from."""

    def __call__(self, start: int, length: int) -> tuple[Buffer, object]:
        """The buffer, and what keeps it from being reused."""


def encode_records(content: RecordDict, outbox: Outbox) -> Json:
    """The structure of `content`; its array bytes go to `outbox`."""
    return [[name, *_encode_record(record, outbox)] for name, record in content.items()]


def _encode_record(record: Record, outbox: Outbox) -> tuple[str, Json]:
    if isinstance(record, ArrayRecord):
        rows = []
        for key, array in record.items():
            data = array.buffer if isinstance(array, BufferArray) else array.data
            start = outbox.add(data)
            rows.append([key, array.dtype, array.shape, array.stype, start, len(data)])
        return "arrays", rows
    kind = "metrics" if isinstance(record, MetricRecord) else "config"
    return kind, [[key, _encode_value(value)] for key, value in record.items()]


def _encode_value(value: object) -> Json:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [_encode_value(item) for item in value]
    return value


def decode_records(document: Json, source: Source) -> RecordDict:
    """The records that `encode_records` described.

    Raises:
        Malformed: Anything is not as described above.
    """
    try:
        return _decode(document, source)
    except NO_DECODING as error:
        raise Malformed(f"a reply does not parse: {error}") from error


def _decode(document: Json, source: Source) -> RecordDict:
    content = RecordDict()
    for name, kind, rows in document:
        content[name] = _DECODERS[kind](rows, source)
    return content


def _decode_arrays(rows: Sequence[Json], source: Source) -> ArrayRecord:
    record = ArrayRecord()
    for key, dtype, shape, stype, start, length in rows:
        _checked(dtype, str)
        _checked(stype, str)
        for number in (*shape, start, length):
            _checked(number, int)
        buffer, keeper = source(start, length)
        record[key] = BufferArray(dtype, tuple(shape), stype, buffer, keeper)
    return record


def _decode_metrics(rows: Sequence[Json], source: Source) -> MetricRecord:
    del source
    return MetricRecord({_checked(key, str): value for key, value in rows})


def _decode_config(rows: Sequence[Json], source: Source) -> ConfigRecord:
    del source
    return ConfigRecord({_checked(key, str): _decode_value(value) for key, value in rows})


def _decode_value(value: Json) -> Json:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"], validate=True)
    if isinstance(value, list):
        return [_decode_value(item) for item in value]
    return value


def _checked(value: Json, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value


_DECODERS: Mapping[str, Callable[[Sequence[Json], Source], Record]] = {
    "arrays": _decode_arrays,
    "metrics": _decode_metrics,
    "config": _decode_config,
}


def parse_frame(frame: bytes) -> dict[str, Json]:
    """A frame as a JSON object.

    Raises:
        Malformed: It is not one.
    """
    try:
        document = json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise Malformed("a frame is not JSON") from error
    if not isinstance(document, dict):
        raise Malformed("a frame is not a JSON object")
    return document


def array_bytes(content: RecordDict) -> int:
    """Size of all arrays in `content`, in bytes as serialized."""
    return sum(
        len(array.buffer if isinstance(array, BufferArray) else array.data)
        for record in content.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )
