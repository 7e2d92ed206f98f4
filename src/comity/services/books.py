"""A site's books: what its journal's records come to, kept up to date as records are added.

Folded from verified records at the start and never stored, so a restart loses nothing: budgets,
daily counts, which exchanges were answered, and which head was last known to be kept elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from comity.core.chain.canonical import decode
from comity.core.chain.record import Head, Record, head_after, verified
from comity.core.privacy.ledger import LedgerEvent, LedgerState, ledger_event
from comity.errors import (
    ConfigError,
    Malformed,
    UnavailableError,
    Verification,
    VersionMismatch,
)
from comity.ids import ExchangeId

SCHEMA_VERSION: Final = 1
EXCHANGE: Final = "exchange"
POLICY: Final = "policy"
LOST: Final = "journal.lost"
RESTORED: Final = "journal.restored"
CLOCK: Final = "journal.clock"
MAX_DAYS_AHEAD: Final = 366
"""How far a clock may run ahead of the last recorded day without its owner's word."""
_KINDS: Final = frozenset({EXCHANGE, POLICY, LOST, RESTORED, CLOCK})


@dataclass(frozen=True, slots=True)
class Answered:
    """An exchange that was answered: under which request, and which record stands for it."""

    request: str
    sequence: int


@dataclass(frozen=True, slots=True)
class SumMark:
    """How far a site came in the secure sums of one run, by its journal.

    Attributes:
        epoch: The last epoch in which it announced keys or uploaded.
        round_number: The last round that it uploaded for, or said that it does not fit.
        attempt: The last attempt of it.
        revealed: The last round whose reveal it answered.
        sums: Rounds that it took part in.
    """

    epoch: int = 0
    round_number: int = 0
    attempt: int = 0
    revealed: int = 0
    sums: int = 0

    def after(self, place: Mapping[str, object]) -> SumMark:
        """The mark after one more message, whose place a record tells."""
        epoch, number = _number(place, "epoch"), _number(place, "round")
        stage = _text(place, "stage")
        if stage == "reveal":
            return replace(self, epoch=epoch, revealed=number)
        if stage not in {"upload", "repeat", "unfit"}:
            return replace(self, epoch=epoch)
        fresh = number > self.round_number
        return replace(
            self,
            epoch=epoch,
            round_number=number,
            attempt=_number(place, "attempt"),
            sums=self.sums + fresh,
        )


class Books:
    """The state of one site, folded from its journal.

    Args:
        replay_window: How many of the last exchanges are remembered; an older one that comes
            again is a new exchange and costs again.
    """

    def __init__(self, *, replay_window: int) -> None:
        self.head = Head()
        self.ledger = LedgerState()
        self.site = ""
        self.policy = ""
        self.day = 0
        self.kept = 0
        self.restored_at = 0
        self._window = replay_window
        self._answered: OrderedDict[ExchangeId, Answered] = OrderedDict()
        self._passages: dict[tuple[str, str], int] = {}
        self._sums: OrderedDict[str, SumMark] = OrderedDict()
        self._sums_today = 0

    @classmethod
    def read(cls, records: Iterable[Record], *, replay_window: int) -> Books:
        """Folds a whole chain, each record verified first.

        Raises:
            Verification: A record was altered, removed or reordered, or its body does not parse.
            VersionMismatch: A newer release wrote it.
        """
        books = cls(replay_window=replay_window)
        for record in verified(records):
            books.take(record)
        return books

    def take(self, record: Record) -> None:
        """Adds one record, which must follow the last.

        Raises:
            Verification: Its body does not parse.
            VersionMismatch: A newer release wrote it.
        """
        body = record_body(record)
        event = _event(record, body)
        if event is not None:
            self.ledger = self.ledger.after(event)
        elif record.kind == EXCHANGE:
            self._take_exchange(record.sequence, body)
        elif record.kind == POLICY:
            self.policy, self.site = _text(body, "digest"), _text(body, "site")
        elif record.kind == RESTORED:
            self.restored_at = record.sequence
        elif record.kind == CLOCK:
            # What was counted stays counted: setting a clock back opens no new day.
            self.day = _number(body, "day")
        self.kept = max(self.kept, _number(body, "kept"))
        self.head = head_after(record)

    def answered(self, exchange: ExchangeId) -> Answered | None:
        """What is remembered of an exchange; None where it is new or long ago."""
        return self._answered.get(exchange)

    def passages(self, collection: str, asker: str, day: int) -> int:
        """Passages of a collection that one asker got on `day`, which is `self.day` or later."""
        return self._passages.get((collection, asker), 0) if day == self.day else 0

    def sum_mark(self, run: str) -> SumMark:
        """How far this site came in the secure sums of `run`."""
        return self._sums.get(run, SumMark())

    def sums(self, day: int) -> int:
        """Secure sums that this site took part in on `day`, which is `self.day` or later."""
        return self._sums_today if day == self.day else 0

    def day_at(self, wall_s: float) -> int:
        """The day that counts now: days since 1970-01-01 UTC, never before the last one recorded.

        A clock that is set back opens no new day. One that jumps far ahead would close every day
        until then, so it needs its owner's word.

        Raises:
            UnavailableError: The clock is more than `MAX_DAYS_AHEAD` days ahead of the last day.
        """
        today = int(wall_s // 86_400)
        if self.day and today > self.day + MAX_DAYS_AHEAD:
            raise UnavailableError(
                f"the clock is {today - self.day} days ahead of the last release on record",
                hint="set the clock right; if it is right, record that with: comity journal clock",
            )
        return max(self.day, today)

    def _take_exchange(self, sequence: int, body: Mapping[str, object]) -> None:
        exchange = ExchangeId(_text(body, "exchange"))
        self._answered[exchange] = Answered(_text(body, "request"), sequence)
        if len(self._answered) > self._window:
            self._answered.popitem(last=False)
        day = _number(body, "day")
        if day > self.day:
            self.day = day
            self._passages.clear()
            self._sums_today = 0
        for part in parts_of(body):
            count = _number(part, "passages")
            if count:
                key = (_text(part, "collection"), _text(body, "asker"))
                self._passages[key] = self._passages.get(key, 0) + count
            place = part.get("sum")
            if isinstance(place, dict):
                self._take_sum(place)

    def _take_sum(self, place: Mapping[str, object]) -> None:
        run = _text(place, "run")
        before = self.sum_mark(run)
        after = self._sums[run] = before.after(place)
        self._sums.move_to_end(run)
        self._sums_today += after.sums - before.sums
        if len(self._sums) > self._window:
            self._sums.popitem(last=False)


def record_body(record: Record) -> dict[str, object]:
    """The body of a record as fields.

    Raises:
        Verification: It is not canonical JSON.
        VersionMismatch: It is of a schema version or a kind that this release cannot read.
    """
    try:
        body = decode(record.body)
    except Malformed as error:
        raise Verification(f"record {record.sequence} ({record.kind}): {error.message}") from error
    known = record.kind in _KINDS or record.kind.startswith("ledger.")
    if body.get("schema_version") != SCHEMA_VERSION or not known:
        raise VersionMismatch(
            f"record {record.sequence} ({record.kind}) is of schema version "
            f"{body.get('schema_version')!r}",
            hint="update comity: a newer release wrote this journal",
        )
    return body


def parts_of(body: Mapping[str, object]) -> list[dict[str, object]]:
    """The parts of an exchange's record.

    Raises:
        Verification: They do not parse.
    """
    parts = body.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise Verification("parts in an exchange's record do not parse")
    return parts


def _event(record: Record, body: Mapping[str, object]) -> LedgerEvent | None:
    try:
        return ledger_event(record.kind, body)
    except ConfigError as error:
        raise Verification(f"record {record.sequence} ({record.kind}): {error.message}") from error


def _text(body: Mapping[str, object], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise Verification(f"{name} is missing in a record, or is no text")
    return value


def _number(body: Mapping[str, object], name: str) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Verification(f"{name} is missing in a record, or is no whole number")
    return value
