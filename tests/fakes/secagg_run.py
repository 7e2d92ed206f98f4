"""A federation in memory over the state machines of secure sums; a test may alter any message."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from comity.adapters.pki import Identity, verify_signature
from comity.core.policy.rule import SumPolicy
from comity.core.secagg import coordinator, site, site_keys, site_upload, unmask
from comity.core.secagg.codec import Coded, decode, encode
from comity.core.secagg.mask import RingVector, apply_streams
from comity.core.secagg.messages import (
    Announcement,
    AnnounceRequest,
    Complaint,
    Encapsulation,
    Invitation,
    Link,
    LinkRequest,
    Reveal,
    RevealRequest,
    RoundSpec,
    Unfit,
    Upload,
    reveal_message,
)
from comity.core.secagg.quantize import mean_arrays
from comity.core.secagg.site_state import Member, SiteState
from comity.core.secagg.site_upload import Contribution, MaskedUpload, received_digest
from comity.core.secagg.sum_state import Phase, SumResult, SumState, Void
from comity.core.secagg.terms import colluders, honest, least_threshold

Arrays = dict[str, NDArray[Any]]
M = TypeVar("M", bound=Coded)
NAMES = ("arrays", "metrics", "loss", "accuracy")
MODEL: Arrays = {
    "w": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "b": np.full(4, 0.5, np.float32),
}


def sum_terms(**changes: Any) -> SumPolicy:
    """A site's policy for sums, tighter than the default, with changes."""
    plain = SumPolicy(max_attempts=3, max_skipped_rounds=4, smallest_range=2.0**-6, max_weight=1024)
    return replace(plain, **changes)


class UnsafeCountingBytes:
    """Random bytes that anybody can compute: SHAKE-256 of a seed and a counter."""

    def __init__(self, seed: int = 0) -> None:
        self._seed, self._count = seed, 0

    def take(self, size: int) -> bytes:
        """So many bytes, never the same twice."""
        self._count += 1
        return hashlib.shake_256(f"{self._seed} {self._count}".encode()).digest(size)


def identity(name: str) -> Identity:
    """The identity of a name, the same in every test."""
    return Identity.from_seed(hashlib.sha256(name.encode()).digest())


def wired(message: M) -> M:
    """A message after its way over the wire."""
    return decode(type(message), encode(message))


def signed_announcement(said: Announcement, signer: Identity) -> bytes:
    """The bytes of an announcement under somebody's signature."""
    body = site_keys._ANNOUNCE_TAG + encode(said, without="signature")
    return encode(replace(said, signature=signer.sign(body)))


def signed_encapsulation(row: Encapsulation, signer: Identity) -> bytes:
    """The bytes of an encapsulation under somebody's signature."""
    body = site_keys._LINK_TAG + encode(row, without="signature")
    return encode(replace(row, signature=signer.sign(body)))


def signed_request(request: RevealRequest, signer: Identity) -> RevealRequest:
    """A reveal request under somebody's signature."""
    return replace(request, signature=signer.sign(reveal_message(request)))


@dataclass
class SecaggRun:
    """Sites `s0`, `s1`, ... and a coordinator; each method does one exchange with one or all.

    Every message and, after every step, every site's state goes through its bytes. What a step
    refuses changes nothing here either.
    """

    sites: int = 5
    hybrid: int = 0
    terms: SumPolicy = field(default_factory=sum_terms)
    seed: int = 0
    run: str = "run-1"
    epoch: int = 0
    first_round: int = 1
    members: dict[str, Member] = field(default_factory=dict)
    states: dict[str, SiteState] = field(default_factory=dict)
    announcements: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    spec: RoundSpec | None = None
    sum: SumState | None = None
    total: RingVector = field(default_factory=lambda: np.zeros(0, np.uint32))
    masked: dict[str, MaskedUpload] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = UnsafeCountingBytes(self.seed)
        self.names = tuple(f"s{place:02}" for place in range(self.sites))
        roster = {name: identity(name).public_key() for name in self.names}
        for name in self.names:
            self.members[name] = Member(
                "fed", name, 1, roster, identity("coordinator").public_key(), self.terms,
                identity(name).sign, verify_signature,
            )  # fmt: skip
            self.states[name] = SiteState()

    def fork(self) -> SecaggRun:
        """A copy that goes its own way from here."""
        copied = copy.copy(self)
        copied.states, copied.masked = dict(self.states), dict(self.masked)
        return copied

    # What the site does, whatever it is sent.

    def to_site(self, name: str, message: Any, random: bytes = b"") -> Any:
        """One step of a site; its state is kept as bytes would keep it."""
        given = message if isinstance(message, Contribution) else wired(message)
        state, answer = site.step(self.members[name], self.states[name], given, random)
        self.states[name] = decode(SiteState, encode(state))
        return answer

    def to_coordinator(
        self, name: str, message: Upload | Unfit | Reveal | Complaint, vector: Any = None
    ) -> None:
        """One step of the coordinator."""
        vectors = None if vector is None else (vector, self.total)
        self.sum = coordinator.step(self.sum_state, name, wired(message), vectors)

    @property
    def sum_state(self) -> SumState:
        """The attempt that is open."""
        assert self.sum is not None
        return self.sum

    @property
    def plan(self) -> RoundSpec:
        """The plan of the attempt that is open."""
        assert self.spec is not None
        return self.spec

    @property
    def context(self) -> bytes:
        """What the first upload was for."""
        return next(iter(self.sum_state.uploads.values())).context

    # An honest run, exchange by exchange.

    def request(self, **changes: Any) -> AnnounceRequest:
        """The honest request for keys, with changes."""
        at = self.first_round
        return replace(AnnounceRequest("fed", self.run, self.epoch, at, 1, self.hybrid), **changes)

    def announce(self, *, leave_out: tuple[str, ...] = (), first_round: int = 1) -> SecaggRun:
        """A new epoch of keys, from the round on that is due, or a later one.

        Of a hybrid run only the first exchange.
        """
        self.epoch += 1
        stand = [max(state.round_number, state.revealed + 1) for state in self.states.values()]
        self.first_round = max(*stand, first_round)
        self.announcements, self.links = {}, {}
        for name in self.names:
            if name not in leave_out:
                said = self.to_site(
                    name, self.request(), self.random.take(site_keys.ANNOUNCE_RANDOM_BYTES)
                )
                self.announcements[name] = encode(said)
        return self

    def link(self, *names: str) -> SecaggRun:
        """The second exchange of a hybrid epoch."""
        for name in names or tuple(self.announcements):
            self.links[name] = self.to_site(name, LinkRequest(self.said))
        return self

    @property
    def said(self) -> tuple[bytes, ...]:
        """All announcements of the epoch, sorted."""
        return tuple(self.announcements[name] for name in sorted(self.announcements))

    def open(self, **changes: Any) -> SecaggRun:
        """A new attempt, the first of the epoch's first round where nothing else is said."""
        cohort = changes.get("cohort", tuple(sorted(self.announcements)))
        size = len(cohort)
        least = least_threshold(size, colluders(self.terms, self.sites), honest(self.terms, size))
        plain = RoundSpec(
            "fed", self.run, self.epoch, self.first_round, 1, "train", cohort, least, 32,
            tuple((name, array.size, 20) for name, array in MODEL.items()),
            len(NAMES) - 2, "num-examples", 128,
        )  # fmt: skip
        self.spec = replace(plain, **changes)
        binding = site_keys.binding_of(self.said)
        self.sum, self.total = coordinator.opened(self.spec, binding, received_digest(MODEL))
        self.masked = {}
        return self

    def invitation(self, name: str, **changes: Any) -> Invitation:
        """The honest invitation of a site, its plan with changes."""
        bodies = [
            body
            for link in self.links.values()
            for body in link.encapsulations
            if decode(Encapsulation, body).receiver == name
        ]
        return Invitation(encode(replace(self.plan, **changes)), self.said, tuple(bodies))

    def invite(self, *names: str) -> SecaggRun:
        """Invites sites, or the whole cohort."""
        for name in names or self.plan.cohort:
            self.to_site(name, self.invitation(name))
        return self

    def contribution(self, name: str, **changes: Any) -> Contribution:
        """What a site sums, with changes."""
        place = self.names.index(name)
        arrays = {
            key: (array + np.float32(0.125) * (place + 1)).astype(np.float32)
            for key, array in MODEL.items()
        }
        plain = Contribution(
            arrays, MODEL, 10.0 * (place + 1), (0.5 + place, -2.0 * place), NAMES,
            received_digest(MODEL),
        )  # fmt: skip
        return replace(plain, **changes)

    def contribute(self, name: str, **changes: Any) -> MaskedUpload | Unfit:
        """Lets a site mask; nothing is sent yet."""
        answer = self.to_site(
            name,
            self.contribution(name, **changes),
            self.random.take(site_upload.UPLOAD_RANDOM_BYTES),
        )
        assert isinstance(answer, MaskedUpload | Unfit)
        if isinstance(answer, MaskedUpload):
            self.masked[name] = answer
        return answer

    def upload(self, *names: str) -> SecaggRun:
        """Invites where that is due, masks where that is due, and sends the upload."""
        for name in names or self.plan.cohort:
            if name not in self.masked:
                self.invite(name)
                self.contribute(name)
            self.to_coordinator(name, self.masked[name].upload, self.masked[name].vector)
        return self

    def close(self) -> Void | None:
        """Ends collecting."""
        moved = coordinator.closed(self.sum_state)
        if isinstance(moved, Void):
            return moved
        self.sum = moved
        return None

    def requests(self) -> dict[str, RevealRequest]:
        """What the coordinator asks each survivor."""
        return coordinator.reveal_requests(self.sum_state, identity("coordinator").sign)

    def reveal(self, *names: str) -> SecaggRun:
        """Asks survivors, or all of them, and takes their answers."""
        for name in names or self.sum_state.survivors:
            self.to_coordinator(name, self.to_site(name, self.requests()[name]))
        return self

    def finish(self) -> tuple[SumResult, Arrays] | Void:
        """Opens the sum."""
        streams = unmask.unmasking(self.sum_state)
        if isinstance(streams, Void):
            return streams
        vector_streams, tail_streams = streams
        opened = self.total.copy()
        apply_streams(opened, vector_streams)
        result = unmask.finished(self.sum_state, opened, tail_streams)
        if isinstance(result, Void):
            return result
        return result, mean_arrays(opened, self.plan.plan(), result.share, MODEL)

    def complete(self) -> tuple[SumResult, Arrays] | Void:
        """Does what is left of an honest run, from wherever it stands."""
        self._begun()
        if self.sum_state.phase == Phase.COLLECTING:
            for name in self.plan.cohort:
                if name not in self.sum_state.uploads:
                    self.upload(name)
            void = self.close()
            if void:
                return void
        done = {*self.sum_state.reveals, *self.sum_state.complaints}
        for name in self.sum_state.survivors:
            if name not in done:
                self.reveal(name)
        return self.finish()

    def _begun(self) -> None:
        if not self.announcements:
            self.announce()
        if self.hybrid and not self.links:
            self.link()
        if self.sum is None:
            self.open()

    def snapshot(self) -> tuple[Any, ...]:
        """All state there is, to be compared."""
        states = {name: encode(state) for name, state in self.states.items()}
        return states, self.sum, self.total.tobytes()

    def expected(self, *names: str) -> tuple[float, Arrays]:
        """The sum of weights and the weighted mean of what these sites gave."""
        given = [self.contribution(name) for name in names]
        weight = sum(one.weight for one in given)
        return weight, {
            key: np.asarray(sum(one.arrays[key] * one.weight for one in given) / weight)
            for key in MODEL
        }


def assert_sums(run: SecaggRun, outcome: tuple[SumResult, Mapping[str, Any]] | Void) -> None:
    """Checks that an attempt gave the plain weighted mean of its survivors."""
    assert not isinstance(outcome, Void), outcome
    result, arrays = outcome
    weight, expected = run.expected(*result.survivors)
    assert result.weight == weight
    tolerance = 1e-5 if run.plan.ring_bits == 32 else 1e-2
    for name, array in expected.items():
        np.testing.assert_allclose(arrays[name], array, atol=tolerance)
    given = [run.contribution(name) for name in result.survivors]
    for place, value in enumerate(result.metrics):
        mean = sum(one.metrics[place] * one.weight for one in given) / weight
        assert abs(value - mean) < 1e-9
