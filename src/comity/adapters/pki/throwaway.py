"""A federation root that is thrown away: for sites that are processes of one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.adapters.pki.keys import PRIVATE_KEY_BYTES, Identity, verify_signature
from comity.ids import FederationName, MemberName
from comity.ports import Clock, Rng
from comity.services.enrol import Member, Role, Roster, open_roster, sign_roster

_VALID_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class ThrowawayRoot:
    """A root's whole work for one local federation; its private key is forgotten at once.

    Attributes:
        public_key: The root's public key.
        roster: The roster, verified.
        roster_file: The roster as signed.
        identities: Each member's key.
    """

    public_key: bytes
    roster: Roster
    roster_file: bytes = field(repr=False)
    identities: Mapping[MemberName, Identity] = field(repr=False)


def throwaway_root(
    federation: FederationName, members: Sequence[tuple[MemberName, Role]], rng: Rng, clock: Clock
) -> ThrowawayRoot:
    """Makes a root, an identity for each member, and the roster of them, valid for a day.

    Raises:
        Malformed: A name is no name, or stands twice.
    """
    identities = {name: Identity.from_seed(rng.token(PRIVATE_KEY_BYTES)) for name, _ in members}
    return throwaway_root_over(federation, members, identities, (rng, clock))


def throwaway_root_over(
    federation: FederationName,
    members: Sequence[tuple[MemberName, Role]],
    identities: Mapping[MemberName, Identity],
    ports: tuple[Rng, Clock],
) -> ThrowawayRoot:
    """Makes a root and a roster of members that have identities already, valid for a day.

    Raises:
        Malformed: A name is no name, or stands twice.
    """
    rng, clock = ports
    root = Identity.from_seed(rng.token(PRIVATE_KEY_BYTES))
    now_s = clock.wall_s()
    signed = sign_roster(
        Roster(
            federation,
            version=1,
            expires_at_s=int(now_s) + _VALID_S,
            members=tuple(
                Member(name, role, identities[name].public_key()) for name, role in members
            ),
        ),
        root,
    )
    roster = open_roster(
        signed, root.public_key(), verify_signature, federation=federation, now_s=now_s
    )
    return ThrowawayRoot(root.public_key(), roster, signed, identities)
