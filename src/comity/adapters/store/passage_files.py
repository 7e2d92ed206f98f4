"""A folder of documents as a feed: regular files below it, and nothing that a link leads to."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from comity.errors import ConfigError, DataError
from comity.ports import FeedItem


class FolderFeed:
    """Implements `comity.ports.Feed` over a folder; names that begin with a dot are left out.

    Args:
        folder: Where the documents are.
        max_document_bytes: The most bytes of one file.
    """

    def __init__(self, folder: Path, *, max_document_bytes: int) -> None:
        self._folder = folder
        self._max_document_bytes = max_document_bytes

    def items(self) -> Iterator[FeedItem]:
        """The files below the folder, in order of their relative paths."""
        if not self._folder.is_dir():
            raise ConfigError(
                f"{self._folder} is not a folder", hint="give the folder that holds the documents"
            )
        yield from self._below(self._folder)

    def _below(self, folder: Path) -> Iterator[FeedItem]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            name = self._name(folder)
            yield self._item(folder, partial(_refuse, f"{name} cannot be read: {error.strerror}"))
            return
        for entry in entries:
            path = Path(entry.path)
            name = self._name(path)
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                yield self._item(path, partial(_refuse, f"{name} is a link: put the file itself"))
            elif entry.is_dir(follow_symlinks=False):
                yield from self._below(path)
            else:
                yield self._item(path, partial(self._read, path))

    def _item(self, path: Path, read: Callable[[], bytes]) -> FeedItem:
        return FeedItem(self._name(path), read)

    def _name(self, path: Path) -> str:
        """Relative to the folder: what a report says must not depend on where the folder lies."""
        name = path.relative_to(self._folder).as_posix()
        return name.encode("utf-8", "backslashreplace").decode()

    def _read(self, path: Path) -> bytes:
        name = self._name(path)
        try:
            # A link put here since the listing is not followed, and a pipe does not block.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise DataError(f"{name} is not a regular file")
                content = file.read(self._max_document_bytes + 1)
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror}") from error
        if len(content) > self._max_document_bytes:
            raise DataError(
                f"{name} is larger than {self._max_document_bytes} bytes",
                hint="split it, or raise limits.max-document-bytes in the site file",
            )
        return content


def _refuse(message: str) -> bytes:
    raise DataError(message)
