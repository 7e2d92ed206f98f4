from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from comity.adapters.flower.arrays import BufferArray, own_copy, view_npy


def buffered(array: NDArray[Any]) -> BufferArray:
    plain = Array(array)
    buffer = memoryview(bytearray(plain.data))
    return BufferArray(plain.dtype, plain.shape, plain.stype, buffer, keeper=object())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array(3.5),
        np.zeros((0, 4)),
        np.array([True, False]),
        np.arange(3).astype(">i2"),
    ],
)
def test_an_array_over_a_buffer_reads_as_flowers_own(array: NDArray[Any]) -> None:
    over, plain = buffered(array), Array(array)
    read, expected = over.numpy(), plain.numpy()
    assert (read.dtype, read.shape, read.flags.f_contiguous) == (
        expected.dtype,
        expected.shape,
        expected.flags.f_contiguous,
    )
    assert read.tobytes() == expected.tobytes()
    assert read.flags.writeable


def test_writing_into_what_numpy_gave_changes_nothing_else() -> None:
    over = buffered(np.zeros(4))
    over.numpy()[:] = 7
    assert over.numpy().tolist() == [0, 0, 0, 0]


def test_an_array_over_a_buffer_is_an_array_to_flower() -> None:
    over, plain = buffered(np.arange(5)), Array(np.arange(5))
    assert over == plain
    assert plain == over
    assert over != buffered(np.arange(6))
    assert over != "an array"
    assert over.object_id == plain.object_id
    assert repr(over) == repr(plain)
    restored = pickle.loads(pickle.dumps(over))  # noqa: S301 - our own bytes
    assert type(restored) is Array
    assert restored == plain


def test_reading_the_bytes_lets_the_buffer_go() -> None:
    buffer = bytearray(Array(np.zeros(2)).data)
    over = BufferArray("float64", (2,), "numpy.ndarray", memoryview(buffer), keeper=object())
    before = over.data
    buffer[-1] = 255
    assert over.data == before
    over.data = b"other"
    assert over.data == b"other"


def test_a_serialization_of_the_apps_own_stays_as_it_is() -> None:
    own = BufferArray("float32", (2,), "my.format", memoryview(b"opaque"))
    assert own.data == b"opaque"
    with pytest.raises(TypeError, match=r"my\.format"):
        own.numpy()


def test_buffers_that_are_no_npy_of_version_one_go_flowers_way() -> None:
    assert view_npy(b"short") is None
    assert view_npy(b"\x93NUMPY\x02\x00" + bytes(20)) is None


def test_a_header_that_promises_more_than_there_is_is_refused() -> None:
    data = Array(np.zeros(100)).data[:200]
    with pytest.raises((TypeError, ValueError)):
        BufferArray("float64", (100,), "numpy.ndarray", data).numpy()


def made(**records: Any) -> Any:
    return RecordDict(records)


def test_each_receiver_gets_records_lists_and_arrays_of_its_own() -> None:
    content = made(
        a=ArrayRecord([np.zeros(3)]),
        m=MetricRecord({"list": [1.0, 2.0], "one": 1}),
        c=ConfigRecord({"text": "x", "bytes": b"y", "many": ["p", "q"]}),
    )
    first: Any = own_copy(content)
    second: Any = own_copy(content)
    assert first == content
    first["a"]["0"].data = b"changed"
    first["m"]["list"].append(3.0)
    first["c"]["text"] = "z"
    first["m"]["more"] = 1
    assert second == content


def test_the_bytes_of_an_array_are_shared_between_receivers() -> None:
    content = made(a=ArrayRecord([np.zeros(3)]))
    once: Any = own_copy(content)
    twice: Any = own_copy(once)
    assert once["a"]["0"].data is twice["a"]["0"].data is content["a"]["0"].data
