"""The newest signed head in a file of its own, outside the journal's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from comity.core.chain.canonical import decode, encode
from comity.core.chain.record import Head
from comity.errors import Malformed, UnavailableError, Verification, VersionMismatch
from comity.ids import SiteName
from comity.ports import HeadKeeper, SignedHead

SCHEMA_VERSION: Final = 1
_MAX_BYTES: Final = 4_096
_WAY_OUT: Final = "make room or make the folder writable, then try again"


def write_head(signed: SignedHead) -> bytes:
    """A signed head as canonical JSON, as it stands in the file and travels to peers."""
    return encode(
        {
            "schema_version": SCHEMA_VERSION,
            "site": signed.site,
            "sequence": signed.head.sequence,
            "hash": signed.head.hash.hex(),
            "signature": signed.signature.hex(),
        }
    )


def read_head(body: bytes) -> SignedHead:
    """Reads what `write_head` wrote; the signature is not yet verified.

    Raises:
        Malformed: It does not parse.
        VersionMismatch: It is of a version that this release cannot read.
    """
    fields = decode(body, max_bytes=_MAX_BYTES)
    if fields.get("schema_version") != SCHEMA_VERSION:
        raise VersionMismatch(f"a signed head of schema version {fields.get('schema_version')!r}")
    match fields:
        case {
            "site": str(site),
            "sequence": int(sequence),
            "hash": str(digest),
            "signature": str(signature),
        } if sequence >= 0:
            try:
                head = Head(sequence, bytes.fromhex(digest))
                return SignedHead(SiteName(site), head, bytes.fromhex(signature))
            except ValueError as error:
                raise Malformed(f"a signed head does not parse: {error}") from error
    raise Malformed("a signed head lacks site, sequence, hash or signature")


class MirroredHeads:
    """`HeadKeeper` that keeps each head in a second place too.

    Args:
        first: What `load` reads.
        mirror: Outside the site's state folder, so that an old copy of the whole is noticed.
    """

    def __init__(self, first: HeadKeeper, mirror: HeadKeeper) -> None:
        self._first = first
        self._mirror = mirror

    def load(self) -> SignedHead | None:
        """The head that the first keeper holds."""
        return self._first.load()

    def keep(self, signed: SignedHead) -> None:
        """Durably replaces the head in both places, the first one first."""
        self._first.keep(signed)
        self._mirror.keep(signed)


class FileHeadKeeper:
    """`HeadKeeper` over one file, replaced whole: after a crash it holds the old head or the new.

    Args:
        path: The file; best on another disk than the journal. Its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> SignedHead | None:
        """The head that was kept last, or None before the first.

        Raises:
            Verification: The file does not parse.
            UnavailableError: It cannot be read.
        """
        try:
            return read_head(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"{self._path}: {error.strerror}", hint=_WAY_OUT) from error
        except Malformed as error:
            raise Verification(
                f"{self._path}: the kept head was altered: {error.message}",
                hint="put the file back from a backup, or remove it: comity journal restore",
            ) from error
        except VersionMismatch as error:
            raise Verification(
                f"{self._path}: the kept head is not one that this release wrote: {error.message}",
                hint="put the file back from a backup, or remove it: comity journal restore",
            ) from error

    def keep(self, signed: SignedHead) -> None:
        """Durably replaces the kept head.

        Raises:
            UnavailableError: It cannot be written; the old one still stands.
        """
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(write_head(signed))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            self._sync_folder()
        except OSError as error:
            raise UnavailableError(f"{self._path}: {error.strerror}", hint=_WAY_OUT) from error

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
