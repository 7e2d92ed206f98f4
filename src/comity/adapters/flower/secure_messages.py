"""Messages of a secure sum as Flower records: bytes in a configuration record, vectors as arrays.

Requests for keys, links and reveals are queries of reserved names; an invitation rides in the app's
own message, and is taken out before the app sees it.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.lib import format as npy
from numpy.typing import NDArray

from comity.adapters.flower.arrays import NUMPY_STYPE, BufferArray, Record, view_npy
from comity.errors import Malformed
from comity.ports import SealedUpload

PROTOCOL: Final = "comity.secagg"
"""The configuration record that holds a message of the protocol."""
VECTOR: Final = "comity.sum"
"""The array record that holds a masked vector."""
ANNOUNCE: Final = "query.comity_announce"
LINK: Final = "query.comity_link"
REVEAL: Final = "query.comity_reveal"
PROTOCOL_TYPES: Final = frozenset({ANNOUNCE, LINK, REVEAL})
_BODY: Final = "body"
_WORDS: Final = frozenset({"uint16", "uint32"})


def protocol_record(body: bytes) -> ConfigRecord:
    """A message of the protocol as a record."""
    return ConfigRecord({_BODY: body})


def protocol_body(content: RecordDict) -> bytes | None:
    """The message of the protocol in `content`; None where there is none.

    Raises:
        Malformed: Something else stands in its place.
    """
    record = content.get(PROTOCOL)
    if record is None:
        return None
    body = record.get(_BODY) if isinstance(record, ConfigRecord) else None
    if not isinstance(body, bytes):
        raise Malformed(f"record {PROTOCOL!r} holds no message of a secure sum")
    return body


def without_protocol(content: RecordDict) -> RecordDict:
    """The app's own records, the same objects."""
    kept = RecordDict()
    for name, record in content.items():
        if name != PROTOCOL:
            kept[name] = record
    return kept


def upload_records(upload: SealedUpload | bytes) -> RecordDict:
    """A masked upload, or the one bit in its place, as records."""
    if isinstance(upload, bytes):
        return RecordDict({PROTOCOL: protocol_record(upload)})
    header = io.BytesIO()
    words = upload.vector
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(words))
    buffer = header.getvalue() + words.tobytes()
    record = ArrayRecord()
    record["sum"] = BufferArray(str(words.dtype), words.shape, NUMPY_STYPE, buffer)
    return RecordDict({PROTOCOL: protocol_record(upload.header), VECTOR: record})


def read_upload(content: RecordDict) -> SealedUpload | bytes:
    """What a site answered to an invitation.

    Raises:
        Malformed: It is neither an upload nor the one bit in its place.
    """
    body = protocol_body(content)
    if body is None:
        raise Malformed("a reply to an invitation without a message of the secure sum")
    record = content.get(VECTOR)
    if record is None:
        return body
    array = record.get("sum") if isinstance(record, ArrayRecord) else None
    if array is None or array.dtype not in _WORDS or array.stype != NUMPY_STYPE:
        raise Malformed("a masked vector is of no ring")
    return SealedUpload(body, _words(array))


def content_digest(content: RecordDict) -> bytes:
    """SHA-256 over all that an app is sent: equal for equal content, at both ends."""
    hasher = hashlib.sha256(b"comity/secagg/v1/content")
    for name, record in content.items():
        _take(hasher, name.encode(), type(record).__name__.encode())
        if isinstance(record, ArrayRecord):
            for key, array in record.items():
                head = json.dumps([key, array.dtype, list(array.shape), array.stype]).encode()
                _take(hasher, head)
                _take(hasher, array.buffer if isinstance(array, BufferArray) else array.data)
        else:
            _take(hasher, json.dumps(_plain(record)).encode())
    return hasher.digest()


def _take(hasher: Any, *parts: bytes | memoryview) -> None:  # noqa: ANN401 - hashlib has no type
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)


def _plain(record: Record) -> list[Any]:
    return [[key, type(value).__name__, _value(value)] for key, value in record.items()]


def _value(value: object) -> Any:  # noqa: ANN401 - JSON
    match value:
        case bytes():
            return value.hex()
        case float():
            return value.hex()
        case list():
            return [[type(item).__name__, _value(item)] for item in value]
        case _:
            return value


def _words(array: Array) -> NDArray[Any]:
    buffer = array.buffer if isinstance(array, BufferArray) else array.data
    try:
        words = view_npy(buffer)
    except ValueError as error:
        raise Malformed("a masked vector does not parse") from error
    if words is None or words.ndim != 1 or str(words.dtype) not in _WORDS:
        raise Malformed("a masked vector does not parse")
    return np.asarray(words)
