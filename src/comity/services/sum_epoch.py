"""An epoch of keys at the coordinator: who announced what, checked before it is passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from comity.core.secagg.codec import decode, encode
from comity.core.secagg.keys import encapsulated, shared_secret
from comity.core.secagg.messages import (
    Announcement,
    AnnounceRequest,
    Encapsulation,
    Link,
    LinkRequest,
)
from comity.core.secagg.site_keys import announcement_message, binding_of
from comity.core.secagg.site_state import Sign, Verify
from comity.errors import ProtocolError, RefusedError, Verification
from comity.ids import RunId
from comity.services.enrol import Role, Roster

_TEST_KEY: Final = bytes(range(32))


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Who coordinates: the roster it knows sites by, and its own identity.

    Attributes:
        roster: Who is who.
        sign: Signs with the coordinator's identity key.
        verify: Checks an Ed25519 signature.
    """

    roster: Roster
    sign: Sign = field(repr=False)
    verify: Verify = field(repr=False)


class KeyCarrier(Protocol):
    """The part of a carrier that an epoch needs."""

    def announce(self, request: bytes) -> Mapping[str, bytes]:
        """Asks every site for keys."""

    def link(self, request: bytes) -> Mapping[str, bytes]:
        """Asks every site for its encapsulations."""


@dataclass(slots=True)
class Epoch:
    """The keys of one epoch.

    Attributes:
        number: Counts from 1 within the run.
        announcements: Encoded, by site, sorted.
        encapsulations: Encoded, by receiver.
        binding: Digest of all announcements.
        sites: Who can take part.
        linked: Who has shown that it knows the others' keys.
    """

    number: int
    announcements: dict[str, bytes]
    encapsulations: dict[str, list[bytes]]
    binding: bytes
    sites: frozenset[str]
    linked: set[str] = field(default_factory=set)

    @classmethod
    def begin(
        cls,
        coordinator: Coordinator,
        run: RunId,
        place: tuple[int, int],
        carrier: KeyCarrier,
        *,
        hybrid: bool,
    ) -> Epoch:
        """Asks all sites for fresh keys; one whose keys do not hold is left out.

        Args:
            coordinator: Who asks.
            run: The run.
            place: The epoch, above any before it, and its first round, above any revealed.
            carrier: Carries the requests.
            hybrid: Keys with ML-KEM-768 too.
        """
        roster, (number, first) = coordinator.roster, place
        request = AnnounceRequest(
            roster.federation, run, number, first, roster.version, int(hybrid)
        )
        said = _checked(carrier.announce(encode(request)), coordinator, request)
        bodies = tuple(said.values())
        rows: dict[str, list[bytes]] = {name: [] for name in said}
        sites = frozenset(said)
        if hybrid:
            links = carrier.link(encode(LinkRequest(bodies)))
            sites = frozenset(_sort_rows(links, rows, binding_of(bodies)))
        return cls(number, said, rows, binding_of(bodies), sites)

    def introduction(self, site: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Announcements and encapsulations for a site that is not linked yet; else nothing."""
        if site in self.linked:
            return (), ()
        rows = tuple(self.encapsulations.get(site, ()))
        return tuple(self.announcements.values()), rows


def _checked(
    replies: Mapping[str, bytes], coordinator: Coordinator, request: AnnounceRequest
) -> dict[str, bytes]:
    found = {}
    for site in sorted(replies):
        try:
            said = decode(Announcement, replies[site])
            _check(said, site, coordinator, request)
        except (ProtocolError, RefusedError):
            continue  # a site whose keys do not hold takes no part; nobody else is held up
        found[site] = replies[site]
    return found


def _check(
    said: Announcement, site: str, coordinator: Coordinator, request: AnnounceRequest
) -> None:
    asked = (request.run, request.epoch, request.first_round, request.roster_version)
    if said.site != site or (said.run, said.epoch, said.first_round, said.roster_version) != asked:
        raise Verification(f"the announcement of {site} is another's, or of another epoch")
    member = coordinator.roster.member(site)
    if member.role is not Role.SITE:
        raise Verification(f"{site} is no site")
    coordinator.verify(member.public_key, announcement_message(said), said.signature)
    shared_secret(_TEST_KEY, said.x25519)
    if request.hybrid:
        encapsulated(said.mlkem)


def _sort_rows(
    links: Mapping[str, bytes], rows: dict[str, list[bytes]], binding: bytes
) -> list[str]:
    """Sorts encapsulations by receiver; who brought one for each higher site takes part.

    A site that left one out would else take its receiver's part in each sum with it.
    """
    answered = []
    for site in sorted(links):
        try:
            link = decode(Link, links[site])
            mine = [(decode(Encapsulation, body), body) for body in link.encapsulations]
        except ProtocolError:
            continue
        brought = [(row.sender, row.receiver, row.binding) for row, _ in mine]
        if brought != [(site, name, binding) for name in sorted(rows) if name > site]:
            continue
        answered.append(site)
        for row, body in mine:
            rows[row.receiver].append(body)
    return answered
