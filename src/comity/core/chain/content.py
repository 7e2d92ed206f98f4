"""The digest of what leaves: it stands in the audit chain in place of the content."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.errors import DataError

_TAG: Final = b"comity/content/v1"
_MAX_DEPTH: Final = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Content:
    """What is told of a value without telling the value.

    Attributes:
        digest: SHA-256 over its canonical encoding, hexadecimal.
        size_bytes: Bytes of array elements, text and numbers in it.
    """

    digest: str
    size_bytes: int


def content_of(value: object) -> Content:
    """The digest and size of arrays, metrics, configurations, passages and what nests of these.

    Every part is tagged with its type and its length, so no two values share an encoding. The
    order of a mapping counts; memory layout of an array does not.

    Raises:
        DataError: `value` holds a type that has no encoding, or nests deeper than 32.
    """
    digester = _Digester()
    digester.take(value, 0)
    return Content(digester.hash.hexdigest(), digester.size_bytes)


class _Digester:
    def __init__(self) -> None:
        self.hash = hashlib.sha256(_TAG)
        self.size_bytes = 0

    def take(self, value: object, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise DataError(f"a reply nests deeper than {_MAX_DEPTH}")
        if isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, Mapping):
            self._many(b"m", [part for item in value.items() for part in item], depth)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            self._many(b"l", value, depth)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
            self._many(b"d", [type(value).__name__, *fields], depth)
        else:
            self._scalar(value.item() if isinstance(value, np.generic) else value)

    def _array(self, array: NDArray[Any]) -> None:
        if array.dtype.kind not in "biufc":
            raise DataError(
                f"an array of dtype {array.dtype} cannot leave", hint="send numbers or booleans"
            )
        shape = ",".join(map(str, array.shape))
        self._bytes(b"a", f"{array.dtype.str}({shape})".encode())
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.hash.update(flat.data)
        self.size_bytes += flat.size

    def _many(self, tag: bytes, items: Sequence[object], depth: int) -> None:
        self.hash.update(tag + len(items).to_bytes(8, "big"))
        for item in items:
            self.take(item, depth + 1)

    def _scalar(self, value: object) -> None:
        match value:
            case None:
                self._bytes(b"n", b"")
            case bool() | int():
                self._sized(b"b" if isinstance(value, bool) else b"i", str(int(value)).encode())
            case float():
                self._sized(b"f", struct.pack(">d", value))
            case str():
                self._sized(b"s", value.encode("utf-8", "surrogatepass"))
            case bytes():
                self._sized(b"y", value)
            case _:
                raise DataError(
                    f"a value of type {type(value).__name__} cannot leave",
                    hint="send arrays, numbers, text, bytes, or lists and mappings of these",
                )

    def _sized(self, tag: bytes, data: bytes) -> None:
        self._bytes(tag, data)
        self.size_bytes += len(data)

    def _bytes(self, tag: bytes, data: bytes) -> None:
        self.hash.update(tag + len(data).to_bytes(8, "big"))
        self.hash.update(data)
