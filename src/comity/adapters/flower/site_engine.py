"""Between an app's reply and the wire stands the site's gate, outside the app's process.

A reply falls into parts: each record, or an error. The gate decides on each; what comes back is
built from `Released` values only, and what is withheld is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from comity.adapters.flower.arrays import BufferArray, Record
from comity.adapters.flower.calls import AppError, AppFailure, Outcome
from comity.adapters.flower.crew import NodeConfig
from comity.adapters.flower.private_names import APP_CRASHED, APP_RAISED
from comity.adapters.flower.wire import array_bytes
from comity.core.policy.rule import PartKind, Rule, SitePolicy
from comity.core.privacy.event import PrivacyEvent, Spend
from comity.errors import ComityError, Malformed
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
    """

    content: RecordDict | Error
    withheld: tuple[Withheld, ...] = ()
    unsummed: tuple[str, ...] = ()
    failure: str = ""
    size_bytes: int = 0


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
    """
    try:
        if isinstance(outcome, RecordDict):
            return _send_records(site, exchange, request, outcome, app)
        return _send_error(site, exchange, outcome)
    except ComityError as error:
        # A gate that refuses, a journal that cannot write, a reply that does not parse: this site
        # drops out, and only the error's class and public text may leave.
        name = type(error).__name__
        return Outgoing(Error(APP_RAISED, f"{name}: {error.public}"), failure=name)


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
    spends: tuple[Spend, ...] = ()
    if site.policy is not None:
        limit, size = site.policy.train.max_reply_bytes, array_bytes(content)
        if size > limit:
            raise Malformed(f"a reply of {size} bytes is larger than max_reply_bytes = {limit}")
        _detach(content)
        claimed = content.pop(SPENDS_RECORD, None)
        if isinstance(claimed, ConfigRecord) and app in site.policy.train.trusted_trainers:
            spends = read_spends(claimed)
    parts = [_part(site, name, record, request, spends) for name, record in content.items()]
    results = site.door.release(exchange, parts) if parts else ()
    return _rebuilt(site.policy, exchange, content, parts, results)


def _part(
    site: SimulatedSite, name: str, record: Record, request: Message, spends: tuple[Spend, ...]
) -> Part:
    if isinstance(record, ArrayRecord):
        reference = None if site.policy is None else _reference(request, record)
        decoded = DecodedArrays(record)
        return Part(PartKind.ARRAYS, name, decoded, spends, site.reservation, reference)
    kind = PartKind.METRICS if isinstance(record, MetricRecord) else PartKind.CONFIG
    return Part(kind, name, record)


def _rebuilt(
    policy: SitePolicy | None,
    exchange: Exchange,
    content: RecordDict,
    parts: list[Part],
    results: tuple[Released[Any] | Withheld, ...],
) -> Outgoing:
    left = RecordDict()
    withheld: list[Withheld] = []
    unsummed: list[str] = []
    for part, result in zip(parts, results, strict=True):
        if isinstance(result, Withheld):
            withheld.append(result)
            if policy and policy.train.rule_for(exchange.message_type, part.kind) is Rule.SUM:
                unsummed.append(f"{exchange.message_type}.{part.kind} = sum")
        elif part.kind is PartKind.ARRAYS:
            left[part.name] = _as_record(result.value)
        elif result.value is content[part.name]:
            left[part.name] = result.value
        else:
            kind = MetricRecord if part.kind is PartKind.METRICS else ConfigRecord
            left[part.name] = kind(dict(result.value))
    return Outgoing(left, tuple(withheld), tuple(unsummed), size_bytes=array_bytes(left))


def _as_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    if isinstance(arrays, DecodedArrays):
        return arrays.record
    record = ArrayRecord()
    for key, array in arrays.items():
        record[key] = Array(np.asarray(array))
    return record


def _reference(request: Message, record: ArrayRecord) -> DecodedArrays | None:
    """What the site was sent under the same array names: the point that its update starts from."""
    for sent in request.content.values():
        if isinstance(sent, ArrayRecord) and sent.keys() == record.keys():
            return DecodedArrays(sent)
    return None


def _detach(content: RecordDict) -> None:
    """Copies array bytes out of memory that the app's process can still write."""
    for record in content.values():
        if isinstance(record, ArrayRecord):
            for array in record.values():
                if isinstance(array, BufferArray):
                    array.data  # noqa: B018 - reading it copies


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
