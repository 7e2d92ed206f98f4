"""A site's keys of an epoch: announced, checked against its own roster, made into pair chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from comity.core.secagg.codec import decode, encode
from comity.core.secagg.keys import (
    KEY_BYTES,
    MLKEM_PUBLIC_BYTES,
    MLKEM_SEED_BYTES,
    decapsulated,
    digest,
    encapsulated,
    first_chain,
    mlkem_public,
    public_of,
    shared_secret,
)
from comity.core.secagg.messages import (
    NONCE_BYTES,
    Announcement,
    AnnounceRequest,
    Encapsulation,
    Link,
    LinkRequest,
)
from comity.core.secagg.site_state import Member, SiteState, Stage
from comity.errors import Malformed, NotAMember, PolicyRefused, Replay, Verification, WrongStage

ANNOUNCE_RANDOM_BYTES: Final = KEY_BYTES + MLKEM_SEED_BYTES + NONCE_BYTES
_KEYS_END: Final = KEY_BYTES + MLKEM_SEED_BYTES
_NO_KEMS: Final[Mapping[str, bytes]] = MappingProxyType({})
_ANNOUNCE_TAG: Final = b"comity/secagg/v1/announcement\0"
_LINK_TAG: Final = b"comity/secagg/v1/encapsulation\0"


def announce(
    member: Member, state: SiteState, request: AnnounceRequest, random: bytes
) -> tuple[SiteState, Announcement]:
    """Makes the keys of a new epoch and says them, signed.

    The same request again before anything else gets the same announcement.

    Args:
        member: Who the site is.
        state: Where it stands.
        request: What the coordinator asks.
        random: `ANNOUNCE_RANDOM_BYTES` uniform bytes.

    Raises:
        Verification: Another federation, or another roster than the site holds.
        PolicyRefused: The site demands hybrid keys, and these would not be.
        Replay: An epoch that is not above the last one, or that would bring an old round back.
        Malformed: Not so many random bytes.
    """
    _check_request(member, state, request)
    if state.stage == Stage.ANNOUNCED and _same_epoch(state, request):
        return state, decode(Announcement, state.announcement)
    if request.epoch <= state.epoch:
        raise Replay(f"epoch {request.epoch} of run {request.run!r} was announced before")
    if request.first_round <= state.revealed or request.first_round < state.round_number:
        raise Replay(
            f"an epoch from round {request.first_round} on; this site is at round "
            f"{max(state.round_number, state.revealed + 1)}"
        )
    if len(random) != ANNOUNCE_RANDOM_BYTES:
        raise Malformed(f"{len(random)} random bytes; keys take {ANNOUNCE_RANDOM_BYTES}")
    private, kem_seed = random[:KEY_BYTES], random[KEY_BYTES:_KEYS_END]
    kem_seed = kem_seed if request.hybrid else b""
    said = Announcement(
        request.federation,
        request.run,
        request.epoch,
        request.first_round,
        request.roster_version,
        member.site,
        public_of(private),
        mlkem_public(kem_seed) if kem_seed else b"",
        random[_KEYS_END:],
    )
    signed = replace(said, signature=member.sign(announcement_message(said)))
    began = SiteState(
        run=request.run,
        epoch=request.epoch,
        first_round=request.first_round,
        roster_version=request.roster_version,
        stage=Stage.ANNOUNCED,
        hybrid=request.hybrid,
        private=private,
        kem_seed=kem_seed,
        announcement=encode(signed),
        # Rounds go on counting: a new epoch does not bring an old round back.
        round_number=state.round_number,
        attempt=state.attempt,
        spec=state.spec,
        unfits=state.unfits,
        revealed=state.revealed,
    )
    return began, signed


def encapsulate(member: Member, state: SiteState, request: LinkRequest) -> tuple[SiteState, Link]:
    """Encapsulates a secret to each higher site of a hybrid epoch.

    Not deterministic: the library draws what it encapsulates. The same request again gets the
    same answer.

    Raises:
        WrongStage: The site has not announced hybrid keys, or is past this.
        Verification: An announcement is not its site's own; see `checked_announcements`.
    """
    if state.stage == Stage.ENCAPSULATED and binding_of(request.announcements) == state.binding:
        return state, decode(Link, state.link)
    if state.stage != Stage.ANNOUNCED or not state.hybrid:
        raise WrongStage("this site has no hybrid keys that wait for others")
    found = checked_announcements(member, state, request.announcements)
    binding = binding_of(request.announcements)
    secrets, rows = [], []
    for name, said in found.items():
        if name == member.site:
            secrets.append(b"")
            continue
        secret, kem = _secret_with(state, said), b""
        if member.site < name:
            kem, ciphertext = _encapsulated_to(said)
            row = Encapsulation(binding, member.site, name, ciphertext)
            signature = member.sign(_LINK_TAG + encode(row, without="signature"))
            rows.append(encode(replace(row, signature=signature)))
        secrets.append(secret + kem)
    link = Link(tuple(rows))
    moved = replace(
        state,
        stage=Stage.ENCAPSULATED,
        private=b"",
        binding=binding,
        members=tuple(found),
        secrets=tuple(secrets),
        link=encode(link),
    )
    return moved, link


def linked(member: Member, state: SiteState, announcements: Sequence[bytes]) -> SiteState:
    """Makes the pair chains of an epoch without ML-KEM, and forgets the private key.

    Raises:
        WrongStage: The epoch is hybrid, and waits for encapsulations first.
        Verification: An announcement is not its site's own; see `checked_announcements`.
    """
    if state.hybrid:
        raise WrongStage("this site has no keys that wait for others: announce a new epoch")
    found = checked_announcements(member, state, announcements)
    secrets = [
        b"" if name == member.site else _secret_with(state, said) for name, said in found.items()
    ]
    return _with_chains(
        member,
        replace(
            state,
            members=tuple(found),
            binding=binding_of(announcements),
            secrets=tuple(secrets),
        ),
        _NO_KEMS,
    )


def linked_hybrid(member: Member, state: SiteState, encapsulations: Sequence[bytes]) -> SiteState:
    """Makes the pair chains of a hybrid epoch; a site whose encapsulation is missing gets none.

    Raises:
        Verification: An encapsulation is not from its sender, or not for this site and epoch.
    """
    kems: dict[str, bytes] = {}
    for body in encapsulations:
        row = decode(Encapsulation, body)
        stranger = row.sender not in state.members or not row.sender < member.site
        if stranger or row.receiver != member.site or row.binding != state.binding:
            raise Verification(f"an encapsulation of {row.sender!r} is not for this site and epoch")
        if row.sender in kems:
            raise Malformed(f"{row.sender} encapsulated twice")
        message = _LINK_TAG + encode(row, without="signature")
        member.verify(member.roster[row.sender], message, row.signature)
        kems[row.sender] = decapsulated(state.kem_seed, row.ciphertext)
    return _with_chains(member, state, kems)


def checked_announcements(
    member: Member, state: SiteState, bodies: Sequence[bytes]
) -> dict[str, Announcement]:
    """Announcements by site, sorted, each checked against the roster on this site's disk.

    Raises:
        Malformed: One does not parse, or a site stands twice or out of order.
        NotAMember: A site that the roster does not name.
        Verification: Another run, epoch or roster; a signature that its site did not make; this
            site's own announcement altered or missing.
    """
    check_roster(member, state)
    found: dict[str, Announcement] = {}
    for body in bodies:
        said = decode(Announcement, body)
        if said.site not in member.roster:
            raise NotAMember(f"{said.site[:80]!r} is no site of the roster that this site holds")
        if found and said.site <= max(found):
            raise Malformed(f"the announcement of {said.site} stands twice or out of order")
        _check_announcement(member, state, said)
        found[said.site] = said
    own = found.get(member.site)
    if own is None or encode(own) != state.announcement:
        raise Verification("this site's own announcement was altered or left out")
    return found


def binding_of(announcements: Sequence[bytes]) -> bytes:
    """What binds every key of an epoch to all announcements."""
    return digest("binding", *announcements)


def announcement_message(said: Announcement) -> bytes:
    """What a site signs of its announcement."""
    return _ANNOUNCE_TAG + encode(said, without="signature")


def check_roster(member: Member, state: SiteState) -> None:
    """Checks that an epoch's keys were checked against the roster that the site holds now.

    Raises:
        Verification: The roster changed since: somebody may have been revoked.
    """
    if state.roster_version != member.roster_version:
        raise Verification(
            f"keys of roster version {state.roster_version}; this site holds version "
            f"{member.roster_version}",
            hint="announce a new epoch",
        )


def _same_epoch(state: SiteState, request: AnnounceRequest) -> bool:
    mine = (state.epoch, state.first_round, state.roster_version, state.hybrid)
    asked = (request.epoch, request.first_round, request.roster_version, request.hybrid)
    return mine == asked


def _secret_with(state: SiteState, said: Announcement) -> bytes:
    try:
        return shared_secret(state.private, said.x25519)
    except Verification as error:
        raise Verification(f"the X25519 key of {said.site} gives no secret") from error


def _encapsulated_to(said: Announcement) -> tuple[bytes, bytes]:
    try:
        return encapsulated(said.mlkem)
    except Verification as error:
        raise Verification(f"the ML-KEM key of {said.site} does not hold") from error


def _check_request(member: Member, state: SiteState, request: AnnounceRequest) -> None:
    if request.federation != member.federation:
        raise Verification(f"a run of {request.federation!r}; this site is of {member.federation}")
    if request.roster_version != member.roster_version:
        raise Verification(
            f"a run over roster version {request.roster_version}; this site holds version "
            f"{member.roster_version}",
            hint="fetch the newest roster",
        )
    if request.hybrid not in {0, 1} or not request.run or request.first_round < 1:
        raise Malformed("a request for keys names no run, no first round or neither kind of keys")
    if state.run and state.run != request.run:
        raise Verification(f"keys for run {request.run[:80]!r} in the place of run {state.run!r}")
    if member.terms.hybrid and not request.hybrid:
        raise PolicyRefused(
            "this site sums with hybrid keys only", hint="run with hybrid keys: --hybrid"
        )


def _check_announcement(member: Member, state: SiteState, said: Announcement) -> None:
    place = (said.federation, said.run, said.epoch, said.first_round, said.roster_version)
    mine = (member.federation, state.run, state.epoch, state.first_round, state.roster_version)
    if place != mine:
        raise Verification(f"the announcement of {said.site} is of another run, epoch or roster")
    if len(said.mlkem) != (MLKEM_PUBLIC_BYTES if state.hybrid else 0):
        raise Verification(f"the announcement of {said.site} has the wrong kind of keys")
    message = announcement_message(said)
    try:
        member.verify(member.roster[said.site], message, said.signature)
    except Verification as error:
        raise Verification(f"{said.site} did not sign the keys that stand for it") from error


def _with_chains(member: Member, state: SiteState, kems: Mapping[str, bytes]) -> SiteState:
    chains = []
    for name, secret in zip(state.members, state.secrets, strict=True):
        dh, kem = secret[:KEY_BYTES], secret[KEY_BYTES:] or kems.get(name, b"")
        missing = name == member.site or (state.hybrid and not kem)
        lower, higher = sorted((name, member.site))
        chains.append(b"" if missing else first_chain(state.binding, dh, kem, (lower, higher)))
    return replace(
        state,
        stage=Stage.LINKED,
        private=b"",
        kem_seed=b"",
        secrets=(),
        link=b"",
        chains=tuple(chains),
        chain_round=state.first_round,
    )
