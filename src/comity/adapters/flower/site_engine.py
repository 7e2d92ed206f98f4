"""Between an app's reply and the wire stands the site's gate, outside the app's process.

A reply falls into parts: each record, or an error. The gate decides on each; what comes back is
built from `Released` values only, and what is withheld is missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from comity.adapters.flower.arrays import Record, check_decodes, checked_array
from comity.adapters.flower.calls import AppError, AppFailure, Outcome
from comity.adapters.flower.crew import NodeConfig
from comity.adapters.flower.private_names import APP_RAISED
from comity.adapters.flower.wire import array_bytes
from comity.core.policy.decide import decide_reply
from comity.core.policy.rule import PROTECTED, PartKind, Rule, SitePolicy, category_of
from comity.core.privacy.event import PrivacyEvent, Spend
from comity.errors import ComityError, DataError, Malformed, RefusedError, UnavailableError
from comity.ids import AppDigest, DatasetName, ReservationId, SiteName
from comity.ports import Exchange
from comity.release import Released, Withheld
from comity.services.gate import Door, Part
from comity.services.protect import only_class_name
from comity.services.sum_site import SummingSite

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
        sums: Its part in secure sums; None takes no part.
    """

    name: SiteName
    door: Door
    policy: SitePolicy | None = None
    dataset: DatasetName = NO_DATASET
    reservation: ReservationId | None = None
    node_config: NodeConfig = field(default_factory=lambda: MappingProxyType({}))
    secret: bytes | None = None
    sums: SummingSite | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What leaves a site in answer to one message.

    Attributes:
        content: The released records, or the error that stands for them.
        withheld: The refusals.
        unsummed: Policies that allow a part only inside a secure sum.
        failure: Why the site gave no usable reply: the app's own class name only where the policy
            lets error texts out, else one of a fixed set; empty when it gave one.
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
        return checked_array(self.record[key]).copy(order="K")

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
        # A gate that refuses, a reply that does not parse: this site drops out.
        return refused_by(site, exchange, error)


def refused_by(site: SimulatedSite, exchange: Exchange, error: ComityError) -> Outgoing:
    """What leaves where a site's gate refuses: no more than its rule for errors lets out."""
    _tell_owner(site.name, error)
    name, text = type(error).__name__, f"{type(error).__name__}: {error.public}"
    if site.policy is not None:
        decision = decide_reply(site.policy.train, exchange.message_type, PartKind.ERROR)
        text = text if decision.allowed else decision.reason
    own = error if isinstance(error, RefusedError) else None
    return Outgoing(Error(APP_RAISED, text), failure=name, refused=own)


def _tell_owner(site: SiteName, error: ComityError) -> None:
    """Says at the site why nothing left: the asker is not told."""
    line = f"{site} gave no reply: {error.message}" + (f" ({error.hint})" if error.hint else "")
    shown = "".join(letter if letter.isprintable() else "?" for letter in line)
    sys.stderr.write(f"{shown}\n")
    sys.stderr.flush()


def _send_error(
    site: SimulatedSite, exchange: Exchange, outcome: AppError | AppFailure
) -> Outgoing:
    # The app's error code is not passed on: the app chose it, and a number can carry a record.
    if isinstance(outcome, AppFailure):
        text = only_class_name(outcome.error)
        told, kept = text, text if outcome.crashed else "AppRaised"
    else:
        text, told, kept = outcome.reason, "AppError", "AppError"
    (released,) = site.door.release(exchange, [Part(PartKind.ERROR, "error", text)])
    if isinstance(released, Withheld):
        return Outgoing(Error(APP_RAISED, released.reason), (released,), failure=kept)
    return Outgoing(Error(APP_RAISED, released.value), failure=told)


def _send_records(
    site: SimulatedSite, exchange: Exchange, request: Message, content: RecordDict, app: AppDigest
) -> Outgoing:
    if site.policy is None:
        content.pop(SPENDS_RECORD, None)
        parts = [_open_part(name, record) for name, record in content.items()]
    else:
        parts = policed_parts(site, request, content, app)
    results = site.door.release(exchange, parts)
    return _rebuilt(site.policy, exchange, parts, results)


def _open_part(name: str, record: Record) -> Part:
    if not isinstance(record, ArrayRecord):
        return Part(_kind_of(record), name, record)
    for array in record.values():
        check_decodes(array)
    return Part(PartKind.ARRAYS, name, DecodedArrays(record))


def policed_parts(
    site: SimulatedSite, request: Message, content: RecordDict, app: AppDigest
) -> list[Part]:
    """The parts for the gate; what is wrong with a reply goes there as a fault, to be recorded.

    Decoded into memory that the app's process cannot reach.
    """
    claimed, policy = content.pop(SPENDS_RECORD, None), site.policy or SitePolicy()
    spends: tuple[Spend, ...] = ()
    try:
        if app in policy.train.trusted_trainers and isinstance(claimed, ConfigRecord):
            spends = read_spends(claimed)
        _check_whole(content, spends, policy.train.max_reply_bytes)
    except Malformed as error:
        fault = Part(
            PartKind.ERROR, "reply", None, spends, site.reservation, trainer=app, fault=error
        )
        return [fault]
    return list(_guarded_parts(site, request, content, _Claim(spends, app)))


def _check_whole(content: RecordDict, spends: tuple[Spend, ...], limit: int) -> None:
    size = array_bytes(content)
    if size > limit:
        raise Malformed(f"a reply of {size} bytes exceeds max_reply_bytes = {limit}")
    if spends and not any(isinstance(record, ArrayRecord) for record in content.values()):
        raise Malformed("a reply states what its arrays cost, and holds none")


def _guarded_parts(
    site: SimulatedSite, request: Message, content: RecordDict, claim: _Claim
) -> Iterator[Part]:
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            part = Part(
                PartKind.ARRAYS, name, {}, claim.spends, site.reservation, trainer=claim.app
            )
            try:
                # Decoded once, into memory that the app's process cannot reach: what the gate
                # checks is what leaves.
                start = _reference(request, record)
                yield replace(part, value=dict(DecodedArrays(record)), reference=start)
            except (Malformed, DataError) as error:
                yield replace(part, fault=error)
            continue
        lists = {key: value for key, value in record.items() if isinstance(value, list)}
        scalars = {key: value for key, value in record.items() if key not in lists}
        if isinstance(record, ConfigRecord):
            yield Part(PartKind.CONFIG, name, {**scalars, **lists})
            continue
        yield Part(PartKind.METRICS, name, scalars, trainer=claim.app)
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
        if part.fault is not None and not isinstance(result, Withheld):
            raise part.fault
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
    """What the site was sent under the same array names: the point that its update starts from.

    Raises:
        DataError: Nothing was, though an answer to train or evaluate must return what came in:
            names and shapes of the app's own choice could carry records.
    """
    for sent in request.content.values():
        if isinstance(sent, ArrayRecord) and sent.keys() == record.keys():
            return DecodedArrays(sent)
    if category_of(request.metadata.message_type) not in PROTECTED:
        return None
    raise DataError(
        "the reply holds arrays under names that the site was not sent",
        hint="return the arrays that came in, under their names",
    )


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
