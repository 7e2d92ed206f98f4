"""The coordinator's side of a secure sum: a state machine that touches neither clock nor network.

The running sum is the caller's buffer: one vector, whatever the size of the cohort. A peer's
message that does not follow the protocol raises and changes neither state nor buffer; an attempt
that cannot be finished is a value, `Void`, because the run goes on with the next one. Which of two
sites that contradict each other came first decides nothing.

In order: `opened` -> `step` with each `Upload` or `Unfit` -> `closed` -> `reveal_requests` ->
`step` with each `Reveal` or `Complaint` until `is_enough` -> `unmask.unmasking` ->
`mask.apply_streams` -> `unmask.finished`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import assert_never

import numpy as np

from comity.core.secagg import shamir
from comity.core.secagg.codec import encode
from comity.core.secagg.keys import commitment, context_of, pair_commitment
from comity.core.secagg.mask import RingVector
from comity.core.secagg.messages import (
    MAX_METRICS,
    SEALED_SHARE_BYTES,
    Complaint,
    Reveal,
    RevealRequest,
    RoundSpec,
    Unfit,
    Upload,
    reveal_message,
)
from comity.core.secagg.quantize import dimension
from comity.core.secagg.ring import words
from comity.core.secagg.site_state import Sign
from comity.core.secagg.sum_state import Cause, Phase, SumState, Void
from comity.core.secagg.tail import tail_words
from comity.errors import Malformed, NotAMember, Replay, Verification, WrongStage


def opened(spec: RoundSpec, binding: bytes, received: bytes) -> tuple[SumState, RingVector]:
    """A new attempt, and the buffer that its sum will stand in."""
    state = SumState(spec, binding, received, body=encode(spec))
    return state, np.zeros(dimension(spec.plan()), words(spec.ring_bits))


def step(
    state: SumState,
    sender: str,
    message: Upload | Unfit | Reveal | Complaint,
    vectors: tuple[RingVector, RingVector] | None = None,
) -> SumState:
    """Takes one message of a site.

    Args:
        state: Where the attempt stands; never changed.
        sender: Whose message it is, as the transport authenticated it.
        message: The message.
        vectors: For an `Upload`: its masked vector, and the running sum that it is added to.

    Raises:
        NotAMember: The sender is not of the cohort.
        WrongStage: The message is out of its turn.
        Replay: The site sent its like before.
        Malformed: Lengths differ from the plan's.
        Verification: It contradicts its own commitments or those of the shares' dealers.
    """
    if sender not in state.spec.cohort:
        raise NotAMember(f"{sender[:80]!r} is not of this cohort")
    match message:
        case Upload():
            if vectors is None:
                raise Malformed("an upload without its vector")
            return _uploaded(state, sender, message, vectors)
        case Unfit():
            return _unfitted(state, sender, message)
        case Reveal():
            return _revealed(state, sender, message)
        case Complaint():
            return _complained(state, sender, message)
        case _:
            assert_never(message)


def closed(state: SumState) -> SumState | Void:
    """Ends collecting: who has not uploaded has dropped out."""
    if state.phase != Phase.COLLECTING:
        raise WrongStage("this attempt is closed already")
    if state.unfit:
        return Void(Cause.UNFIT, tuple(sorted(state.unfit)))
    contexts = Counter(upload.context for upload in state.uploads.values())
    if len(contexts) > 1 or state.conflicts:
        return Void(Cause.DISAGREE, _odd_ones_out(state, contexts))
    survivors = tuple(sorted(state.uploads))
    moved = replace(state, phase=Phase.REVEALING, survivors=survivors)
    if len(survivors) < state.spec.threshold:
        return Void(Cause.TOO_FEW, moved.dropped)
    return moved


def reveal_requests(state: SumState, sign: Sign) -> dict[str, RevealRequest]:
    """What each survivor is asked; the same however often it is called, so safe after a crash.

    The caller makes context and survivors durable before the first request leaves: asking again
    for other survivors is what the sites refuse.
    """
    if state.phase != Phase.REVEALING:
        raise WrongStage("this attempt still collects uploads")
    requests = {}
    for receiver in state.survivors:
        place = state.spec.cohort.index(receiver)
        shares = tuple(
            (name, *state.uploads[name].rows[place][:2])
            for name in state.survivors
            if name != receiver
        )
        request = RevealRequest(state.context, receiver, state.survivors, shares)
        requests[receiver] = replace(request, signature=sign(reveal_message(request)))
    return requests


def is_enough(state: SumState) -> bool:
    """Whether the answers so far open the sum: t of them, or all where sites dropped out."""
    needed = len(state.survivors) if state.dropped else state.spec.threshold
    return len(state.reveals) >= needed


def unanswered(state: SumState, colluding: int) -> Void:
    """What an attempt is whose reveal did not get enough answers.

    Args:
        state: The attempt.
        colluding: How many sites may lie: a dealer that more accuse is named, else the accusers.
    """
    accused = Counter(state.complaints.values())
    if accused:
        dealers = {name for name, count in accused.items() if count > colluding}
        accusers = {name for name, dealer in state.complaints.items() if dealer not in dealers}
        return Void(Cause.COMPLAINTS, tuple(sorted(dealers | accusers)))
    missing = tuple(name for name in state.survivors if name not in state.reveals)
    return Void(Cause.MIXED if state.dropped else Cause.TOO_FEW_REVEALS, missing)


def _uploaded(
    state: SumState, sender: str, upload: Upload, vectors: tuple[RingVector, RingVector]
) -> SumState:
    vector, total = vectors
    _check_first(state, sender)
    _check_lengths(state.spec, sender, upload)
    if (vector.shape, vector.dtype) != (total.shape, total.dtype):
        raise Malformed(f"the vector of {sender} is not of the plan's length and ring")
    np.add(total, vector, out=total)
    return replace(
        state,
        uploads=MappingProxyType({**state.uploads, sender: upload}),
        conflicts=(*state.conflicts, *_conflicts(state, sender, upload)),
    )


def _unfitted(state: SumState, sender: str, unfit: Unfit) -> SumState:
    spec = state.spec
    place = (unfit.federation, unfit.run, unfit.epoch, unfit.round_number, unfit.attempt)
    if place != (spec.federation, spec.run, spec.epoch, spec.round_number, spec.attempt):
        raise Verification(f"{sender} answers another attempt")
    _check_first(state, sender)
    return replace(state, unfit=state.unfit | {sender})


def _check_first(state: SumState, sender: str) -> None:
    if state.phase != Phase.COLLECTING:
        raise WrongStage(f"the answer of {sender} comes after the attempt was closed")
    if sender in state.uploads or sender in state.unfit:
        raise Replay(f"{sender} answered this attempt before")


def _revealed(state: SumState, sender: str, reveal: Reveal) -> SumState:
    _check_turn(state, sender, reveal.context)
    expected = context_of(state.body, state.binding, state.received, reveal.names)
    if expected != state.context or not 0 <= len(reveal.names) - 2 <= MAX_METRICS:
        raise Verification(f"{sender} says other names than it summed, or was sent another message")
    _check_shares(state, sender, reveal)
    _check_seeds(state, sender, reveal)
    return replace(state, reveals=MappingProxyType({**state.reveals, sender: reveal}))


def _complained(state: SumState, sender: str, complaint: Complaint) -> SumState:
    _check_turn(state, sender, complaint.context)
    if complaint.dealer not in state.survivors or complaint.dealer == sender:
        raise Malformed(f"{sender} complains of a share that it was not sent")
    complaints = {**state.complaints, sender: complaint.dealer}
    return replace(state, complaints=MappingProxyType(complaints))


def _check_turn(state: SumState, sender: str, context: bytes) -> None:
    if state.phase != Phase.REVEALING or sender not in state.survivors:
        raise WrongStage(f"no reveal is due from {sender}")
    if sender in state.reveals or sender in state.complaints:
        raise Replay(f"{sender} answered the reveal before")
    if context != state.context:
        raise Verification(f"{sender} answers the reveal of another attempt")


def _check_lengths(spec: RoundSpec, sender: str, upload: Upload) -> None:
    own = spec.cohort.index(sender)
    shares = [0 if place == own else SEALED_SHARE_BYTES for place in range(len(spec.cohort))]
    pairs = [0 if place == own else len(upload.context) for place in range(len(spec.cohort))]
    sent = ([len(row[0]) for row in upload.rows], [len(row[2]) for row in upload.rows])
    if sent != (shares, pairs):
        raise Malformed(f"the upload of {sender} does not bring one share for each other site")
    if len(upload.tail) != 8 * tail_words(spec.metric_slots):
        raise Malformed(f"the tail of {sender} has {len(upload.tail)} bytes")


def _conflicts(state: SumState, sender: str, upload: Upload) -> list[tuple[str, str]]:
    """Both sides of a pair commit to one seed: who derived another is seen before the reveal."""
    cohort = state.spec.cohort
    own = cohort.index(sender)
    return [
        (name, sender)
        for name, earlier in state.uploads.items()
        if earlier.context == upload.context
        and earlier.rows[own][2] != upload.rows[cohort.index(name)][2]
    ]


def _odd_ones_out(state: SumState, contexts: Counter[bytes]) -> tuple[str, ...]:
    """Who is not with the most, or in most conflicts; nobody where that is even."""
    (common, count), *others = contexts.most_common()
    if others and others[0][1] == count:
        return ()
    odd = {name for name, upload in state.uploads.items() if upload.context != common}
    degree = Counter(name for pair in state.conflicts for name in pair)
    most = max(degree.values(), default=0)
    return tuple(sorted(odd | {name for name, found in degree.items() if found == most}))


def _check_shares(state: SumState, sender: str, reveal: Reveal) -> None:
    if tuple(name for name, _ in reveal.shares) != state.survivors:
        raise Malformed(f"{sender} does not reveal one share of each survivor, in order")
    place = state.spec.cohort.index(sender)
    for name, share in reveal.shares:
        committed = commitment("share", state.context, name, sender, share)
        if committed != state.uploads[name].rows[place][1]:
            raise Verification(f"{sender} reveals another share of {name} than was dealt")
        try:
            shamir.share_number(share)
        except Malformed as error:
            raise Verification(f"{name} dealt what is no share to {sender}") from error


def _check_seeds(state: SumState, sender: str, reveal: Reveal) -> None:
    cohort = state.spec.cohort
    if tuple(name for name, _ in reveal.seeds) != state.dropped:
        raise Malformed(f"{sender} does not reveal one seed for each site that dropped, in order")
    for name, seed in reveal.seeds:
        committed = pair_commitment(state.context, (sender, name), seed)
        if committed != state.uploads[sender].rows[cohort.index(name)][2]:
            raise Verification(f"{sender} reveals another seed with {name} than it used")
