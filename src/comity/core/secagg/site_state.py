"""A site's side of secure sums as values: who it is, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Final, TypeAlias

from comity.core.secagg.codec import Layout, Number, Octets, Rows, Text
from comity.core.secagg.messages import MAX_METRICS, MAX_SITES
from comity.core.secagg.terms import SumTerms
from comity.errors import Malformed

Sign: TypeAlias = Callable[[bytes], bytes]
Verify: TypeAlias = Callable[[bytes, bytes, bytes], None]
"""Checks (public key, message, signature); raises `Verification`."""

_MAX_ANSWER: Final = 2**20
_MAX_SPEC: Final = 64 * 2**20
_MAX_LINK: Final = 2**22


class Stage(IntEnum):
    """Where a site stands in a run."""

    NEW = 0
    ANNOUNCED = 1
    ENCAPSULATED = 2
    LINKED = 3
    INVITED = 4
    UNFIT = 5
    UPLOADED = 6
    CLOSED = 7


@dataclass(frozen=True, slots=True)
class Member:
    """Who a site is and whom it trusts: all of it from its own disk.

    Attributes:
        federation: The federation.
        site: Its own name.
        roster_version: Of the roster that it holds.
        roster: Identity key of each site, by name.
        coordinator_key: Identity key of the coordinator.
        terms: Its policy for secure sums.
        sign: Signs with its identity key.
        verify: Checks an Ed25519 signature.
    """

    federation: str
    site: str
    roster_version: int
    roster: Mapping[str, bytes]
    coordinator_key: bytes
    terms: SumTerms
    sign: Sign = field(repr=False)
    verify: Verify = field(repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class SiteState:
    """Where a site stands in one run; encodable, so that a crash loses nothing.

    Attributes:
        run: The run.
        epoch: The epoch of its keys; only grows within a run.
        first_round: The round that the epoch's chains start at.
        roster_version: Of the roster that the epoch's keys were checked against.
        stage: What may come next.
        hybrid: Whether this epoch has ML-KEM keys too.
        private: The X25519 private key, until the site is linked.
        kem_seed: The ML-KEM seed, likewise.
        announcement: What it announced.
        link: What it encapsulated, until it is linked.
        binding: Digest of all announcements of the epoch.
        members: Who announced, sorted.
        secrets: X25519 secrets by member, between encapsulating and being linked.
        chains: The pair's chain by member; empty for itself and where there is none.
        chain_round: The round that the chains stand at.
        round_number: The last round accepted.
        attempt: The last attempt accepted of it.
        spec: Its encoded `RoundSpec`.
        context: Digest of what was uploaded for; empty before the upload.
        own_share: The site's own share of its self mask's secret.
        names: What it summed, in the app's words.
        unfits: How often it said in this run that a plan does not fit.
        revealed: The last round whose reveal was answered; in no epoch is one like it taken again.
        asked: Digest of the reveal request that was answered.
        answer: The answer, repeated to the same request.
    """

    CODE: ClassVar[int] = 64
    LAYOUT: ClassVar[Layout] = (
        ("run", Text(128)),
        ("epoch", Number(4)),
        ("first_round", Number(8)),
        ("roster_version", Number(8)),
        ("stage", Number(1)),
        ("hybrid", Number(1)),
        ("private", Octets(0, 32)),
        ("kem_seed", Octets(0, 64)),
        ("announcement", Octets(0, 4096)),
        ("link", Octets(0, _MAX_LINK)),
        ("binding", Octets(0, 32)),
        ("members", Rows(MAX_SITES, (Text(63),))),
        ("secrets", Rows(MAX_SITES, (Octets(0, 64),))),
        ("chains", Rows(MAX_SITES, (Octets(0, 32),))),
        ("chain_round", Number(8)),
        ("round_number", Number(8)),
        ("attempt", Number(4)),
        ("spec", Octets(0, _MAX_SPEC)),
        ("context", Octets(0, 32)),
        ("own_share", Octets(0, 32)),
        ("names", Rows(MAX_METRICS + 2, (Text(256),))),
        ("unfits", Number(4)),
        ("revealed", Number(8)),
        ("asked", Octets(0, 32)),
        ("answer", Octets(0, _MAX_ANSWER)),
    )
    run: str = ""
    epoch: int = 0
    first_round: int = 1
    roster_version: int = 0
    stage: int = Stage.NEW
    hybrid: int = 0
    private: bytes = b""
    kem_seed: bytes = b""
    announcement: bytes = b""
    link: bytes = b""
    binding: bytes = b""
    members: tuple[str, ...] = ()
    secrets: tuple[bytes, ...] = ()
    chains: tuple[bytes, ...] = ()
    chain_round: int = 1
    round_number: int = 0
    attempt: int = 0
    spec: bytes = b""
    context: bytes = b""
    own_share: bytes = b""
    names: tuple[str, ...] = ()
    unfits: int = 0
    revealed: int = 0
    asked: bytes = b""
    answer: bytes = b""

    def __post_init__(self) -> None:
        if self.stage not in set(Stage):
            raise Malformed(f"a site's state of stage {self.stage}")

    def chain(self, member: str) -> bytes:
        """The chain of the pair with `member`; empty where there is none."""
        return self.chains[self.members.index(member)] if member in self.members else b""

    def __repr__(self) -> str:
        stage = Stage(self.stage).name
        return f"SiteState(run={self.run!r}, epoch={self.epoch}, stage={stage}, <keys>)"
