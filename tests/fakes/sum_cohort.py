"""A cohort of real sites, their roster and their coordinator, all randomness from labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from comity.adapters.pki import Identity
from comity.core.policy.rule import SumPolicy
from comity.core.secagg.codec import encode
from comity.core.secagg.messages import (
    Announcement,
    AnnounceRequest,
    Invitation,
    Link,
    LinkRequest,
    RoundSpec,
)
from comity.core.secagg.site import step
from comity.core.secagg.site_keys import ANNOUNCE_RANDOM_BYTES
from comity.core.secagg.site_state import Member, SiteState
from comity.core.secagg.site_upload import UPLOAD_RANDOM_BYTES
from comity.core.secagg.terms import colluders, honest, least_threshold

FEDERATION, RUN, ROSTER_VERSION = "north", "run-1", 7


TERMS = SumPolicy(max_attempts=8, max_skipped_rounds=64, smallest_range=0.0, max_weight=2**20)
"""They allow what a test does unless it says otherwise."""


def drawn(size: int, *parts: str | int) -> bytes:
    """Bytes that look random, the same for the same parts."""
    return hashlib.shake_256("/".join(map(str, parts)).encode()).digest(size)


def site_names(count: int) -> tuple[str, ...]:
    return tuple(f"site-{number:04d}" for number in range(count))


def identity_of(name: str) -> Identity:
    return Identity.from_seed(drawn(32, "identity", name))


COORDINATOR = identity_of("coordinator")


def members(names: tuple[str, ...], terms: SumPolicy = TERMS) -> dict[str, Member]:
    identities = {name: identity_of(name) for name in names}
    roster = {name: identity.public_key() for name, identity in identities.items()}
    return {
        name: Member(
            FEDERATION,
            name,
            ROSTER_VERSION,
            roster,
            COORDINATOR.public_key(),
            terms,
            identity.sign,
            identity.verify,
        )
        for name, identity in identities.items()
    }


@dataclass(frozen=True)
class Epoch:
    """Sites that have announced (and encapsulated), and what a first invitation brings each."""

    members: Mapping[str, Member]
    states: Mapping[str, SiteState]
    announcements: tuple[bytes, ...]
    encapsulations: Mapping[str, tuple[bytes, ...]]

    def invitation(self, name: str, spec: RoundSpec) -> Invitation:
        return Invitation(encode(spec), self.announcements, self.encapsulations[name])


def announced(names: tuple[str, ...], terms: SumPolicy = TERMS, *, hybrid: bool = False) -> Epoch:
    parties, states, said = members(names, terms), {}, {}
    request = AnnounceRequest(FEDERATION, RUN, 1, 1, ROSTER_VERSION, int(hybrid))
    for name, member in parties.items():
        random = drawn(ANNOUNCE_RANDOM_BYTES, "announce", name)
        states[name], answer = step(member, SiteState(), request, random)
        assert isinstance(answer, Announcement)
        said[name] = encode(answer)
    announcements = tuple(said.values())
    sent: dict[str, list[bytes]] = {name: [] for name in names}
    for name in names if hybrid else ():
        states[name], linked = step(parties[name], states[name], LinkRequest(announcements), b"")
        assert isinstance(linked, Link)
        higher = [other for other in names if other > name]
        for other, body in zip(higher, linked.encapsulations, strict=True):
            sent[other].append(body)
    return Epoch(parties, states, announcements, {name: tuple(sent[name]) for name in names})


def spec_of(
    names: tuple[str, ...],
    tensors: tuple[tuple[str, int, int], ...],
    *,
    ring_bits: int = 32,
    threshold: int = 0,
    round_number: int = 1,
    attempt: int = 1,
    metric_slots: int = 2,
    max_weight: int = 1024,
    clip_norm: float = 0.0,
) -> RoundSpec:
    """A plan over `names`; the threshold is the least that default terms allow."""
    sites = len(names)
    return RoundSpec(
        FEDERATION,
        RUN,
        1,
        round_number,
        attempt,
        "train",
        names,
        threshold or least_threshold(sites, colluders(TERMS, sites), honest(TERMS, sites)),
        ring_bits,
        tensors,
        metric_slots,
        "num-examples",
        max_weight,
        clip_norm,
    )


def upload_random(name: str, *parts: str | int) -> bytes:
    return drawn(UPLOAD_RANDOM_BYTES, "upload", name, *parts)
