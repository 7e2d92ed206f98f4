"""A site's side of a secure sum: a state machine that touches neither file, clock nor network.

`step(member, state, message, random)` gives the next state and the answer, or raises and changes
nothing. The caller makes the new state durable *before* the answer leaves. In a round, in order:

1. Invitation: the site checks keys against its own roster and the plan against its own terms, and
   that (round, attempt) is above the last one it accepted. The coordinator's word decides nothing.
2. Contribution (from the site's own side): it is quantised, masked, and its self mask's secret
   shared. All keys come from the digest of plan, announcements, the message that *this site*
   received and the names that it sums: where sites were told different things, masks do not cancel
   and shares do not open.
3. RevealRequest: one a round. For each peer the site gives a share of its self mask or the pair's
   seed of this attempt, never both; then the pair chains step and the round's seeds are gone.

Not checked here: that the vector is an honest update, and limits by run and day (the gate's).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.core.secagg import shamir
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.keys import commitment, digest, next_chain, pair_seed, share_key
from comity.core.secagg.messages import (
    Announcement,
    AnnounceRequest,
    Complaint,
    Invitation,
    Link,
    LinkRequest,
    Reveal,
    RevealRequest,
    RoundSpec,
    Unfit,
    reveal_message,
)
from comity.core.secagg.site_keys import (
    announce,
    check_roster,
    encapsulate,
    linked,
    linked_hybrid,
)
from comity.core.secagg.site_plan import check_plan, check_survivors
from comity.core.secagg.site_state import Member, SiteState, Stage
from comity.core.secagg.site_upload import Contribution, MaskedUpload, contributed
from comity.errors import Malformed, Replay, Verification, WrongStage

_NONCE: Final = bytes(12)

Answer = Announcement | Link | MaskedUpload | Unfit | Reveal | Complaint | None
Incoming = AnnounceRequest | LinkRequest | Invitation | Contribution | RevealRequest


def step(
    member: Member, state: SiteState, message: Incoming, random: bytes
) -> tuple[SiteState, Answer]:
    """Takes one message.

    A function of its arguments, but for a `LinkRequest`: see `site_keys.encapsulate`.

    Args:
        member: Who the site is.
        state: Where it stands; never changed.
        message: From the coordinator, or the site's own `Contribution`.
        random: Uniform bytes, never used twice: `ANNOUNCE_RANDOM_BYTES` for an `AnnounceRequest`,
            `UPLOAD_RANDOM_BYTES` for a `Contribution`, else none.

    Returns:
        The next state, and the answer; an `Invitation` has none until the site contributes.

    Raises:
        ProtocolError: The message does not follow the protocol, or lies.
        RefusedError: The site's terms forbid it.
        DataError: The contribution holds a NaN or does not have the plan's arrays.
    """
    match message:
        case AnnounceRequest():
            return announce(member, state, message, random)
        case LinkRequest():
            return encapsulate(member, state, message)
        case Invitation():
            return invited(member, state, message), None
        case Contribution():
            return contributed(member, state, message, random)
        case RevealRequest():
            return revealed(member, state, message)
        case _:
            raise Malformed(f"a {type(message).__name__} is no message to a site")


def invited(member: Member, state: SiteState, invitation: Invitation) -> SiteState:
    """Accepts an attempt, after every check that can be made before the app runs.

    Raises:
        ProtocolError: Another run or epoch, keys of an older roster, a round or attempt that is not
            above the last one, a plan that does not parse, keys that their sites did not sign.
        RefusedError: The plan breaks the site's terms.
    """
    spec = decode(RoundSpec, invitation.spec)
    if state.stage == Stage.NEW:
        raise WrongStage("this site has announced no keys")
    check_roster(member, state)
    if state.stage == Stage.INVITED and state.spec == invitation.spec:
        return state
    if (spec.federation, spec.run, spec.epoch) != (member.federation, state.run, state.epoch):
        raise Verification(f"a plan of another run or epoch: {spec.run[:80]!r}, {spec.epoch}")
    if spec.round_number <= state.revealed or spec.round_number < state.first_round:
        raise WrongStage(f"round {spec.round_number} was revealed before, or is of an older epoch")
    if (spec.round_number, spec.attempt) <= (state.round_number, state.attempt):
        raise Replay(
            f"round {spec.round_number}, attempt {spec.attempt}, is not above round "
            f"{state.round_number}, attempt {state.attempt}"
        )
    if state.stage == Stage.ANNOUNCED:
        state = linked(member, state, invitation.announcements)
    elif state.stage == Stage.ENCAPSULATED:
        state = linked_hybrid(member, state, invitation.encapsulations)
    check_plan(member, state, spec)
    return replace(
        _stepped(state, spec.round_number),
        stage=Stage.INVITED,
        round_number=spec.round_number,
        attempt=spec.attempt,
        spec=invitation.spec,
        context=b"",
        own_share=b"",
        names=(),
        asked=b"",
        answer=b"",
    )


def revealed(
    member: Member, state: SiteState, request: RevealRequest
) -> tuple[SiteState, Reveal | Complaint]:
    """Answers the one reveal of a round, and forgets the round's keys.

    Where a share does not open, the answer is a complaint that names its dealer, and the round
    stays open: nothing was revealed.

    Raises:
        WrongStage: No upload of this site waits for a reveal under this context.
        Replay: The round was closed by another reveal.
        Verification: The coordinator did not sign it, or the survivors are not a set that this
            site could be one of.
    """
    asked = digest("reveal request", encode(request))
    if state.stage == Stage.CLOSED and request.context == state.context:
        if asked != state.asked:
            raise Replay("this round was revealed before, for other survivors")
        return state, decode(Reveal, state.answer)
    if state.stage != Stage.UPLOADED or request.context != state.context:
        raise WrongStage("no upload of this site waits for this reveal")
    member.verify(member.coordinator_key, reveal_message(request), request.signature)
    spec = decode(RoundSpec, state.spec)
    check_survivors(member, spec, request)
    shares = {member.site: state.own_share}
    for name, sealed, committed in request.shares:
        share = _opened(member, state, (name, sealed), committed)
        if share is None:
            return state, Complaint(state.context, name)
        shares[name] = share
    dropped = [name for name in spec.cohort if name not in request.survivors]
    answer = Reveal(
        state.context,
        tuple((name, shares[name]) for name in request.survivors),
        tuple((name, pair_seed(state.chain(name), state.context)) for name in dropped),
        state.names,
    )
    closed = replace(
        _stepped(state, spec.round_number + 1),
        stage=Stage.CLOSED,
        own_share=b"",
        revealed=spec.round_number,
        asked=asked,
        answer=encode(answer),
    )
    return closed, answer


def ended(state: SiteState) -> SiteState:
    """The state of a run that is over: where it stood, without any key."""
    return replace(
        state,
        stage=Stage.NEW,
        private=b"",
        kem_seed=b"",
        members=(),
        secrets=(),
        chains=(),
        own_share=b"",
        answer=b"",
    )


def _opened(
    member: Member, state: SiteState, given: tuple[str, bytes], committed: bytes
) -> bytes | None:
    """A share; None where it does not open, is not the one committed to, or is none."""
    name, sealed = given
    key = share_key(state.chain(name), (name, member.site), state.context, committed)
    try:
        share = AESGCM(key).decrypt(_NONCE, sealed, state.context)
        shamir.share_number(share)
    except (InvalidTag, Malformed):
        return None
    kept = commitment("share", state.context, name, member.site, share) == committed
    return share if kept else None


def _stepped(state: SiteState, to_round: int) -> SiteState:
    """The chains at `to_round`, each missed round stepped over."""
    chains = state.chains
    for number in range(state.chain_round, to_round):
        chains = tuple(next_chain(chain, number) if chain else b"" for chain in chains)
    return replace(state, chains=chains, chain_round=max(to_round, state.chain_round))
