"""The audit chain for people: what left a site, to whom and for what, as plain sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from comity.core.answer.plain import plain
from comity.core.chain.record import Record, verified
from comity.core.policy.decide import COLLECTION_KINDS
from comity.core.policy.rule import PartKind
from comity.core.privacy.ledger import Bound, Committed, Freed, Opened, Reserved
from comity.services.books import CLOCK, EXCHANGE, LOST, POLICY, RESTORED, parts_of, record_body
from comity.services.parts import NO_CLAIM

_UNITS: Final = ("bytes", "kB", "MB", "GB")
_STEP: Final = 1000
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")


@dataclass(frozen=True, slots=True)
class Line:
    """One record, told: its position, its kind, when, and a sentence about it."""

    sequence: int
    kind: str
    at: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Left:
    """What left a site for one purpose, as its audit chain has it.

    Attributes:
        parts: Released parts.
        size_bytes: Their bytes.
        unprotected: Of these, parts that are neither arrays under a privacy claim, nor scalar
            metrics of a trainer that the site trusts by its digest, nor messages of a secure sum:
            the only ones in which a record could have left as it is.
    """

    parts: int
    size_bytes: int
    unprotected: int


def left_for_run(records: Iterable[Record], run: str) -> Left:
    """Counts what left for `run`, after checking each link of the chain.

    Raises:
        Verification: A record was altered, removed or reordered.
    """
    return _counted(records, lambda body, _: bool(body["run"] == run))


def left_for_answers(records: Iterable[Record]) -> Left:
    """Counts what left of collections in answer to questions, after checking each link.

    Raises:
        Verification: A record was altered, removed or reordered.
    """
    return _counted(records, lambda _, part: part["kind"] in COLLECTION_KINDS)


def _counted(
    records: Iterable[Record], wanted: Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
) -> Left:
    parts = size = unprotected = 0
    for record in verified(records):
        body: Mapping[str, Any] = record_body(record)
        if record.kind != EXCHANGE:
            continue
        for part in parts_of(body):
            if part["outcome"] != "released" or not wanted(body, part):
                continue
            parts += 1
            size += int(str(part["size_bytes"]))
            # An app of somebody else's can put a record into its metrics, a few figures a round.
            figures = part["kind"] == PartKind.METRICS and part.get("trusted") is True
            masked = part["kind"] == PartKind.PROTOCOL
            unprotected += not (figures or masked) and part["claim"] == NO_CLAIM
    return Left(parts, size, unprotected)


def describe(record: Record, site: str) -> Line:
    """Tells one record in a sentence; it holds ids and figures, never content.

    Raises:
        Verification: The record does not parse.
        VersionMismatch: A newer release wrote it.
    """
    body: Mapping[str, Any] = record_body(record)
    at = _when(body["at_ms"])
    sentence = plain(f"On {at} {site} {_told(record.kind, body)}")
    return Line(record.sequence, record.kind, at, sentence)


def _told(kind: str, body: Mapping[str, Any]) -> str:
    match kind:
        case _ if kind == EXCHANGE:
            return _exchange(body)
        case _ if kind == POLICY:
            off = ", ".join(body["protections_off"])
            return f"took up policy {body['digest'][:12]}, " + (
                f"with protections off: {off}." if off else "with every protection on."
            )
        case _ if kind == RESTORED:
            return _restored(body)
        case _ if kind == CLOCK:
            return f"counts its days from day {body['day']} on, by its owner's word."
        case _ if kind == LOST:
            return "lost the record that stood here."
    return _ledger(kind, body)


def _exchange(body: Mapping[str, Any]) -> str:
    parts: list[dict[str, Any]] = parts_of(body)
    left = [part for part in parts if part["outcome"] == "released"]
    summed = [part for part in parts if part["outcome"] == "summed"]
    stayed = [part for part in parts if part["outcome"] == "withheld"]
    gave = ", ".join(f"{part['kind']} {part['name']!r} ({_worth(part)})" for part in left)
    if summed:
        inside = ", ".join(
            f"{part['kind']} {part['name']!r} ({_claim(part['claim'])})" for part in summed
        )
        gave += f", masked, with {inside} inside the sum"
    kept = ", ".join(f"{part['kind']} {part['name']!r} ({part['policy']})" for part in stayed)
    sentence = f"gave {_named(body['asker'])} {gave or 'nothing'}{_purpose(body)}"
    return sentence + (f"; withheld {kept}." if kept else ".")


def _named(asker: str) -> str:
    """An asker as it is; quoted where it is not one word, so that it adds no words of ours."""
    return asker if _WORD.fullmatch(asker) else repr(plain(asker))


def _purpose(body: Mapping[str, Any]) -> str:
    if body["run"]:
        return f" for run {body['run']}, round {body['round']} ({body['message_type']})"
    return f" in a {body['message_type']} exchange"


def _restored(body: Mapping[str, Any]) -> str:
    if body["whole"]:
        return f"was opened again: a peer's copy shows that nothing was lost ({body['reason']})."
    lost = body["lost_to"] - body["lost_from"] + 1
    count = f"{lost} records were" if lost else "an unknown number of records was"
    return f"was opened again after {count} lost ({body['reason']}); all budgets count as spent."


def _ledger(kind: str, body: Mapping[str, Any]) -> str:
    match kind:
        case Bound.kind:
            return f"bound data set {body['dataset']} to source {body['source'][:19]}."
        case Reserved.kind:
            return (
                f"reserved {_plan(body)} on data set {body['dataset']} as {body['reservation']} "
                f"(by {body['basis']}, {body['accountant']})."
            )
        case Committed.kind:
            return f"spent {_plan(body)} of reservation {body['reservation']}."
        case Opened.kind:
            return f"let the first output of data set {body['dataset']} leave."
        case Freed.kind:
            return f"gave reservation {body['reservation']} back, unused."
    return "closed its ledger: every budget counts as spent."


def _plan(body: Mapping[str, Any]) -> str:
    return " and ".join(
        f"{item['count']} x {item['mechanism'].replace('_', ' ')} {item['parameter']}"
        + (f" ({item['sampling']} {item['sampling_rate']})" if item["sampling"] != "none" else "")
        for item in body["plan"]
    )


def _worth(part: Mapping[str, Any]) -> str:
    size = _size(part["size_bytes"])
    return size if part["kind"] == PartKind.PROTOCOL else f"{size}, {_claim(part['claim'])}"


def _claim(unit: str) -> str:
    return "no record-level claim" if unit == NO_CLAIM else f"private by {unit}"


def _size(size_bytes: int) -> str:
    size, unit = float(size_bytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def _when(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, tz=UTC)
    return f"{moment.day} {moment:%B %Y %H:%M} UTC"
