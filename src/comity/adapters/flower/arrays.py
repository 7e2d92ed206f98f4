"""Flower's `Array` over any buffer: no copy until bytes are asked for, one to get an ndarray.

`flwr.app.Array.numpy` reads through a file object in pieces; over a buffer that is already there
one copy is enough. The copy stays, because apps and strategies may write into what they get.
"""

from __future__ import annotations

import functools
import tokenize
from typing import Any, Final, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.lib import format as npy
from numpy.typing import NDArray

from comity.errors import Malformed

NUMPY_STYPE: Final = "numpy.ndarray"
_V1_PREFIX: Final = 10
_MAX_HEADER: Final = 10_000
NO_DECODING: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What decoding bytes that somebody else chose may raise."""

Record = ArrayRecord | MetricRecord | ConfigRecord
Buffer = bytes | memoryview


class BufferArray(Array):
    """An `Array` whose bytes lie in `buffer`, which `keeper` keeps alive.

    Equal to an `Array` of the same fields, and pickled as one.
    """

    def __init__(
        self, dtype: str, shape: tuple[int, ...], stype: str, buffer: Buffer, keeper: object = None
    ) -> None:
        self.__dict__.update(
            dtype=dtype, shape=shape, stype=stype, _buffer=buffer, _keeper=keeper, _is_dirty=True
        )

    @property
    def buffer(self) -> Buffer:
        """The serialized bytes where they lie."""
        return cast("Buffer", self.__dict__["_buffer"])

    @property
    def data(self) -> bytes:
        """The serialized bytes, copied out once where they lie in a shared segment."""
        buffer = self.buffer
        if not isinstance(buffer, bytes):
            buffer = bytes(buffer)
            self.__dict__.update(_buffer=buffer, _keeper=None)
        return buffer

    @data.setter
    def data(self, value: bytes) -> None:
        self.__dict__.update(_buffer=value, _keeper=None)

    def numpy(self) -> NDArray[Any]:
        """A fresh, writable ndarray."""
        if self.stype != NUMPY_STYPE:
            return super().numpy()
        viewed = view_npy(self.buffer)
        return super().numpy() if viewed is None else viewed.copy(order="K")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return NotImplemented
        mine = (self.dtype, self.shape, self.stype)
        return mine == (other.dtype, other.shape, other.stype) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]  # as in Array, which is mutable

    def __reduce__(self) -> tuple[type[Array], tuple[str, tuple[int, ...], str, bytes]]:
        return Array, (self.dtype, self.shape, self.stype, self.data)


# Flower writes the class's name into an object's identity; this one is an Array there too.
BufferArray.__qualname__ = Array.__qualname__


def view_npy(buffer: Buffer) -> NDArray[Any] | None:
    """The array inside an ``.npy`` buffer of format 1.0, as a view; None for other formats.

    Raises:
        ValueError: The header promises more than the buffer holds, or does not parse.
    """
    prefix = bytes(buffer[:_V1_PREFIX])
    if len(prefix) < _V1_PREFIX or prefix[:8] != b"\x93NUMPY\x01\x00":
        return None
    start = _V1_PREFIX + int.from_bytes(prefix[8:], "little")
    layout = _layout(bytes(buffer[:start]))
    if layout is None:
        return None
    dtype, shape, order = layout
    return np.ndarray(shape, dtype, buffer=buffer, offset=start, order=order)


@functools.lru_cache(maxsize=1024)
def _layout(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], Any] | None:
    import io  # noqa: PLC0415 - once per distinct header

    stream = io.BytesIO(header)
    npy.read_magic(stream)
    shape, fortran, dtype = npy.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
    return None if dtype.hasobject else (dtype, shape, "F" if fortran else "C")


def checked_array(array: Array) -> NDArray[Any]:
    """The array inside `array`, as a view of its bytes; only ``.npy`` of format 1.0 is read.

    Raises:
        Malformed: It is something else, or does not parse.
    """
    try:
        if array.stype == NUMPY_STYPE:
            viewed = view_npy(array.buffer if isinstance(array, BufferArray) else array.data)
            if viewed is not None:
                return viewed
    except NO_DECODING as error:
        raise Malformed(f"an array does not decode: {type(error).__name__}") from error
    raise Malformed("an array is not in the .npy format 1.0")


def check_decodes(array: Array) -> None:
    """Checks that `array` can be read; an `stype` that is not NumPy's is its reader's own affair.

    Raises:
        Malformed: It cannot.
    """
    try:
        buffer = array.buffer if isinstance(array, BufferArray) else array.data
        if array.stype == NUMPY_STYPE and view_npy(buffer) is None:
            array.numpy()
    except NO_DECODING as error:
        raise Malformed(f"an array does not decode: {type(error).__name__}") from error


def own_copy(content: RecordDict) -> RecordDict:
    """A copy for one receiver: its own records, lists and `Array`s over the same bytes."""
    copied = RecordDict()
    for name, record in content.items():
        copied[name] = _copy_record(record)
    return copied


def _copy_record(record: Record) -> Record:
    if isinstance(record, ArrayRecord):
        arrays = ArrayRecord()
        for key, array in record.items():
            arrays[key] = _share(array)
        return arrays
    copied = record.copy()
    for key, value in record.items():
        if isinstance(value, list):
            copied[key] = list(value)  # type: ignore[assignment]  # the same element type
    return copied


def _share(array: Array) -> BufferArray:
    if isinstance(array, BufferArray):
        keeper = array.__dict__["_keeper"]
        return BufferArray(array.dtype, array.shape, array.stype, array.buffer, keeper)
    return BufferArray(array.dtype, tuple(array.shape), array.stype, array.data)
