"""Opening a sum: which masks to take off, and what the sum then says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comity.core.secagg import shamir
from comity.core.secagg.coordinator import is_enough
from comity.core.secagg.keys import commitment, tail_key, vector_key
from comity.core.secagg.mask import RingVector, Stream, apply_streams
from comity.core.secagg.quantize import WEIGHT_STEPS
from comity.core.secagg.sum_state import Cause, SumResult, SumState, Void
from comity.core.secagg.tail import (
    Tail,
    checks_hold,
    checksums,
    decoded,
    is_possible,
    mean_metrics,
    tail_words,
)
from comity.errors import Malformed, WrongStage


def unmasking(state: SumState) -> tuple[list[Stream], list[Stream]] | Void:
    """What must be taken off the vector and off the tail: self masks, and pairs of the dropped.

    Raises:
        WrongStage: There are not enough answers yet.
    """
    if not is_enough(state):
        raise WrongStage("too few reveals to open this sum")
    secrets = _secrets(state)
    if isinstance(secrets, Void):
        return secrets
    seeds = [(secret, True) for secret in secrets]
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
    tail = decoded(summed, len(names) - 2, len(state.survivors))
    possible = is_possible(summed, len(state.survivors), spec.max_weight * WEIGHT_STEPS)
    if not (possible and checks_hold(tail, checksums(total), spec.ring_bits)):
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
        capped=tail.capped,
        clipped=tail.clipped,
        survivors=state.survivors,
        dropped=state.dropped,
    )


def _secrets(state: SumState) -> list[bytes] | Void:
    """Each survivor's secret, from the first t answers; void where one is not as committed."""
    answering = [name for name in state.spec.cohort if name in state.reveals]
    chosen = answering[: state.spec.threshold]
    weighted = shamir.weights([state.spec.cohort.index(name) + 1 for name in chosen])
    shares = {name: dict(state.reveals[name].shares) for name in chosen}
    secrets, faulty = [], []
    for dealer in state.survivors:
        try:
            secret = shamir.combined([shares[name][dealer] for name in chosen], weighted)
        except Malformed:
            faulty.append(dealer)
            continue
        if commitment("secret", state.context, secret) != state.uploads[dealer].commitment:
            faulty.append(dealer)
        secrets.append(secret)
    return Void(Cause.DEALER, tuple(faulty)) if faulty else secrets
