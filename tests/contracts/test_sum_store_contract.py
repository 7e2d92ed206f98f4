"""What every store of a site's places in secure sums keeps to; the file store also to its files."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from comity.adapters.store.sums import FileSumStore, MemorySumStore
from comity.errors import DataError, UnavailableError
from comity.ports import KeptContribution, KeptSum, SealedUpload, SumStore

MakeStore = Callable[[Path], SumStore]


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SumStore:
    return MemorySumStore() if request.param == "memory" else FileSumStore(tmp_path / "sums")


def kept(
    state: bytes = b"state", *, ring: str = "uint32", given: bool = True, sent: bool = True
) -> KeptSum:
    contribution = KeptContribution(
        7,
        bytes(range(32)),
        {
            "layer/0.weight": np.arange(6.0).reshape(2, 3),
            "../state": np.ones((0, 2), np.float16),
            "scalar": np.asarray(3, np.int64),
        },
        0.1,
        (1e-300, -2.5),
        ("arrays", "metrics", "loss", "näme"),
    )
    vector = np.arange(5).astype(ring)
    upload = SealedUpload(b"header\0", vector)
    return KeptSum(state, contribution if given else None, upload if sent else None)


def check_equal(found: KeptSum | None, expected: KeptSum) -> None:
    assert found is not None
    assert found.state == expected.state
    assert (found.upload is None) == (expected.upload is None)
    if found.upload is not None and expected.upload is not None:
        assert found.upload.header == expected.upload.header
        assert found.upload.vector.dtype == expected.upload.vector.dtype
        np.testing.assert_array_equal(found.upload.vector, expected.upload.vector)
    mine, other = found.contribution, expected.contribution
    assert (mine is None) == (other is None)
    if mine is None or other is None:
        return
    assert (mine.round_number, mine.received, mine.weight, mine.metrics, mine.names) == (
        other.round_number,
        other.received,
        other.weight,
        other.metrics,
        other.names,
    )
    assert list(mine.arrays) == list(other.arrays)
    for name, array in other.arrays.items():
        assert (mine.arrays[name].dtype, mine.arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(mine.arrays[name], array)


def test_nothing_is_kept_of_a_run_that_is_not_known(store: SumStore) -> None:
    assert store.load("run") is None


@pytest.mark.parametrize("ring", ["uint16", "uint32"])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("sent", [True, False])
def test_what_was_kept_last_comes_back_to_the_bit(
    store: SumStore, ring: str, *, given: bool, sent: bool
) -> None:
    store.keep("run", kept(b"older"))
    expected = kept(b"\0newer\0", ring=ring, given=given, sent=sent)
    store.keep("run", expected)
    check_equal(store.load("run"), expected)


def test_runs_are_kept_apart_whatever_they_are_called(store: SumStore) -> None:
    names = ["a", "A", "../a", "a/b", "", "\0", "ü" * 300]
    for name in names:
        store.keep(name, kept(name.encode()))
    for name in names:
        check_equal(store.load(name), kept(name.encode()))


# --- files ------------------------------------------------------------------------------------


def test_another_process_reads_what_was_kept(tmp_path: Path) -> None:
    FileSumStore(tmp_path / "deep" / "sums").keep("run", kept())
    check_equal(FileSumStore(tmp_path / "deep" / "sums").load("run"), kept())


def test_folder_and_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    FileSumStore(tmp_path / "sums").keep("run", kept())
    (file,) = (tmp_path / "sums").iterdir()
    assert (tmp_path / "sums").stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    assert "run" not in file.name


def test_the_oldest_runs_make_room(tmp_path: Path) -> None:
    store = FileSumStore(tmp_path, max_runs=2)
    for number in range(4):
        store.keep(f"run-{number}", kept(str(number).encode()))
    assert [store.load(f"run-{number}") is not None for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_contribution_that_was_replaced_is_in_no_file_any_more(tmp_path: Path) -> None:
    store, planted = FileSumStore(tmp_path), np.full(100, 0.123456789)
    contribution = KeptContribution(1, bytes(32), {"w": planted}, 1.0, (), ("a", "m"))
    store.keep("run", KeptSum(b"open", contribution))
    assert any(planted.tobytes() in file.read_bytes() for file in tmp_path.iterdir())
    store.keep("run", KeptSum(b"closed"))
    assert not any(planted.tobytes() in file.read_bytes() for file in tmp_path.iterdir())


def test_a_file_that_was_cut_or_altered_is_refused_and_named_or_reads_as_it_was(
    tmp_path: Path,
) -> None:
    store, rng = FileSumStore(tmp_path), random.Random(1)
    store.keep("run", kept())
    (file,) = tmp_path.iterdir()
    body, refused = file.read_bytes(), 0
    for number in range(900):
        altered = bytearray(body)
        if number % 2:
            altered = altered[: rng.randrange(len(body))]
        else:
            altered[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        file.write_bytes(altered)
        found = loaded(store)
        if isinstance(found, DataError):
            refused += 1
            assert str(file) in found.message
            assert "next epoch" in str(found.hint)
        else:
            check_equal(found, kept())
    assert refused > 700


def loaded(store: SumStore) -> KeptSum | DataError | None:
    try:
        return store.load("run")
    except DataError as error:
        return error


def test_a_disk_that_cannot_be_written_keeps_what_stood(tmp_path: Path) -> None:
    store = FileSumStore(tmp_path)
    store.keep("run", kept(b"before"))
    (file,) = tmp_path.iterdir()
    file.with_suffix(".new").mkdir()
    with pytest.raises(UnavailableError, match="Is a directory"):
        store.keep("run", kept(b"after"))
    check_equal(store.load("run"), kept(b"before"))


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    store = FileSumStore(tmp_path)
    store.keep("run", kept())
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    with pytest.raises(UnavailableError, match="Is a directory"):
        store.load("run")
