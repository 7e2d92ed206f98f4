"""What the ledger knows a data set's source by: where it lies, and what is in it."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from comity.errors import UnavailableError

MAX_BYTES: Final = 64 * 2**20
"""Read of a source; of a larger one the heads of its files, with their sizes."""
MAX_FILES: Final = 10_000
_HEAD_BYTES: Final = 16 * 1024


def source_digests(path: Path, key: bytes) -> tuple[str, str]:
    """Digests of a source's content and of its place; the ledger binds a data set to both.

    By content a copy, a hard link and a source that was moved are known again, whatever they are
    called. Names inside a folder do not count. A change of a single byte gives another content:
    the place then says whose source it is.

    Args:
        path: A file or a folder.
        key: Secret of the site: a digest of few records could be guessed without one.

    Raises:
        UnavailableError: It cannot be read.
    """
    try:
        files = _files(path)
        head = max(_HEAD_BYTES, MAX_BYTES // max(1, len(files)))
        parts = sorted(_file_digest(file, head) for file in files[:MAX_FILES])
    except OSError as error:
        raise UnavailableError(
            f"{path}: {error.strerror}", hint="make the data set readable to this process"
        ) from error
    document = len(files).to_bytes(8, "big") + b"".join(parts)
    content = hmac.new(key, b"comity/content/v1" + document, "sha256").hexdigest()
    place = hashlib.sha256(b"comity/source/v1" + bytes(path.resolve())).hexdigest()
    return f"content:{content}", place


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(_below(path))


def _below(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            if file.is_file():
                yield file


def _file_digest(path: Path, head: int) -> bytes:
    with path.open("rb") as file:
        digest = hashlib.sha256(os.fstat(file.fileno()).st_size.to_bytes(8, "big"))
        while head > 0 and (block := file.read(min(head, 2**20))):
            digest.update(block)
            head -= len(block)
    return digest.digest()
