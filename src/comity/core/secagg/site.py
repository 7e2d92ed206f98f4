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

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.core.secagg import shamir
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.keys import (
    digest,
    next_chain,
    pair_seed,
    share_key,
    tail_key,
    vector_key,
)
from comity.core.secagg.mask import RingVector, Stream, apply_streams
from comity.core.secagg.messages import (
    Announcement,
    AnnounceRequest,
    Invitation,
    Link,
    LinkRequest,
    Reason,
    Reveal,
    RevealRequest,
    RoundSpec,
    Unfit,
    Upload,
)
from comity.core.secagg.quantize import (
    WEIGHT_STEPS,
    Arrays,
    Rounding,
    dimension,
    quantize,
    update_norm,
    weight_steps,
)
from comity.core.secagg.ring import limit, words
from comity.core.secagg.site_keys import announce, encapsulate, linked, linked_hybrid
from comity.core.secagg.site_plan import check_plan, check_survivors
from comity.core.secagg.site_state import Member, SiteState, Stage
from comity.core.secagg.tail import Tail, checksums, encoded, weighted_metric
from comity.errors import DataError, Malformed, Replay, Verification, WrongStage

UPLOAD_RANDOM_BYTES: Final = shamir.SECRET_BYTES + shamir.SEED_BYTES + 32
_NONCE: Final = bytes(12)
_REVEAL_TAG: Final = b"comity/secagg/v1/reveal\0"


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a site sums, from its own side; it never leaves.

    Attributes:
        arrays: What the app gave, names and sizes as in the plan.
        reference: What it started from; None sums the values themselves.
        weight: How much it counts.
        metrics: Weighted metrics, in the order of `names`.
        names: The app's words for array record, metric record and metrics.
        received: Digest of the message that the site received, computed by the site.
    """

    arrays: Arrays
    reference: Arrays | None
    weight: float
    metrics: tuple[float, ...]
    names: tuple[str, ...]
    received: bytes


@dataclass(frozen=True, slots=True)
class MaskedUpload:
    """An upload with its vector, which travels beside it."""

    upload: Upload
    vector: RingVector


Answer = Announcement | Link | MaskedUpload | Unfit | Reveal | None
Incoming = AnnounceRequest | LinkRequest | Invitation | Contribution | RevealRequest


def step(
    member: Member, state: SiteState, message: Incoming, random: bytes
) -> tuple[SiteState, Answer]:
    """Takes one message.

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


def invited(member: Member, state: SiteState, invitation: Invitation) -> SiteState:
    """Accepts an attempt, after every check that can be made before the app runs.

    Raises:
        ProtocolError: Another run or epoch, a round or attempt that is not above the last one, a
            plan that does not parse, keys that their sites did not sign.
        RefusedError: The plan breaks the site's terms.
    """
    spec = decode(RoundSpec, invitation.spec)
    if state.stage == Stage.INVITED and state.spec == invitation.spec:
        return state
    if (spec.federation, spec.run, spec.epoch) != (member.federation, state.run, state.epoch):
        raise Verification(f"a plan of another run or epoch: {spec.run[:80]!r}, {spec.epoch}")
    if (spec.round_number, spec.attempt) <= (state.round_number, state.attempt):
        raise Replay(
            f"round {spec.round_number}, attempt {spec.attempt}, is not above round "
            f"{state.round_number}, attempt {state.attempt}"
        )
    if state.stage == Stage.ANNOUNCED:
        state = linked(member, state, invitation.announcements)
    elif state.stage == Stage.ENCAPSULATED:
        state = linked_hybrid(member, state, invitation.encapsulations)
    elif state.stage == Stage.NEW:
        raise WrongStage("this site has announced no keys")
    if spec.round_number < state.chain_round:
        raise WrongStage(f"this site answered the reveal of round {spec.round_number} before")
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


def contributed(
    member: Member, state: SiteState, given: Contribution, random: bytes
) -> tuple[SiteState, MaskedUpload | Unfit]:
    """Quantises, masks and shares; or says that the contribution does not fit the plan.

    Raises:
        WrongStage: No attempt is open.
        DataError: A NaN, an infinity, or arrays that differ from the plan's.
    """
    if state.stage != Stage.INVITED:
        raise WrongStage("no attempt waits for a contribution")
    if len(random) != UPLOAD_RANDOM_BYTES:
        raise Malformed(f"{len(random)} random bytes; an upload takes {UPLOAD_RANDOM_BYTES}")
    spec = decode(RoundSpec, state.spec)
    _check_shapes(spec, given)
    secret, seed = random[: shamir.SECRET_BYTES], random[shamir.SECRET_BYTES : -32]
    vector: RingVector = np.empty(dimension(spec.plan()), words(spec.ring_bits))
    tail = _quantized(spec, given, Rounding(random[-32:] if spec.ring_bits == 16 else None), vector)  # noqa: PLR2004 - docs: the small ring rounds by chance
    if not isinstance(tail, Tail):
        return state, _unfit(spec, tail)
    context = context_of(state.spec, state.binding, given.received, given.names)
    body = encoded(tail, spec.metric_slots)
    for target, label in ((vector, vector_key), (body, tail_key)):
        peers = [name for name in spec.cohort if name != member.site]
        streams = [
            Stream(label(pair_seed(state.chain(name), context), context), name > member.site)
            for name in peers
        ]
        apply_streams(target, [*streams, Stream(label(secret, context))])
    shares = shamir.split(secret, spec.threshold, range(1, len(spec.cohort) + 1), seed)
    rows = tuple(
        _row(member, state, (name, share), context)
        for name, share in zip(spec.cohort, shares, strict=True)
    )
    upload = Upload(
        context, body.astype("<u8").tobytes(), rows, commitment("secret", context, secret)
    )
    moved = replace(
        state,
        stage=Stage.UPLOADED,
        context=context,
        own_share=shares[spec.cohort.index(member.site)],
        names=given.names,
    )
    return moved, MaskedUpload(upload, vector)


def revealed(member: Member, state: SiteState, request: RevealRequest) -> tuple[SiteState, Reveal]:
    """Answers the one reveal of a round, and forgets the round's keys.

    Raises:
        WrongStage: No upload of this site waits for a reveal under this context.
        Replay: The round was closed by another reveal.
        Verification: The coordinator did not sign it, the survivors are not a set that this site
            could be one of, or a share does not open; names the sender.
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
        shares[name] = _opened(member, state, (name, sealed), committed)
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
        asked=asked,
        answer=encode(answer),
    )
    return closed, answer


def context_of(spec: bytes, binding: bytes, received: bytes, names: Sequence[str]) -> bytes:
    """What all keys of an attempt come from."""
    return digest("context", spec, binding, received, digest("names", *names))


def commitment(label: str, context: bytes, *parts: bytes | str) -> bytes:
    """A commitment to a uniform value: its digest, under context and place."""
    return digest(f"commit {label}", context, *parts)


def reveal_message(request: RevealRequest) -> bytes:
    """What the coordinator signs of a reveal request."""
    return _REVEAL_TAG + encode(request, without="signature")


def _quantized(
    spec: RoundSpec, given: Contribution, rounding: Rounding, vector: RingVector
) -> Tail | Reason:
    most = spec.max_weight * WEIGHT_STEPS
    steps = weight_steps(given.weight)
    if steps > most:
        return Reason.WEIGHT
    factor, clipped = steps / most, 0
    if spec.clip_norm:
        norm = update_norm(given.arrays, given.reference)
        if norm > spec.clip_norm:
            factor, clipped = factor * spec.clip_norm / norm, 1
    bound = limit(spec.ring_bits, len(spec.cohort))
    values = (given.arrays, given.reference)
    if quantize(values, spec.plan(), factor, bound, rounding, vector) > bound:
        return Reason.VALUES
    metrics = tuple(weighted_metric(value, steps, most) for value in given.metrics)
    return Tail(steps, clipped, checksums(vector), metrics)


def _unfit(spec: RoundSpec, reason: Reason) -> Unfit:
    place = (spec.federation, spec.run, spec.epoch, spec.round_number, spec.attempt)
    return Unfit(*place, int(reason))


def _row(
    member: Member, state: SiteState, given: tuple[str, bytes], context: bytes
) -> tuple[bytes, bytes, bytes]:
    name, share = given
    committed = commitment("share", context, member.site, name, share)
    if name == member.site:
        return b"", committed, b""
    chain = state.chain(name)
    cipher = AESGCM(share_key(chain, member.site, name, context))
    seed = pair_seed(chain, context)
    return (
        cipher.encrypt(_NONCE, share, context),
        committed,
        pair_commitment(context, (member.site, name), seed),
    )


def pair_commitment(context: bytes, pair: tuple[str, str], seed: bytes) -> bytes:
    """A commitment to a pair's seed, the same from both sides."""
    lower, higher = sorted(pair)
    return commitment("pair", context, lower, higher, seed)


def _opened(member: Member, state: SiteState, given: tuple[str, bytes], committed: bytes) -> bytes:
    name, sealed = given
    key = share_key(state.chain(name), name, member.site, state.context)
    try:
        share = AESGCM(key).decrypt(_NONCE, sealed, state.context)
    except InvalidTag as error:
        raise Verification(
            f"the share of {name} does not open: it was altered, or {name} was told of another "
            "model, cohort or plan, or sums other names"
        ) from error
    if commitment("share", state.context, name, member.site, share) != committed:
        raise Verification(f"the share of {name} is not the one that it committed to")
    return share


def _stepped(state: SiteState, to_round: int) -> SiteState:
    """The chains at `to_round`, each missed round stepped over."""
    chains = state.chains
    for number in range(state.chain_round, to_round):
        chains = tuple(next_chain(chain, number) if chain else b"" for chain in chains)
    return replace(state, chains=chains, chain_round=max(to_round, state.chain_round))


def _check_shapes(spec: RoundSpec, given: Contribution) -> None:
    plan = spec.plan()
    if list(given.arrays) != [tensor.name for tensor in plan]:
        raise DataError(
            "the reply does not name the arrays of the plan",
            hint="return the arrays that came in, under the same names, in the same order",
        )
    for tensor in plan:
        for arrays in (given.arrays, given.reference):
            if arrays is not None and arrays[tensor.name].size != tensor.size:
                raise DataError(
                    f"array {tensor.name} has {arrays[tensor.name].size} elements; the plan says "
                    f"{tensor.size}",
                    hint="return arrays of the shapes that came in",
                )
    if len(given.metrics) > spec.metric_slots:
        raise DataError(
            f"{len(given.metrics)} metrics; the plan has room for {spec.metric_slots}",
            hint="return fewer metrics",
        )


def received_digest(arrays: Arrays) -> bytes:
    """A digest of arrays as they were received: names, dtypes, shapes and bytes."""
    hasher = hashlib.sha256(b"comity/secagg/v1/received")
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array)
        head = f"{name}\0{flat.dtype.str}\0{flat.shape}".encode()
        hasher.update(len(head).to_bytes(8, "big") + head)
        hasher.update(flat.reshape(-1).view(np.uint8).data)
    return hasher.digest()
