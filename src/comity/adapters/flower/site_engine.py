"""Between an app's reply and the wire stands the site's gate, outside the app's process.

A reply falls into parts: each record, or an error. The gate decides on each; what comes back is
built from `Released` values only, and what is withheld is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from comity.adapters.flower.arrays import Record
from comity.adapters.flower.calls import AppError, AppFailure, Outcome
from comity.adapters.flower.crew import NodeConfig
from comity.adapters.flower.private_names import APP_CRASHED, APP_RAISED
from comity.adapters.flower.wire import array_bytes
from comity.core.policy.rule import PartKind, Rule, SitePolicy
from comity.core.privacy.event import PrivacyEvent, Spend
from comity.errors import ComityError, Malformed, RefusedError, UnavailableError
from comity.ids import AppDigest, DatasetName, ReservationId, SiteName
from comity.ports import Exchange
from comity.release import Released, Withheld
from comity.services.gate import Door, Part

NO_DATASET: Final = DatasetName("")
SPENDS_RECORD: Final = "comity.spends"
"""The configuration record by which a trusted trainer says what its reply cost; it never leaves."""


@dataclass(frozen=True, slots=True)
class SimulatedSite:
    """One site of a local run.

    Attributes:
        name: Its name.
        door: What its replies go through.
        policy: Its rules; None for a caller's own simulated site, from which everything passes.
        dataset: The data set that the app was approved for; empty when the site names none.
        reservation: The privacy plan that the run reserved there.
        node_config: Added to ``partition-id`` and ``num-partitions``, such as ``data-path``.
        secret: What its seeds come from; None derives it from the run's seed.
    """

    name: SiteName
    door: Door
    policy: SitePolicy | None = None
    dataset: DatasetName = NO_DATASET
    reservation: ReservationId | None = None
    node_config: NodeConfig = field(default_factory=lambda: MappingProxyType({}))
    secret: bytes | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What leaves a site in answer to one message.

    Attributes:
        content: The released records, or the error that stands for them.
        withheld: The refusals.
        unsummed: Policies that allow a part only inside a secure sum.
        failure: An error's class name when the site gave no usable reply, else empty.
        size_bytes: Array bytes that left.
        refused: The refusal of the site's own gate, for the operator of the site only.
    """

    content: RecordDict | Error
    withheld: tuple[Withheld, ...] = ()
    unsummed: tuple[str, ...] = ()
    failure: str = ""
    size_bytes: int = 0
    refused: RefusedError | None = None


class DecodedArrays(Mapping[str, NDArray[Any]]):
    """An `ArrayRecord` as ndarrays by name; decoded when read, each time anew."""

    __slots__ = ("record",)

    def __init__(self, record: ArrayRecord) -> None:
        self.record = record

    def __getitem__(self, key: str) -> NDArray[Any]:
        try:
            return self.record[key].numpy()
        except (TypeError, ValueError) as error:
            raise Malformed(f"array {key[:80]!r} does not decode: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.record)

    def __len__(self) -> int:
        return len(self.record)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a reply says it cost, and the app that says so."""

    spends: tuple[Spend, ...]
    app: AppDigest


class MetricLists(dict[str, Any]):
    """The list-valued entries of a `MetricRecord`, ruled as configuration."""


def send_out(
    site: SimulatedSite, exchange: Exchange, request: Message, outcome: Outcome, app: AppDigest
) -> Outgoing:
    """Takes an app's outcome through the site's gate.

    Args:
        site: The site.
        exchange: What was asked, by whom.
        request: The message that the outcome answers; its arrays are the update's reference.
        outcome: What the app gave.
        app: Digest of the app, which decides whether its privacy claim is credited.

    Raises:
        UnavailableError: The site's journal cannot be written: its disk is full or read-only.
    """
    try:
        if isinstance(outcome, RecordDict):
            return _send_records(site, exchange, request, outcome, app)
        return _send_error(site, exchange, outcome)
    except UnavailableError:
        raise  # the caller's own disk: going on without the site would only hide it from them
    except ComityError as error:
        # A gate that refuses, a reply that does not parse: this site drops out, and only the
        # error's class and public text may leave.
        name = type(error).__name__
        refused = error if isinstance(error, RefusedError) else None
        told = Error(APP_RAISED, f"{name}: {error.public}")
        return Outgoing(told, failure=name, refused=refused)


def _send_error(
    site: SimulatedSite, exchange: Exchange, outcome: AppError | AppFailure
) -> Outgoing:
    if isinstance(outcome, AppFailure):
        code, text = (APP_CRASHED if outcome.crashed else APP_RAISED), outcome.error
    else:
        code, text = outcome.code, outcome.reason
    (released,) = site.door.release(exchange, [Part(PartKind.ERROR, "error", text)])
    name = outcome.error if isinstance(outcome, AppFailure) else "AppError"
    if isinstance(released, Withheld):
        return Outgoing(Error(code, released.reason), (released,), failure=name)
    return Outgoing(Error(code, released.value), failure=name)


def _send_records(
    site: SimulatedSite, exchange: Exchange, request: Message, content: RecordDict, app: AppDigest
) -> Outgoing:
    claimed = content.pop(SPENDS_RECORD, None)
    if site.policy is None:
        parts = [_open_part(name, record) for name, record in content.items()]
    else:
        size, limit = array_bytes(content), site.policy.train.max_reply_bytes
        if size > limit:
            raise Malformed(f"a reply of {size} bytes exceeds max_reply_bytes = {limit}")
        trusted = app in site.policy.train.trusted_trainers
        spends = read_spends(claimed) if trusted and isinstance(claimed, ConfigRecord) else ()
        claim = _Claim(spends, app)
        parts = list(_guarded_parts(site, request, content, claim))
    results = site.door.release(exchange, parts) if parts else ()
    return _rebuilt(site.policy, exchange, parts, results)


def _open_part(name: str, record: Record) -> Part:
    if isinstance(record, ArrayRecord):
        return Part(PartKind.ARRAYS, name, DecodedArrays(record))
    return Part(_kind_of(record), name, record)


def _guarded_parts(
    site: SimulatedSite, request: Message, content: RecordDict, claim: _Claim
) -> Iterator[Part]:
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            # Decoded once, into memory that the app's process cannot reach: what the gate checks
            # is what leaves.
            arrays = dict(DecodedArrays(record))
            start = _reference(request, record)
            yield Part(
                PartKind.ARRAYS, name, arrays, claim.spends, site.reservation, start, claim.app
            )
            continue
        lists = {key: value for key, value in record.items() if isinstance(value, list)}
        scalars = {key: value for key, value in record.items() if key not in lists}
        if isinstance(record, ConfigRecord):
            yield Part(PartKind.CONFIG, name, {**scalars, **lists})
            continue
        yield Part(PartKind.METRICS, name, scalars)
        if lists:  # a list can hold a value for each record: it is no metric
            yield Part(PartKind.CONFIG, name, MetricLists(lists))


def _rebuilt(
    policy: SitePolicy | None,
    exchange: Exchange,
    parts: Sequence[Part],
    results: Sequence[Released[Any] | Withheld],
) -> Outgoing:
    left = RecordDict()
    withheld: list[Withheld] = []
    unsummed: list[str] = []
    for part, result in zip(parts, results, strict=True):
        if isinstance(result, Withheld):
            withheld.append(result)
            if policy and policy.train.rule_for(exchange.message_type, part.kind) is Rule.SUM:
                unsummed.append(f"{exchange.message_type}.{part.kind} = {Rule.SUM}")
        elif isinstance(result.value, MetricLists) and part.name in left:
            left[part.name].update(result.value)
        else:
            left[part.name] = _as_record(part.kind, result.value)
    return Outgoing(left, tuple(withheld), tuple(unsummed), size_bytes=array_bytes(left))


def _as_record(kind: PartKind, value: Any) -> Record:  # noqa: ANN401 - what a gate released
    if isinstance(value, DecodedArrays):
        return value.record
    if isinstance(value, MetricRecord | ConfigRecord):
        return value
    if kind is PartKind.ARRAYS:
        record = ArrayRecord()
        for key, array in value.items():
            record[key] = Array(np.asarray(array))
        return record
    is_metrics = kind is PartKind.METRICS or isinstance(value, MetricLists)
    return (MetricRecord if is_metrics else ConfigRecord)(dict(value))


def _kind_of(record: Record) -> PartKind:
    return PartKind.METRICS if isinstance(record, MetricRecord) else PartKind.CONFIG


def _reference(request: Message, record: ArrayRecord) -> DecodedArrays | None:
    """What the site was sent under the same array names: the point that its update starts from."""
    for sent in request.content.values():
        if isinstance(sent, ArrayRecord) and sent.keys() == record.keys():
            return DecodedArrays(sent)
    return None


def spends_record(spends: tuple[Spend, ...]) -> ConfigRecord:
    """How a trusted trainer states what its reply cost."""
    rows = [{"event": spend.event.as_record(), "count": spend.count} for spend in spends]
    return ConfigRecord({"spends": json.dumps(rows)})


def read_spends(record: ConfigRecord) -> tuple[Spend, ...]:
    """Reads what `spends_record` wrote.

    Raises:
        Malformed: It does not parse.
    """
    try:
        rows = json.loads(str(record["spends"]))
        return tuple(Spend(PrivacyEvent.from_record(r["event"]), int(r["count"])) for r in rows)
    except (ValueError, KeyError, TypeError, RecursionError, ComityError) as error:
        raise Malformed(f"the privacy claim of a reply does not parse: {error}") from error
