"""Enrolment: the roster that says who is who, signed by the federation's root key.

Members trust the roster, never somebody's word: a key that the root did not sign is nobody's. The
file is canonical JSON, ``{"roster": {...}, "signature": hex}``, and the signature covers a tag and
the canonical bytes of ``roster``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from comity.core.chain.canonical import decode, encode
from comity.errors import Malformed, NotAMember, RefusedError, Verification, VersionMismatch
from comity.ids import NAME_PATTERN, FederationName, MemberName
from comity.ports import KeyStore

SCHEMA_VERSION: Final = 1
MAX_MEMBERS: Final = 10_000
MAX_ROSTER_BYTES: Final = 4 * 2**20
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_TAG: Final = b"comity/roster/v1\0"
_NAME: Final = re.compile(NAME_PATTERN)

Verify: TypeAlias = Callable[[bytes, bytes, bytes], None]
"""Checks (public key, message, signature); raises `Verification`. `KeyStore.verify` is one."""


class Role(StrEnum):
    """What a member does."""

    SITE = "site"
    COORDINATOR = "coordinator"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One member: its name, what it does, and its Ed25519 identity key (32 bytes)."""

    name: MemberName
    role: Role
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Roster:
    """All members of a federation at one version.

    Attributes:
        federation: The federation.
        version: Counts up with each change; a lower one is never accepted after a higher one.
        expires_at_s: When it ends to be valid, in seconds since 1970-01-01 UTC.
        members: Sorted by name, names and keys unique.
    """

    federation: FederationName
    version: int
    expires_at_s: int
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(sorted(self.members)))
        if not 0 < len(self.members) <= MAX_MEMBERS:
            raise Malformed(f"a roster of {len(self.members)} members; 1 to {MAX_MEMBERS} may be")
        if self.version < 1 or self.expires_at_s < 1:
            raise Malformed("a roster's version and expires_at_s count from 1")
        for member in self.members:
            if not _NAME.fullmatch(member.name):
                raise Malformed(f"{member.name[:80]!r} is not a member's name")
            if len(member.public_key) != PUBLIC_KEY_BYTES:
                raise Malformed(f"member {member.name}: a key of {len(member.public_key)} bytes")
        for kind in ("name", "public_key"):
            if len({getattr(member, kind) for member in self.members}) < len(self.members):
                raise Malformed(f"two members of the roster have the same {kind}")

    def member(self, name: str) -> Member:
        """The member called `name`.

        Raises:
            NotAMember: There is none.
        """
        for member in self.members:
            if member.name == name:
                return member
        raise NotAMember(
            f"{name!r} is not in the roster of {self.federation}, version {self.version}",
            hint="ask the federation's root to enrol it, then fetch the newer roster",
        )


def identity_keys(roster: Roster, role: Role) -> dict[MemberName, bytes]:
    """The identity keys of all members in one role, by name, sorted."""
    return {member.name: member.public_key for member in roster.members if member.role is role}


def sign_roster(roster: Roster, root: KeyStore) -> bytes:
    """The roster's file, signed by the federation's root key."""
    fields = _fields(roster)
    signature = root.sign(_TAG + encode(fields))
    return encode({"roster": fields, "signature": signature.hex()})


def open_roster(
    body: bytes,
    root_key: bytes,
    verify: Verify,
    *,
    federation: FederationName,
    now_s: float,
    at_least: int = 1,
) -> Roster:
    """Reads a roster and checks everything about it before anything of it is used.

    Args:
        body: The file.
        root_key: The federation's root public key, 32 bytes, known beforehand.
        verify: Checks an Ed25519 signature.
        federation: Whose roster it must be.
        now_s: The time, in seconds since 1970-01-01 UTC.
        at_least: The highest version seen so far: an older roster would bring revoked members back.

    Raises:
        Malformed: It does not parse, or breaks a limit.
        VersionMismatch: It is of a schema version that this release cannot read.
        Verification: The root did not sign it, it is another federation's, or it is an old one.
        RefusedError: It has expired.
    """
    document = decode(body, max_bytes=MAX_ROSTER_BYTES)
    fields, signature = document.get("roster"), document.get("signature")
    named = set(document) == {"roster", "signature"}
    if not (named and isinstance(fields, dict) and isinstance(signature, str)):
        raise Malformed("a roster's file holds roster and signature, and nothing else")
    verify(root_key, _TAG + encode(fields), _hex(signature, SIGNATURE_BYTES, "signature"))
    roster = _roster(fields)
    if roster.federation != federation:
        raise Verification(f"this is the roster of {roster.federation}, not of {federation}")
    if roster.version < at_least:
        raise Verification(
            f"roster version {roster.version} is older than version {at_least}, seen before",
            hint="fetch the newest roster",
        )
    if now_s >= roster.expires_at_s:
        raise RefusedError(
            f"roster version {roster.version} of {federation} has expired",
            hint="ask the federation's root for a new one",
        )
    return roster


def _fields(roster: Roster) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "federation": roster.federation,
        "version": roster.version,
        "expires_at_s": roster.expires_at_s,
        "members": [
            {"name": member.name, "role": member.role.value, "public_key": member.public_key.hex()}
            for member in roster.members
        ],
    }


def _roster(fields: Mapping[str, object]) -> Roster:
    if fields.get("schema_version") != SCHEMA_VERSION:
        raise VersionMismatch(
            f"a roster of schema version {fields.get('schema_version')!r}",
            hint=f"this release reads version {SCHEMA_VERSION}",
        )
    match fields:
        case {
            "federation": str(federation),
            "version": int(version),
            "expires_at_s": int(expires_at_s),
            "members": list(members),
            "schema_version": _,
            **rest,
        } if not rest:
            return Roster(FederationName(federation), version, expires_at_s, _members(members))
    raise Malformed("a roster lacks a field, or has one too many")


def _members(items: Sequence[object]) -> tuple[Member, ...]:
    members = []
    for item in items:
        match item:
            case {"name": str(name), "role": str(role), "public_key": str(key), **rest} if (
                role in set(Role) and not rest
            ):
                public = _hex(key, PUBLIC_KEY_BYTES, f"public_key of {name[:80]!r}")
                members.append(Member(MemberName(name), Role(role), public))
            case _:
                raise Malformed("a member of the roster does not parse")
    if sorted(members) != members:
        raise Malformed("the members of a roster are not in order")
    return tuple(members)


def _hex(text: str, size: int, name: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise Malformed(f"{name} is not hexadecimal") from error
    if len(value) != size or value.hex() != text:
        raise Malformed(f"{name} is not {size} bytes of lower-case hexadecimal")
    return value
