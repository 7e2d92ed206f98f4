"""One round of secure sums on the state machines, and one of plain averaging: what each costs."""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from numpy.typing import NDArray

from comity.adapters.pki.keys import Identity, verify_signature
from comity.core.policy.rule import SumPolicy
from comity.core.secagg import coordinator as sums
from comity.core.secagg.codec import encode
from comity.core.secagg.mask import RingVector, apply_streams
from comity.core.secagg.messages import AnnounceRequest, Invitation, RoundSpec
from comity.core.secagg.quantize import exponents, mean_arrays
from comity.core.secagg.ring import limit
from comity.core.secagg.site import step
from comity.core.secagg.site_keys import ANNOUNCE_RANDOM_BYTES, binding_of
from comity.core.secagg.site_state import Member, SiteState
from comity.core.secagg.site_upload import (
    UPLOAD_RANDOM_BYTES,
    Contribution,
    MaskedUpload,
    received_digest,
)
from comity.core.secagg.sum_state import SumState, Void
from comity.core.secagg.terms import colluders, honest, least_threshold
from comity.core.secagg.unmask import finished, unmasking

HEADROOM: Final = {16: 2.0, 32: 16.0}
LEADER: Final = "coordinator"


@dataclass(frozen=True, slots=True)
class Cell:
    """One size of work: sites, numbers, sites that drop out before their upload."""

    sites: int
    size: int
    dropped: int

    def __str__(self) -> str:
        return f"{self.sites} sites x {self.size:.0e}, {self.dropped} dropped"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one round cost: CPU seconds, bytes of an upload, relative error of the mean."""

    site_s: float
    coordinator_s: float
    size_bytes: int
    error: float | None


class Clock:
    """CPU seconds of this process, added up by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def run(self, name: str, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever `work` gives
        """Runs `work` on the account of `name`."""
        began = time.process_time()
        result = work()
        self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - began
        return result


@dataclass(slots=True)
class Federation:
    """Sites and a coordinator of ours, linked, with what each of them spent."""

    cell: Cell
    bits: int
    clock: Clock
    leader: Identity
    members: dict[str, Member]
    states: dict[str, SiteState]
    model: dict[str, Any]
    binding: bytes = b""

    @classmethod
    def linked(cls, cell: Cell, bits: int) -> Federation:
        """Makes keys and links every site; that is counted by itself, once a run."""
        names = tuple(f"site-{number:03}" for number in range(cell.sites))
        identities = {name: Identity.from_seed(os.urandom(32)) for name in names}
        leader = Identity.from_seed(os.urandom(32))
        roster = {name: identity.public_key() for name, identity in identities.items()}
        members = {
            name: Member(
                "bench",
                name,
                1,
                roster,
                leader.public_key(),
                SumPolicy(),
                identity.sign,
                verify_signature,
            )
            for name, identity in identities.items()
        }
        states = dict.fromkeys(names, SiteState(run="run"))
        model = {"w": np.random.default_rng(7).normal(0, 0.1, cell.size).astype(np.float32)}
        made = cls(cell, bits, Clock(), leader, members, states, model)
        made._link()
        return made

    def _link(self) -> None:
        asked = AnnounceRequest("bench", "run", 1, 1, 1)
        bodies = tuple(
            encode(self.step(f"keys {name}", name, asked, ANNOUNCE_RANDOM_BYTES))
            for name in self.members
        )
        self.binding = binding_of(bodies)
        invitation = Invitation(encode(self.spec(1, ())), bodies)
        for name in self.members:
            self.step(f"keys {name}", name, invitation, 0)

    def step(self, account: str, name: str, message: Any, random_bytes: int) -> Any:  # noqa: ANN401 - any message, any answer
        """One message to a site, on somebody's account."""
        state, random = self.states[name], os.urandom(random_bytes)
        self.states[name], answer = self.clock.run(
            account, lambda: step(self.members[name], state, message, random)
        )
        return answer

    def spec(self, number: int, tensors: tuple[tuple[str, int, int], ...]) -> RoundSpec:
        """The plan of a round."""
        count, terms, names = self.cell.sites, SumPolicy(), tuple(self.members)
        least = least_threshold(count, colluders(terms, count), honest(terms, count))
        return RoundSpec(
            federation="bench",
            run="run",
            epoch=1,
            round_number=number,
            attempt=1,
            message_type="train",
            cohort=names,
            threshold=least,
            ring_bits=self.bits,
            tensors=tensors,
            metric_slots=4,
            weight_key="num-examples",
            max_weight=512,
        )

    def upload(self, name: str, spec: RoundSpec, update: dict[str, Any], count: int) -> Any:  # noqa: ANN401 - a MaskedUpload
        """A site's whole work of exchange 1."""
        self.step(name, name, Invitation(encode(spec)), 0)
        received = self.clock.run(name, lambda: received_digest(self.model))
        names = ("arrays", "metrics", "loss")
        given = Contribution(update, self.model, float(count), (0.5,), names, received)
        return self.step(name, name, given, UPLOAD_RANDOM_BYTES)


def comity_round(cell: Cell, bits: int) -> tuple[Cost, float]:
    """One whole round of ours on the state machines, and the seconds of a site's keys."""
    made = Federation.linked(cell, bits)
    (exponent,) = exponents([0.5], limit(bits, cell.sites), HEADROOM[bits])
    spec, clock = made.spec(2, (("w", cell.size, exponent),)), made.clock
    received = clock.run(LEADER, lambda: received_digest(made.model))
    state, total = clock.run(LEADER, lambda: sums.opened(spec, made.binding, received))
    rng, names = np.random.default_rng(8), spec.cohort[cell.dropped :]
    true, weight, sent = np.zeros(cell.size), 0, 0
    for name in names:
        change = rng.normal(0, 0.01, cell.size).astype(np.float32)
        update, count = {"w": made.model["w"] + change}, int(rng.integers(10, 500))
        true += update["w"].astype(np.float64) * count
        weight += count
        masked: MaskedUpload = made.upload(name, spec, update, count)
        sent = masked.vector.nbytes + len(encode(masked.upload))
        vectors = (masked.vector, total)
        state = clock.run(LEADER, functools.partial(sums.step, state, name, masked.upload, vectors))
    mean = _revealed(made, state, total)
    error = float(np.linalg.norm(mean - true / weight) / np.linalg.norm(true / weight))
    site = statistics.median(clock.spent[name] for name in names)
    keys = statistics.median(clock.spent[f"keys {name}"] for name in names)
    return Cost(site, clock.spent[LEADER], sent, error), keys


def _revealed(made: Federation, state: SumState, total: RingVector) -> NDArray[Any]:
    clock = made.clock
    state = clock.run(LEADER, functools.partial(sums.closed, state))
    asking = functools.partial(sums.reveal_requests, state, made.leader.sign)
    for name, request in clock.run(LEADER, asking).items():
        answer = made.step(name, name, request, 0)
        if not sums.is_enough(state):
            state = clock.run(LEADER, functools.partial(sums.step, state, name, answer))

    def opened() -> Any:  # noqa: ANN401 - an array
        streams = unmasking(state)
        if isinstance(streams, Void):
            raise SystemExit(f"{made.cell}: {streams}")
        apply_streams(total, streams[0])
        result = finished(state, total, streams[1])
        if isinstance(result, Void):
            raise SystemExit(f"{made.cell}: {result}")
        return mean_arrays(total, state.spec.plan(), result.share, made.model)["w"]

    mean: NDArray[Any] = clock.run(LEADER, opened)
    return mean


def plain_round(cell: Cell) -> Cost:
    """Plain float averaging with Flower's own records and aggregation."""
    rng, clock = np.random.default_rng(7), Clock()
    replies, sent = [], 0
    for number in range(cell.dropped, cell.sites):
        update = rng.normal(0, 0.1, cell.size).astype(np.float32)
        record = clock.run(str(number), functools.partial(_recorded, update))
        sent = len(record["w"].data)
        replies.append(
            RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": number + 1})})
        )
    clock.run(LEADER, functools.partial(aggregate_arrayrecords, replies, "num-examples"))
    site = statistics.median(spent for name, spent in clock.spent.items() if name != LEADER)
    return Cost(site, clock.spent[LEADER], sent, None)


def _recorded(update: NDArray[np.float32]) -> ArrayRecord:
    return ArrayRecord({"w": Array(update)})
