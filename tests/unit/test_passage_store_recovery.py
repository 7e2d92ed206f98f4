"""The index is a cache: lost, torn, stale or of another analysis, it comes back from the truth."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from tests.fakes.asking import OPEN, document

from comity.adapters.store.passages import StoreSettings, TantivyPassageStore
from comity.errors import UnavailableError, VersionMismatch
from comity.ids import DocumentId

INSIDE = frozenset({OPEN})


def filled(folder: Path) -> Path:
    store = TantivyPassageStore(folder)
    store.write([document("a", "pump alarm"), document("b", "bed rail")])
    store.write([], [DocumentId("guides/b")])
    store.close()
    return folder


def found(folder: Path, term: str) -> list[str]:
    store = TantivyPassageStore(folder)
    hits: list[str] = [hit.passage for hit in store.search([term], INSIDE, 10)]
    store.close()
    return hits


def test_a_lost_index_is_rebuilt(tmp_path: Path) -> None:
    shutil.rmtree(filled(tmp_path) / "index")
    assert found(tmp_path, "alarm") == ["id-of-guides/a"]
    assert found(tmp_path, "rail") == []


@pytest.mark.parametrize("damage", ["meta", "segments"])
def test_a_torn_index_is_rebuilt(tmp_path: Path, damage: str) -> None:
    index = filled(tmp_path) / "index"
    if damage == "meta":
        for file in index.glob("*/meta.json"):
            file.write_text("{ torn")
    else:
        for segment in index.glob("*/*.idx"):
            segment.write_bytes(b"")
    assert found(tmp_path, "alarm") == ["id-of-guides/a"]


def test_an_old_copy_of_the_index_catches_up(tmp_path: Path) -> None:
    store = TantivyPassageStore(tmp_path)
    store.write([document("a", "pump alarm"), document("b", "bed rail")])
    store.close()
    shutil.copytree(tmp_path / "index", tmp_path / "old")
    store = TantivyPassageStore(tmp_path)
    store.write([document("a", "pump clamp"), document("c", "bed light")])
    store.close()
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "old").rename(tmp_path / "index")
    assert found(tmp_path, "clamp") == ["id-of-guides/a"]
    assert found(tmp_path, "light") == ["id-of-guides/c"]
    assert found(tmp_path, "alarm") == []
    assert found(tmp_path, "rail") == ["id-of-guides/b"]


def test_an_index_ahead_of_a_restored_store_is_built_anew(tmp_path: Path) -> None:
    store = TantivyPassageStore(tmp_path)
    store.write([document("a", "pump alarm")])
    store.close()
    shutil.copyfile(tmp_path / "passages.sqlite", tmp_path / "backup")
    store = TantivyPassageStore(tmp_path)
    store.write([document("a", "pump clamp")])
    store.close()
    (tmp_path / "backup").rename(tmp_path / "passages.sqlite")
    assert found(tmp_path, "alarm") == ["id-of-guides/a"]
    assert found(tmp_path, "clamp") == []


def test_another_analysis_is_made_again_from_the_texts(tmp_path: Path) -> None:
    filled(tmp_path)
    connection = sqlite3.connect(tmp_path / "passages.sqlite")
    connection.execute("UPDATE meta SET value = 0 WHERE key = 'analysis'")
    connection.execute("UPDATE passages SET terms = 'old', length = 9")
    connection.commit()
    connection.close()
    store = TantivyPassageStore(tmp_path)
    assert [hit.passage for hit in store.search(["alarm"], INSIDE, 10)] == ["id-of-guides/a"]
    assert store.search(["old"], INSIDE, 10) == []
    counted = store.statistics(["alarm"], INSIDE)
    assert (counted.passages, counted.length, counted.frequencies) == (1, 2, {"alarm": 1})


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    connection = sqlite3.connect(tmp_path / "passages.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(VersionMismatch, match="schema version 99"):
        TantivyPassageStore(tmp_path)


def test_a_second_writer_is_turned_away_and_a_reader_goes_on(tmp_path: Path) -> None:
    store = TantivyPassageStore(filled(tmp_path))
    with (tmp_path / "write.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UnavailableError, match="another process is writing"):
            store.write([document("c", "pump")])
        shutil.rmtree(tmp_path / "index")
        # A reader that comes while the other one writes does not wait for it.
        assert TantivyPassageStore(tmp_path).search(["alarm"], INSIDE, 10) == []
    assert found(tmp_path, "alarm") == ["id-of-guides/a"]


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnavailableError, match="cannot be used"):
        TantivyPassageStore(tmp_path / "file")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "passages.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(UnavailableError, match="cannot be used"):
        TantivyPassageStore(tmp_path / "s")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = TantivyPassageStore(filled(tmp_path))
    twice = document("c", "pump")
    with pytest.raises(UnavailableError):
        store.write([twice, twice])
    assert store.search(["pump"], INSIDE, 10)[0].passage == "id-of-guides/a"
    assert store.statistics(["pump"], INSIDE).passages == 1


def test_threads_search_while_another_writes(tmp_path: Path) -> None:
    store = TantivyPassageStore(filled(tmp_path), StoreSettings(depth=5))
    failures: list[BaseException] = []

    def search() -> None:
        try:
            for _ in range(30):
                assert store.search(["alarm"], INSIDE, 5)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(5):
        store.write([document(f"n{at}", "alarm")])
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.search(["alarm"], INSIDE, 50)) == 6


def test_a_store_of_the_first_schema_is_brought_up_and_its_shared_index_dropped(
    tmp_path: Path,
) -> None:
    filled(tmp_path)
    connection = sqlite3.connect(tmp_path / "passages.sqlite")
    connection.execute("DROP TABLE changes")
    connection.execute("ALTER TABLE removed DROP COLUMN collection")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "meta.json").write_text("{}")
    assert found(tmp_path, "alarm") == ["id-of-guides/a"]
    assert not (tmp_path / "index" / "meta.json").exists()
