"""Identity keys and the signed roster."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fakes.gate_site import SetClock, UnsafeCountingRng

from comity.adapters.pki import (
    Identity,
    load_identity,
    throwaway_root,
    verify_signature,
    write_identity,
)
from comity.core.chain.canonical import decode, encode
from comity.errors import (
    ConfigError,
    DataError,
    Malformed,
    NotAMember,
    RefusedError,
    UnavailableError,
    Verification,
    VersionMismatch,
)
from comity.ids import FederationName, MemberName
from comity.services.enrol import Member, Role, Roster, open_roster, sign_roster

FEDERATION = FederationName("hospitals")
ROOT = Identity.from_seed(b"r" * 32)
ALICE = Member(MemberName("site-a"), Role.SITE, b"a" * 32)
BOB = Member(MemberName("gate"), Role.GATEWAY, b"b" * 32)
ROSTER = Roster(FEDERATION, 3, 1_000, (ALICE, BOB))


def opened(body: bytes, *, now_s: float = 0.0, at_least: int = 1) -> Roster:
    return open_roster(
        body,
        ROOT.public_key(),
        verify_signature,
        federation=FEDERATION,
        now_s=now_s,
        at_least=at_least,
    )


def signed(fields: object) -> bytes:
    assert isinstance(fields, dict)
    signature = ROOT.sign(b"comity/roster/v1\0" + encode(fields))
    return encode({"roster": fields, "signature": signature.hex()})


FIELDS = decode(sign_roster(ROSTER, ROOT))["roster"]
assert isinstance(FIELDS, dict)


def test_a_roster_reads_back_and_names_its_members() -> None:
    roster = opened(sign_roster(ROSTER, ROOT), at_least=3, now_s=999)
    assert roster == ROSTER
    assert roster.member("site-a") == ALICE
    with pytest.raises(NotAMember, match="'site-x' is not in the roster"):
        roster.member("site-x")


def test_a_signature_of_rfc_8032_verifies_and_no_other() -> None:
    """RFC 8032 section 7.1, test 2."""
    identity = Identity.from_seed(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert identity.sign(b"\x72") == signature
    identity.verify(identity.public_key(), b"\x72", signature)
    for key, message in [(identity.public_key(), b"\x73"), (b"\0" * 31, b"\x72")]:
        with pytest.raises(Verification):
            identity.verify(key, message, signature)
    assert "4ccd" not in repr(identity)


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (Verification, sign_roster(ROSTER, Identity.from_seed(b"x" * 32))),
        (Verification, sign_roster(replace(ROSTER, federation=FederationName("banks")), ROOT)),
        (Malformed, b"{"),
        (Malformed, b"[]"),
        (Malformed, encode({"roster": FIELDS})),
        (Malformed, encode({"roster": FIELDS, "signature": "zz"})),
        (Malformed, encode({"roster": FIELDS, "signature": "00"})),
        (Malformed, encode({"roster": FIELDS, "signature": "00" * 64, "more": 1})),
        (VersionMismatch, signed({**FIELDS, "schema_version": 2})),
        (Malformed, signed({**FIELDS, "more": 1})),
        (Malformed, signed({**FIELDS, "version": "3"})),
        (Malformed, signed({**FIELDS, "version": 0})),
        (Malformed, signed({**FIELDS, "members": []})),
        (Malformed, signed({**FIELDS, "members": [1]})),
        (Malformed, signed({**FIELDS, "members": FIELDS["members"][::-1]})),
        (Malformed, signed({**FIELDS, "members": [FIELDS["members"][0]] * 2})),
        (Malformed, signed({**FIELDS, "members": [{**FIELDS["members"][0], "role": "king"}]})),
        (Malformed, signed({**FIELDS, "members": [{**FIELDS["members"][0], "more": 1}]})),
        (Malformed, signed({**FIELDS, "members": [{**FIELDS["members"][0], "name": "A b"}]})),
    ],
)
def test_a_roster_that_is_not_exactly_right_is_refused(error: type[Exception], body: bytes) -> None:
    with pytest.raises(error):
        opened(body)


def test_an_old_or_expired_roster_is_refused() -> None:
    body = sign_roster(ROSTER, ROOT)
    with pytest.raises(Verification, match="older than version 4"):
        opened(body, at_least=4)
    with pytest.raises(RefusedError, match="has expired"):
        opened(body, now_s=1_000)


def test_two_members_share_neither_name_nor_key() -> None:
    with pytest.raises(Malformed, match="same public_key"):
        replace(ROSTER, members=(ALICE, replace(BOB, public_key=ALICE.public_key)))
    with pytest.raises(Malformed, match="a key of 3 bytes"):
        replace(ROSTER, members=(replace(ALICE, public_key=b"abc"),))


def test_a_throw_away_root_signs_a_roster_of_its_members_for_a_day() -> None:
    members = [(MemberName("site-a"), Role.SITE), (MemberName("coordinator"), Role.COORDINATOR)]
    clock = SetClock()
    made = throwaway_root(FEDERATION, members, UnsafeCountingRng(), clock)
    for name, role in members:
        member = made.roster.member(name)
        assert (member.role, member.public_key) == (role, made.identities[name].public_key())
    assert made.roster.expires_at_s == int(clock.wall_s()) + 86_400
    assert "identities" not in repr(made)
    with pytest.raises(Malformed):
        throwaway_root(FEDERATION, [members[0]] * 2, UnsafeCountingRng(), clock)


def test_an_identity_is_written_once_for_its_owner_alone_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    write_identity(path, ROOT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_identity(path).public_key() == ROOT.public_key()
    with pytest.raises(ConfigError, match="there is an identity key already"):
        write_identity(path, ROOT)
    with pytest.raises(UnavailableError):
        write_identity(tmp_path / "no-such" / "identity.key", ROOT)


@pytest.mark.parametrize("content", [b"", b"zz" * 32, b"ab" * 31, b"\xff" * 64, b"ab" * 40])
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DataError):
        load_identity(path)


def test_a_key_that_is_missing_or_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    with pytest.raises(ConfigError, match="there is no identity key"):
        load_identity(path)
    write_identity(path, ROOT)
    path.chmod(0o604)
    with pytest.raises(ConfigError, match="others than its owner may read"):
        load_identity(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UnavailableError):
        load_identity(path)
