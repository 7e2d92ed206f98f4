"""Custody of a site's journal: its commits, the head kept elsewhere, and the way back.

A chain proves that nothing inside it was changed; it cannot prove that its end is still there. So
the head of each commit is signed and kept outside the journal's file, and every record says which
head was known to be kept before it. Together they name a cut tail, an old journal put back and an
old head put back. Old copies of *both*, of one moment, can only be noticed by the peers that hold a
newer head: `Custody.observe`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from comity.core.chain.canonical import encode
from comity.core.chain.heads import head_message
from comity.core.chain.record import GENESIS, Head, link
from comity.core.privacy.ledger import Closed, LedgerEvent, ledger_record
from comity.errors import ConfigError, JournalBehind, PolicyRefused, Verification
from comity.ids import SiteName
from comity.ports import Clock, Entry, HeadKeeper, Journal, KeyStore, SignedHead
from comity.services.books import LOST, POLICY, RESTORED, SCHEMA_VERSION, Books, record_body

WAY_BACK = "put the newer journal back, or record the loss with: comity journal restore"


@dataclass(frozen=True, slots=True)
class Note:
    """What a person typed: stored beside the chain under the digest that stands in it."""

    digest: str
    salted: bytes


def salted_note(text: str, salt: bytes, max_bytes: int) -> Note:
    """What a person typed, under a salt of its own.

    Raises:
        PolicyRefused: It is too long.
    """
    raw = text.encode()
    if len(raw) > max_bytes:
        raise PolicyRefused(f"a note of {len(raw)} bytes; at most {max_bytes} are kept")
    salted = salt + raw
    return Note(hashlib.sha256(salted).hexdigest(), salted)


class Custody:
    """The one writer of a site's journal.

    Args:
        site: Whose journal it is.
        journal: Where records go.
        heads: Where the newest signed head is kept, outside the journal's file.
        keys: The site's identity key.
        clock: Wall time of the records.
        replay_window: See `Books`.

    Raises:
        Verification: A record or the kept head was altered, or they are another site's.
    """

    def __init__(
        self,
        site: SiteName,
        journal: Journal,
        heads: HeadKeeper,
        keys: KeyStore,
        clock: Clock,
        *,
        replay_window: int,
    ) -> None:
        self._site = site
        self._journal = journal
        self._heads = heads
        self._keys = keys
        self._clock = clock
        self._window = replay_window
        self._stale = False
        self._kept = Head()
        self._behind = ""
        self.books = self._read()
        if self.books.site not in {"", site}:
            raise Verification(f"this is the journal of {self.books.site}, not of {site}")
        self._open()

    @property
    def behind(self) -> str:
        """Why nothing may leave, as a sentence; empty where all is well."""
        return self._behind

    def check_open(self) -> None:
        """Checks that this journal may be written and that anything may leave.

        Raises:
            JournalBehind: It is behind, or beside, a head that this site signed.
        """
        if self._stale:
            self.books = self._read()
            self._stale = False
        if self._behind:
            raise JournalBehind(self._behind, hint=WAY_BACK)

    def head(self) -> SignedHead:
        """The journal's head, signed by the site; it travels with every reply."""
        return self._signed(self.books.head)

    def observe(self, signed: SignedHead) -> None:
        """Takes a head of this site that a peer holds; one above ours closes the site.

        Raises:
            Verification: It is not this site's signature.
            JournalBehind: It is above our journal, or not on our chain. One above is kept, so
                that a restart does not forget it; of a fork the peers remind us.
        """
        self._check_signature(signed)
        problem = self._beside(signed.head)
        if problem:
            self._behind = problem
            if signed.head.sequence >= self._kept.sequence:
                self._heads.keep(signed)
                self._kept = signed.head
            raise JournalBehind(problem, hint=WAY_BACK)

    def commit(
        self,
        events: Sequence[LedgerEvent],
        others: Sequence[tuple[str, Mapping[str, object]]] = (),
        *,
        notes: Sequence[Note] = (),
    ) -> Head:
        """Commits ledger events and other records in one transaction, then keeps the new head.

        Raises:
            UnavailableError: Nothing was committed; or it was, yet the head could not be kept,
                and then the spend counts although nothing leaves.
        """
        self.check_open()
        ledger = self.books.ledger
        for event in events:
            ledger = ledger.after(event)
        return self._append(
            [*((event.kind, ledger_record(event)) for event in events), *others], notes
        )

    def restore(self, known: SignedHead | None = None, note: Note | None = None) -> Head:
        """Records the loss and opens the site again.

        Each lost record's place is taken by a record that says so: sequence numbers never go
        back, and the restored chain is longer than any head known so far. What the lost records
        spent is unknown, and it may be any data set's whole budget, so all budgets of this
        journal count as spent for ever. Only where `known`, a peer's copy, is exactly the head of
        this journal, and no higher head is known, was nothing lost.

        Raises:
            ConfigError: There is nothing to restore.
            Verification: `known` is not this site's signature.
        """
        if not self._behind:
            raise ConfigError("the journal is not behind its head: there is nothing to restore")
        here, highest = self.books.head, self._kept
        if known is not None:
            self._check_signature(known)
            highest = max(highest, known.head)
        whole = known is not None and known.head == here == max(here, highest)
        lost = max(0, highest.sequence - here.sequence)
        fields: dict[str, object] = {
            "lost_from": here.sequence + 1,
            "lost_to": here.sequence + lost,
            "whole": whole,
            "known_sequence": highest.sequence,
            "known_hash": highest.hash.hex(),
            "reason": self._behind,
            "note": note.digest if note else "",
        }
        places: list[tuple[str, Mapping[str, object]]] = [(LOST, {})] * lost
        closing = [] if whole else [(Closed.kind, ledger_record(Closed()))]
        head = self._append([*places, (RESTORED, fields), *closing], [note] if note else [])
        self._behind = ""
        return head

    def _read(self) -> Books:
        return Books.read(self._journal.records(), replay_window=self._window)

    def _open(self) -> None:
        kept = self._heads.load()
        if kept is None:
            if self.books.kept:
                self._behind = (
                    f"the kept head is gone, yet record {self.books.head.sequence} says that head "
                    f"{self.books.kept} was kept"
                )
            return
        try:
            self._check_signature(kept)
        except Verification as error:
            raise Verification(
                f"the kept head was altered: {error.message}",
                hint="put the head's file back from a backup, or remove it: comity journal restore",
            ) from error
        self._kept = kept.head
        self._behind = self._beside(kept.head)
        if not self._behind and kept.head.sequence < self.books.kept:
            self._behind = (
                f"the kept head is an old copy: it is head {kept.head.sequence}, yet head "
                f"{self.books.kept} was kept"
            )

    def _beside(self, head: Head) -> str:
        here = self.books.head
        if head.sequence > here.sequence:
            return (
                f"the journal ends at record {here.sequence}, yet record {head.sequence} was "
                f"signed: {head.sequence - here.sequence} records were cut off"
            )
        if head.sequence < self.books.restored_at or head.hash == self._hash_at(head.sequence):
            return ""
        return f"record {head.sequence} is not the one that was signed: the journal was replaced"

    def _hash_at(self, sequence: int) -> bytes:
        if sequence == 0:
            return GENESIS
        return next(iter(self._journal.records(after=sequence - 1))).hash

    def _append(
        self, records: Sequence[tuple[str, Mapping[str, object]]], notes: Sequence[Note]
    ) -> Head:
        stamp = {
            "schema_version": SCHEMA_VERSION,
            "at_ms": int(self._clock.wall_s() * 1000),
            "kept": self._kept.sequence,
        }
        entries = [Entry(kind, encode({**fields, **stamp})) for kind, fields in records]
        self._stale = True
        head = self._journal.commit(entries, notes=[note.salted for note in notes])
        for entry in entries:
            self.books.take(link(self.books.head, entry.kind, entry.body))
        if self.books.head != head:
            _refuse_other_writer(head)
        self._stale = False
        self._heads.keep(self._signed(head))
        self._kept = head
        return head

    def _signed(self, head: Head) -> SignedHead:
        return SignedHead(self._site, head, self._keys.sign(head_message(self._site, head)))

    def _check_signature(self, signed: SignedHead) -> None:
        if signed.site != self._site:
            raise Verification(f"a head of {signed.site} was given as one of {self._site}")
        message = head_message(signed.site, signed.head)
        self._keys.verify(self._keys.public_key(), message, signed.signature)


def site_of(journal: Journal) -> SiteName | None:
    """Whose journal it is, as its first policy record says, unverified; None where it is empty."""
    for record in journal.records():
        if record.kind == POLICY:
            return SiteName(str(record_body(record).get("site")))
    return None


def _refuse_other_writer(head: Head) -> NoReturn:
    raise Verification(
        f"record {head.sequence} was written by somebody else",
        hint="let one process alone write a journal",
    )
