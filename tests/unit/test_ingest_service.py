"""Ingestion: by what changed, whole or not at all, and a bad file stops nobody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.fakes.asking import OPEN
from tests.fakes.gate_site import SetClock

from comity.adapters.store.passage_files import FolderFeed
from comity.adapters.store.passages import TantivyPassageStore
from comity.core.retrieval.chunk import ChunkSettings
from comity.errors import ConfigError, DataError
from comity.events import DocumentsIngested, Event
from comity.ids import CollectionName, SiteName
from comity.services.ingest import Ingest, IngestReport, IngestSettings
from comity.services.markup import text_of


class Intake:
    """One site that takes in one folder."""

    def __init__(self, folder: Path) -> None:
        self.documents = folder / "documents"
        self.documents.mkdir()
        self.store = TantivyPassageStore(folder / "store")
        self.events: list[Event] = []

    def write(self, name: str, content: bytes | str) -> None:
        path = self.documents / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def take(self, settings: IngestSettings | None = None, max_bytes: int = 10_000) -> IngestReport:
        feed = FolderFeed(self.documents, max_document_bytes=max_bytes)
        ingest = Ingest(SiteName("north"), self.store, SetClock(), settings, self.events.append)
        return ingest.collection(OPEN, feed)

    def found(self, *terms: str) -> list[str]:
        hits = self.store.search(terms, frozenset({OPEN}), 100)
        return sorted({one.document for one in self.store.fetch(hit.passage for hit in hits)})


@pytest.fixture
def intake(tmp_path: Path) -> Intake:
    return Intake(tmp_path)


def test_only_what_changed_is_written_and_what_is_gone_is_removed(intake: Intake) -> None:
    intake.write("a.md", "# Pump\n\nClose the clamp.")
    intake.write("deep/b.txt", "An alarm.")
    assert intake.take() == IngestReport(2, 0, 0, 0, 2, ())
    assert intake.found("alarm") == ["guides/deep/b.txt"]
    intake.write("a.md", "# Bed\n\nLower the rail.")
    (intake.documents / "deep/b.txt").unlink()
    intake.write("c.html", "<p>A new page</p>")
    assert intake.take() == IngestReport(1, 1, 1, 0, 2, ())
    assert intake.found("clamp") == []
    assert intake.found("rail") == ["guides/a.md"]
    assert intake.take() == IngestReport(0, 0, 0, 2, 0, ())
    told = intake.events[1]
    assert isinstance(told, DocumentsIngested)
    assert (told.added, told.replaced, told.removed, told.passages) == (1, 1, 1, 2)


def test_stored_passages_are_exact_stretches_of_the_document(intake: Intake) -> None:
    text = "# Title\n\n" + "Ein Satz mit Umlauten: äöü. " * 90 + "\n\n## End\n\nLast alarm."
    intake.write("a.md", text)
    intake.take()
    hits = intake.store.search(["umlauten", "alarm"], frozenset({OPEN}), 100)
    passages = intake.store.fetch(hit.passage for hit in hits)
    assert len(passages) >= 3
    assert all(text[one.start : one.end] == one.text for one in passages)
    assert {one.title for one in passages} == {"Title"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("bad.txt", b"caf\xe9 alarm", "bad.txt, byte 3: 0xe9 is not UTF-8"),
        ("zero.md", b"alarm\0", "zero.md, byte 5: a zero byte"),
        ("big.txt", b"alarm " * 2_000, "big.txt is larger than 10000 bytes"),
        ("line.txt", b"x\n" + b"alarm " * 300, "line.txt has a line of 1800 bytes"),
    ],
)
def test_a_bad_file_is_named_and_the_others_go_on(
    intake: Intake, name: str, content: bytes, reason: str
) -> None:
    intake.write(name, content)
    intake.write("good.txt", "A good alarm.")
    report = intake.take(IngestSettings(max_line_bytes=1_000))
    assert report.added == 1
    assert [one.document for one in report.refused] == [f"guides/{name}"]
    assert reason in report.refused[0].reason
    assert intake.found("alarm") == ["guides/good.txt"]


def test_kinds_that_are_not_read_are_counted_and_no_error(intake: Intake) -> None:
    intake.write("slides.pdf", b"%PDF alarm")
    intake.write("pictures/plan.png", b"\x89PNG" * 5_000)
    intake.write("Makefile", "alarm")
    intake.write("good.txt", "A good alarm.")
    report = intake.take()
    assert (report.added, report.skipped, report.refused) == (1, 3, ())
    assert intake.found("alarm") == ["guides/good.txt"]


def test_reasons_name_files_relative_to_the_collection_s_folder(intake: Intake) -> None:
    intake.write("deep/big.txt", b"alarm " * 2_000)
    intake.write("deep/bad.txt", b"\xff")
    (intake.documents / "deep/link.txt").symlink_to(intake.documents / "deep/bad.txt")
    reasons = [one.reason for one in intake.take().refused]
    assert [reason.split()[0].strip(",") for reason in reasons] == [
        "deep/bad.txt",
        "deep/big.txt",
        "deep/link.txt",
    ]


def test_a_document_of_another_kind_is_no_text() -> None:
    with pytest.raises(DataError, match="not a kind of document"):
        text_of("slides.pdf", b"", max_line_bytes=9)


def test_a_document_that_turns_bad_is_no_longer_found(intake: Intake) -> None:
    intake.write("a.txt", "An alarm.")
    intake.take()
    intake.write("a.txt", b"\xff")
    assert intake.take().removed == 1
    assert intake.found("alarm") == []


def test_links_and_pipes_and_hidden_files_are_not_read(intake: Intake, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("secret alarm")
    (intake.documents / "link.txt").symlink_to(tmp_path / "outside.txt")
    (intake.documents / "folder").symlink_to(tmp_path)
    os.mkfifo(intake.documents / "pipe.txt")
    intake.write(".hidden.txt", "alarm")
    report = intake.take()
    assert report.added == 0
    assert [one.document for one in report.refused] == [
        "guides/folder",
        "guides/link.txt",
        "guides/pipe.txt",
    ]
    assert intake.found("alarm") == []


def test_a_file_that_vanishes_while_it_is_read_is_named(intake: Intake) -> None:
    intake.write("a.txt", "alarm")
    item = next(FolderFeed(intake.documents, max_document_bytes=100).items())
    (intake.documents / "a.txt").unlink()
    with pytest.raises(DataError, match=r"a\.txt cannot be read: No such file"):
        item.read()


def test_a_missing_folder_is_the_operators_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        list(FolderFeed(tmp_path / "none", max_document_bytes=1).items())


def test_too_many_documents_refuse_and_remove_nothing(intake: Intake) -> None:
    intake.write("a.txt", "An alarm.")
    intake.take()
    intake.write("b.txt", "Another alarm.")
    (intake.documents / "a.txt").rename(intake.documents / "c.txt")
    with pytest.raises(DataError, match="more than 1 documents"):
        intake.take(IngestSettings(max_documents=1))
    assert intake.found("alarm") == ["guides/a.txt"]


def test_small_batches_write_the_same(intake: Intake) -> None:
    for at in range(5):
        intake.write(f"{at}.txt", f"Alarm number {at}.")
    assert intake.take(IngestSettings(batch_characters=1)).added == 5
    assert len(intake.found("alarm")) == 5


def test_other_bounds_make_other_passages_of_the_same_content(intake: Intake) -> None:
    intake.write("a.txt", "One alarm here. " * 40)
    assert intake.take().passages == 1
    report = intake.take(IngestSettings(chunk=ChunkSettings(100, 100)))
    assert report.replaced == 1
    assert report.passages > 5


def test_html_gives_what_a_reader_sees() -> None:
    page = (
        "<html><head><title> Pump\n card </title><style>p{}</style></head><body><h2>Alarm</h2>"
        "<p>Close &amp; wait<br>then open.</p><script>evil()</script><ul><li>one</li><li>two</li>"
        "</ul><table><tr><td>a</td><td>b</td></tr></table></style></body>"
    )
    title, text = text_of("card.html", page.encode(), max_line_bytes=1_000)
    assert title == "Pump card"
    assert text == "## Alarm\n\nClose & wait\nthen open.\n\n- one\n- two\n\n| a | b"


def test_a_title_is_the_heading_else_the_name() -> None:
    assert text_of("a.md", b"x\n\n# Head ##\n", max_line_bytes=9)[0] == "Head"
    assert text_of("deep/pump_card-2.txt", b"x", max_line_bytes=9)[0] == "pump card 2"
    assert text_of("a.txt", "\ufeffx".encode(), max_line_bytes=9)[1] == "x"


def test_a_name_of_a_collection_is_part_of_the_documents_id(intake: Intake) -> None:
    intake.write("a.txt", "alarm")
    intake.take()
    assert list(intake.store.digests(OPEN)) == ["guides/a.txt"]
    assert intake.store.digests(CollectionName("other")) == {}
