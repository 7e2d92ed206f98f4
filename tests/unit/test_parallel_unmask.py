"""Masks taken off over several processes are the same as in one, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from comity.adapters.parallel.unmask import ParallelUnmask
from comity.core.secagg.mask import Stream, apply_streams

STREAMS = [Stream(bytes([number]) * 32, negative=number % 2 == 0) for number in range(5)]


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@pytest.mark.parametrize("size", [1, 4095, 4096, 20_001])
def test_slices_over_processes_equal_one_pass(dtype: str, size: int) -> None:
    vector = np.arange(size).astype(dtype)
    expected = vector.copy()
    apply_streams(expected, STREAMS)
    assert (expected != vector).any()
    ParallelUnmask(workers=2, worth_bytes=0)(vector, STREAMS)
    assert np.array_equal(vector, expected)


def test_little_work_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("comity.adapters.parallel.unmask.ProcessPoolExecutor", never)
    back = [Stream(stream.key, not stream.negative) for stream in STREAMS]
    vector = np.zeros(100, "<u4")
    ParallelUnmask(workers=2)(vector, STREAMS)
    assert vector.any()
    ParallelUnmask(workers=1, worth_bytes=0)(vector, back)
    assert not vector.any()
    with pytest.raises(AssertionError, match="a process was started"):
        ParallelUnmask(workers=2, worth_bytes=0)(vector, STREAMS)
