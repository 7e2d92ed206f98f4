"""A file that cannot be read says which, where and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comity.config.read import read_toml
from comity.errors import ConfigError


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_bytes(b'\xef\xbb\xbfname = "a"\r\n[train]\r\n')
    assert read_toml(file) == {"name": "a", "train": {}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b'name = "a"\nfoo = [1, 2', "line 2, end of file", id="end of file"),
        pytest.param(b'name = "a"\nfoo == 1', "line 2, column 6", id="syntax"),
        pytest.param(b'name = "a"\nname = "b"\n', "Cannot overwrite", id="a key twice"),
        pytest.param(
            b'name = "a"\n\nb = "\xff"\n', "line 3: byte 0xff is not UTF-8", id="not utf8"
        ),
        pytest.param(b"a = " + b"[" * 100_000, "nests too deeply", id="deep nesting"),
        pytest.param(b"a = " + b"9" * 10_000, "digits", id="huge integer"),
        pytest.param(b"#" * 2**20 + b"\n", "is larger than 1048576 bytes", id="too large"),
    ],
)
def test_wrong_content_is_named_with_its_place(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "site.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_toml(file)
    assert words in caught.value.message
    assert str(file) in caught.value.message
    assert caught.value.hint


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {
        tmp_path: "is a folder",
        tmp_path / "none.toml": "does not exist",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / "a\0b": "cannot be read",
        tmp_path / ("x" * 300): "cannot be read",
    }
    for file, words in cases.items():
        with pytest.raises(ConfigError, match=words):
            read_toml(file)


def test_the_limit_is_an_argument(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("a = 1\n")
    assert read_toml(file, max_bytes=6) == {"a": 1}
    with pytest.raises(ConfigError, match="larger than 5 bytes"):
        read_toml(file, max_bytes=5)
