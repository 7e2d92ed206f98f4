"""Hash-linked records: any altered, removed, reordered or cut-off record is named.

    hash_k = SHA-256(tag || hash_{k-1} || u64(k) || len(kind) || kind || len(body) || body)

Lengths are 8-byte big-endian, so no two field lists share an encoding. The first record links to
32 zero bytes. A `Head` says how far a chain reached; signed and kept elsewhere, it shows a cut tail
or an old copy, which the chain alone cannot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from comity.errors import Verification

GENESIS: Final = bytes(32)
_TAG: Final = b"comity/chain/v1"


@dataclass(frozen=True, slots=True)
class Record:
    """One link.

    Attributes:
        sequence: Position, counted from 1.
        kind: What it records.
        body: Canonical JSON, UTF-8.
        previous: Hash of the record before, 32 bytes.
        hash: Hash over all of the above, 32 bytes.
    """

    sequence: int
    kind: str
    body: bytes
    previous: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """How far a chain reached: the last record's sequence and hash; (0, zeros) when empty."""

    sequence: int = 0
    hash: bytes = GENESIS


def link(head: Head, kind: str, body: bytes) -> Record:
    """The record that follows `head`."""
    sequence = head.sequence + 1
    return Record(sequence, kind, body, head.hash, _hash(sequence, kind, body, head.hash))


def head_after(record: Record) -> Head:
    """The head of a chain that ends with `record`."""
    return Head(record.sequence, record.hash)


def verified(records: Iterable[Record], *, start: Head | None = None) -> Iterator[Record]:
    """Yields each record after checking that it follows the one before.

    Raises:
        Verification: A record was altered, removed, inserted or reordered; names its position.
    """
    head = start or Head()
    for record in records:
        if record.sequence != head.sequence + 1:
            raise Verification(
                f"record {head.sequence + 1} is missing: record {record.sequence} stands there",
                hint="put the journal back from a backup, then: comity journal restore",
            )
        if record.previous != head.hash:
            raise Verification(
                f"record {record.sequence} does not follow record {head.sequence}: "
                "one of them was replaced"
            )
        if record.hash != _hash(record.sequence, record.kind, record.body, record.previous):
            raise Verification(f"record {record.sequence} ({record.kind}) was altered")
        head = head_after(record)
        yield record


def _hash(sequence: int, kind: str, body: bytes, previous: bytes) -> bytes:
    digest = hashlib.sha256(_TAG)
    digest.update(previous)
    digest.update(sequence.to_bytes(8, "big"))
    for part in (kind.encode(), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
