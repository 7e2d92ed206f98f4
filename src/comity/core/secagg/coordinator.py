"""The coordinator's side of a secure sum: a state machine that touches neither clock nor network.

The running sum is the caller's buffer: one vector, whatever the size of the cohort. A peer's
message that does not follow the protocol raises and changes neither state nor buffer; an attempt
that cannot be finished is a value, `Void`, because the run goes on with the next one.

In order: `opened` -> `step` with each `Upload` or `Unfit` -> `closed` -> `reveal_requests` ->
`step` with each `Reveal` until `is_enough` -> `unmasking` -> `apply_streams` -> `finished`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.core.secagg import shamir
from comity.core.secagg.codec import encode
from comity.core.secagg.keys import tail_key, vector_key
from comity.core.secagg.mask import RingVector, Stream, apply_streams
from comity.core.secagg.messages import (
    SEALED_SHARE_BYTES,
    Reason,
    Reveal,
    RevealRequest,
    RoundSpec,
    Unfit,
    Upload,
)
from comity.core.secagg.quantize import WEIGHT_STEPS, dimension
from comity.core.secagg.ring import words
from comity.core.secagg.site import commitment, context_of, pair_commitment, reveal_message
from comity.core.secagg.site_state import Sign
from comity.core.secagg.tail import (
    Tail,
    checks_hold,
    checksums,
    decoded,
    mean_metrics,
    tail_words,
)
from comity.errors import Malformed, NotAMember, Replay, Verification, WrongStage

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Phase(IntEnum):
    """Where an attempt stands."""

    COLLECTING = 0
    REVEALING = 1


class Cause(StrEnum):
    """Why an attempt is void."""

    UNFIT = "a contribution did not fit the plan"
    TOO_FEW = "too few sites uploaded"
    MIXED = "sites dropped out before their upload, and others before their reveal"
    TOO_FEW_REVEALS = "too few sites answered the reveal"
    CHECKSUM = "the sum does not match its checksum"
    NO_WEIGHT = "no contribution has a weight above 0"


@dataclass(frozen=True, slots=True)
class Void:
    """An attempt that gives no sum; nothing of it can be learned.

    Attributes:
        cause: Why.
        sites: Who is named for it.
        reasons: Where contributions did not fit: what was too small.
    """

    cause: Cause
    sites: tuple[str, ...] = ()
    reasons: frozenset[Reason] = frozenset()


@dataclass(frozen=True, slots=True)
class SumState:
    """Where one attempt stands at the coordinator.

    Attributes:
        spec: The plan.
        binding: Digest of the epoch's announcements.
        received: Digest of the message that every site was sent.
        phase: What may come next.
        context: What the first upload was made for; all others must be for the same.
        uploads: By site.
        unfit: What was too small, by site.
        survivors: Whose uploads are summed, sorted; empty while collecting.
        reveals: By site.
    """

    spec: RoundSpec
    binding: bytes
    received: bytes
    phase: Phase = Phase.COLLECTING
    context: bytes = b""
    uploads: Mapping[str, Upload] = field(default_factory=lambda: _NOTHING)
    unfit: Mapping[str, Reason] = field(default_factory=lambda: _NOTHING)
    survivors: tuple[str, ...] = ()
    reveals: Mapping[str, Reveal] = field(default_factory=lambda: _NOTHING)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The sites of the cohort whose uploads are not summed."""
        return tuple(name for name in self.spec.cohort if name not in self.survivors)


@dataclass(frozen=True, slots=True)
class SumResult:
    """A sum that was opened, and nothing else.

    Attributes:
        weight: Sum of the weights.
        share: Sum of the sites' shares of the largest weight: what a mean divides by.
        metrics: The weighted mean of each metric.
        names: What was summed, in the app's words.
        clipped: How many updates were clipped.
        survivors: Whose contributions are in it.
        dropped: Who of the cohort is not.
    """

    weight: float
    share: float
    metrics: tuple[float, ...]
    names: tuple[str, ...]
    clipped: int
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]


def opened(spec: RoundSpec, binding: bytes, received: bytes) -> tuple[SumState, RingVector]:
    """A new attempt, and the buffer that its sum will stand in."""
    return SumState(spec, binding, received), np.zeros(
        dimension(spec.plan()), words(spec.ring_bits)
    )


def step(
    state: SumState,
    sender: str,
    message: Upload | Unfit | Reveal,
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
        Verification: It contradicts other sites' messages or its own commitments; names who.
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


def closed(state: SumState) -> SumState | Void:
    """Ends collecting: who has not uploaded has dropped out."""
    if state.phase != Phase.COLLECTING:
        raise WrongStage("this attempt is closed already")
    if state.unfit:
        return Void(Cause.UNFIT, tuple(sorted(state.unfit)), frozenset(state.unfit.values()))
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


def unanswered(state: SumState) -> Void:
    """What an attempt is whose reveal did not get enough answers."""
    missing = tuple(name for name in state.survivors if name not in state.reveals)
    return Void(Cause.MIXED if state.dropped else Cause.TOO_FEW_REVEALS, missing)


def unmasking(state: SumState) -> tuple[list[Stream], list[Stream]]:
    """What must be taken off the vector and off the tail: self masks, and pairs of the dropped.

    Raises:
        WrongStage: There are not enough answers yet.
        Verification: A site shared another secret than it committed to; names it.
    """
    if not is_enough(state):
        raise WrongStage("too few reveals to open this sum")
    seeds = [(secret, True) for secret in _secrets(state)]
    for name, reveal in state.reveals.items():
        seeds += [(seed, peer < name) for peer, seed in reveal.seeds]
    vector, tail = [], []
    for seed, subtract in seeds:
        vector.append(Stream(vector_key(seed, state.context), subtract))
        tail.append(Stream(tail_key(seed, state.context), subtract))
    return vector, tail


def finished(state: SumState, total: RingVector, tail_streams: list[Stream]) -> SumResult | Void:
    """Reads the tail and checks the sum.

    Args:
        state: An attempt with enough answers.
        total: The sum, unmasked with the first of `unmasking`'s lists.
        tail_streams: The second.
    """
    spec = state.spec
    summed: NDArray[np.uint64] = np.zeros(tail_words(spec.metric_slots), np.uint64)
    for name in state.survivors:
        summed += np.frombuffer(state.uploads[name].tail, "<u8")
    apply_streams(summed, tail_streams)
    names = next(iter(state.reveals.values())).names
    tail = decoded(summed, max(0, len(names) - 2), len(state.survivors))
    if not checks_hold(tail, checksums(total), spec.ring_bits):
        return Void(Cause.CHECKSUM)
    if not tail.weight_steps:
        return Void(Cause.NO_WEIGHT, state.survivors)
    return _result(state, tail, names)


def _result(state: SumState, tail: Tail, names: tuple[str, ...]) -> SumResult:
    most = state.spec.max_weight * WEIGHT_STEPS
    return SumResult(
        weight=tail.weight_steps / WEIGHT_STEPS,
        share=tail.weight_steps / most,
        metrics=tuple(mean_metrics(tail, most)),
        names=names,
        clipped=tail.clipped,
        survivors=state.survivors,
        dropped=state.dropped,
    )


def _uploaded(
    state: SumState, sender: str, upload: Upload, vectors: tuple[RingVector, RingVector]
) -> SumState:
    vector, total = vectors
    if state.phase != Phase.COLLECTING:
        raise WrongStage(f"the upload of {sender} comes after the attempt was closed")
    if sender in state.uploads or sender in state.unfit:
        raise Replay(f"{sender} answered this attempt before")
    _check_lengths(state.spec, sender, upload)
    if (vector.shape, vector.dtype) != (total.shape, total.dtype):
        raise Malformed(f"the vector of {sender} is not of the plan's length and ring")
    if state.context and upload.context != state.context:
        raise Verification(
            f"{sender} uploaded for another context than {', '.join(state.uploads)}: it was told "
            "of another model, cohort or plan, or sums other names"
        )
    _check_pairs(state, sender, upload)
    np.add(total, vector, out=total)
    uploads = MappingProxyType({**state.uploads, sender: upload})
    return replace(state, context=upload.context, uploads=uploads)


def _unfitted(state: SumState, sender: str, unfit: Unfit) -> SumState:
    spec = state.spec
    place = (unfit.federation, unfit.run, unfit.epoch, unfit.round_number, unfit.attempt)
    if place != (spec.federation, spec.run, spec.epoch, spec.round_number, spec.attempt):
        raise Verification(f"{sender} answers another attempt")
    if state.phase != Phase.COLLECTING:
        raise WrongStage(f"the answer of {sender} comes after the attempt was closed")
    if sender in state.uploads or sender in state.unfit:
        raise Replay(f"{sender} answered this attempt before")
    try:
        reason = Reason(unfit.reason)
    except ValueError as error:
        raise Malformed(f"{sender} gives a reason that is none") from error
    return replace(state, unfit=MappingProxyType({**state.unfit, sender: reason}))


def _revealed(state: SumState, sender: str, reveal: Reveal) -> SumState:
    if state.phase != Phase.REVEALING or sender not in state.survivors:
        raise WrongStage(f"no reveal is due from {sender}")
    if sender in state.reveals:
        raise Replay(f"{sender} revealed before")
    if reveal.context != state.context:
        raise Verification(f"{sender} reveals another attempt")
    expected = context_of(encode(state.spec), state.binding, state.received, reveal.names)
    if expected != state.context:
        raise Verification(f"{sender} says other names than it summed, or was sent another message")
    _check_shares(state, sender, reveal)
    _check_seeds(state, sender, reveal)
    return replace(state, reveals=MappingProxyType({**state.reveals, sender: reveal}))


def _check_lengths(spec: RoundSpec, sender: str, upload: Upload) -> None:
    sealed = [len(row[0]) for row in upload.rows]
    own = spec.cohort.index(sender)
    expected = [0 if place == own else SEALED_SHARE_BYTES for place in range(len(spec.cohort))]
    pairs = [len(row[2]) for row in upload.rows]
    wanted = [0 if place == own else len(upload.context) for place in range(len(spec.cohort))]
    if sealed != expected or pairs != wanted:
        raise Malformed(f"the upload of {sender} does not bring one share for each other site")
    if len(upload.tail) != 8 * tail_words(spec.metric_slots):
        raise Malformed(f"the tail of {sender} has {len(upload.tail)} bytes")


def _check_pairs(state: SumState, sender: str, upload: Upload) -> None:
    """Both sides of a pair commit to one seed: who derived another is seen before the reveal."""
    cohort = state.spec.cohort
    own = cohort.index(sender)
    others = [
        name
        for name, earlier in state.uploads.items()
        if earlier.rows[own][2] != upload.rows[cohort.index(name)][2]
    ]
    if others:
        raise Verification(f"{sender} and {', '.join(others)} hold different keys of their pair")


def _check_shares(state: SumState, sender: str, reveal: Reveal) -> None:
    if tuple(name for name, _ in reveal.shares) != state.survivors:
        raise Malformed(f"{sender} does not reveal one share of each survivor, in order")
    place = state.spec.cohort.index(sender)
    for name, share in reveal.shares:
        shamir.share_number(share)
        committed = commitment("share", state.context, name, sender, share)
        if committed != state.uploads[name].rows[place][1]:
            raise Verification(f"{sender} reveals another share of {name} than was dealt")


def _check_seeds(state: SumState, sender: str, reveal: Reveal) -> None:
    cohort = state.spec.cohort
    if tuple(name for name, _ in reveal.seeds) != state.dropped:
        raise Malformed(f"{sender} does not reveal one seed for each site that dropped, in order")
    for name, seed in reveal.seeds:
        committed = pair_commitment(state.context, (sender, name), seed)
        if committed != state.uploads[sender].rows[cohort.index(name)][2]:
            raise Verification(f"{sender} reveals another seed with {name} than it used")


def _secrets(state: SumState) -> list[bytes]:
    answering = [name for name in state.spec.cohort if name in state.reveals]
    chosen = answering[: state.spec.threshold]
    weighted = shamir.weights([state.spec.cohort.index(name) + 1 for name in chosen])
    shares = {name: dict(state.reveals[name].shares) for name in chosen}
    secrets = []
    for dealer in state.survivors:
        secret = shamir.combined([shares[name][dealer] for name in chosen], weighted)
        if commitment("secret", state.context, secret) != state.uploads[dealer].commitment:
            raise Verification(f"{dealer} shared another secret than it committed to")
        secrets.append(secret)
    return secrets


def odd_ones_out(contexts: Mapping[str, bytes]) -> tuple[str, ...]:
    """The sites whose context is not the one that most have; who to leave out of the next try."""
    counted = Counter(contexts.values())
    if len(counted) < 2:  # noqa: PLR2004 - one context: nobody is odd
        return ()
    (common, _), *_ = counted.most_common()
    return tuple(sorted(name for name, context in contexts.items() if context != common))
