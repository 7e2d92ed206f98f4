"""A site's contribution to an open attempt: checked, quantised, masked, its secret shared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from comity.core.secagg import shamir
from comity.core.secagg.codec import decode
from comity.core.secagg.keys import (
    commitment,
    context_of,
    pair_commitment,
    pair_seed,
    share_key,
    tail_key,
    vector_key,
)
from comity.core.secagg.mask import RingVector, Stream, apply_streams
from comity.core.secagg.messages import MAX_LABEL_BYTES, RoundSpec, Unfit, Upload
from comity.core.secagg.quantize import (
    WEIGHT_STEPS,
    Arrays,
    Rounding,
    dimension,
    quantize,
    update_norm,
    weight_steps,
)
from comity.core.secagg.ring import SMALL_RING, limit, words
from comity.core.secagg.site_state import Member, SiteState, Stage
from comity.core.secagg.tail import Tail, checksums, encoded, weighted_metric
from comity.errors import DataError, Malformed, WrongStage

UPLOAD_RANDOM_BYTES: Final = shamir.SECRET_BYTES + shamir.SEED_BYTES + 32
_NONCE: Final = bytes(12)
_SUMMABLE: Final = "fiub"
_SEED_END: Final = shamir.SECRET_BYTES + shamir.SEED_BYTES


@dataclass(frozen=True, slots=True, repr=False)
class Contribution:
    """What a site sums, from its own side; it never leaves.

    Attributes:
        arrays: What the app gave, names and sizes as in the plan.
        reference: What it started from; None sums the values themselves.
        weight: How much it counts.
        metrics: Weighted metrics, in the order of `names`.
        names: The app's words for array record, metric record and metrics.
        received: Digest of the message that the site received, computed by the site, 32 bytes.
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


def contributed(
    member: Member, state: SiteState, given: Contribution, random: bytes
) -> tuple[SiteState, MaskedUpload | Unfit]:
    """Quantises, masks and shares; or says that the contribution does not fit the plan.

    Raises:
        WrongStage: No attempt is open.
        DataError: A NaN, an infinity, or arrays that differ from the plan's.
        Malformed: Not so many random bytes.
    """
    if state.stage != Stage.INVITED:
        raise WrongStage("no attempt waits for a contribution")
    if len(random) != UPLOAD_RANDOM_BYTES:
        raise Malformed(f"{len(random)} random bytes; an upload takes {UPLOAD_RANDOM_BYTES}")
    spec = decode(RoundSpec, state.spec)
    _check_shapes(spec, given)
    secret, seed = random[: shamir.SECRET_BYTES], random[shamir.SECRET_BYTES : _SEED_END]
    rounding = Rounding(random[_SEED_END:] if spec.ring_bits == SMALL_RING else None)
    vector: RingVector = np.empty(dimension(spec.plan()), words(spec.ring_bits))
    tail = _quantized(spec, given, rounding, vector)
    if tail is None:
        return _unfit(state, spec)
    context = context_of(state.spec, state.binding, given.received, given.names)
    shares = shamir.split(secret, spec.threshold, range(1, len(spec.cohort) + 1), seed)
    moved = replace(
        state,
        stage=Stage.UPLOADED,
        context=context,
        own_share=shares[spec.cohort.index(member.site)],
        names=given.names,
    )
    body = encoded(tail, spec.metric_slots)
    _mask(member, moved, spec, secret, (vector, body))
    rows = tuple(
        _row(member, moved, name, share) for name, share in zip(spec.cohort, shares, strict=True)
    )
    upload = Upload(
        context, body.astype("<u8").tobytes(), rows, commitment("secret", context, secret)
    )
    return moved, MaskedUpload(upload, vector)


def received_digest(arrays: Arrays) -> bytes:
    """A digest of arrays as they were received: names, dtypes, shapes and bytes."""
    hasher = hashlib.sha256(b"comity/secagg/v1/received")
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array)
        head = f"{name}\0{flat.dtype.str}\0{array.shape}".encode()
        hasher.update(len(head).to_bytes(8, "big") + head)
        hasher.update(flat.reshape(-1).view(np.uint8).data)
    return hasher.digest()


def _quantized(
    spec: RoundSpec, given: Contribution, rounding: Rounding, vector: RingVector
) -> Tail | None:
    """The tail, with the words in `vector`; None where they do not fit."""
    most = spec.max_weight * WEIGHT_STEPS
    steps = weight_steps(given.weight)
    # A weight above the largest is cut, and how many were is summed: to say "too small" would
    # tell the coordinator one site's count, bit by bit.
    steps, capped = min(steps, most), int(steps > most)
    factor, clipped = steps / most, 0
    if spec.clip_norm:
        norm = update_norm(given.arrays, given.reference)
        if norm > spec.clip_norm:
            factor, clipped = factor * spec.clip_norm / norm, 1
    bound = limit(spec.ring_bits, len(spec.cohort))
    values = (given.arrays, given.reference)
    if quantize(values, spec.plan(), factor, bound, rounding, vector) > bound:
        return None
    metrics = tuple(weighted_metric(value, steps, most) for value in given.metrics)
    return Tail(steps, capped, clipped, checksums(vector), metrics)


def _mask(
    member: Member,
    state: SiteState,
    spec: RoundSpec,
    secret: bytes,
    targets: tuple[RingVector, RingVector],
) -> None:
    peers = [name for name in spec.cohort if name != member.site]
    seeds = {name: pair_seed(state.chain(name), state.context) for name in peers}
    for target, key in zip(targets, (vector_key, tail_key), strict=True):
        streams = [
            Stream(key(seed, state.context), name > member.site) for name, seed in seeds.items()
        ]
        apply_streams(target, [*streams, Stream(key(secret, state.context))])


def _unfit(state: SiteState, spec: RoundSpec) -> tuple[SiteState, Unfit]:
    place = (spec.federation, spec.run, spec.epoch, spec.round_number, spec.attempt)
    return replace(state, stage=Stage.UNFIT, unfits=state.unfits + 1), Unfit(*place)


def _row(member: Member, state: SiteState, name: str, share: bytes) -> tuple[bytes, bytes, bytes]:
    context = state.context
    committed = commitment("share", context, member.site, name, share)
    if name == member.site:
        return b"", committed, b""
    chain, pair = state.chain(name), (member.site, name)
    sealed = AESGCM(share_key(chain, pair, context, committed)).encrypt(_NONCE, share, context)
    return sealed, committed, pair_commitment(context, pair, pair_seed(chain, context))


def _check_shapes(spec: RoundSpec, given: Contribution) -> None:
    _check_names(spec, given)
    plan = spec.plan()
    if list(given.arrays) != [tensor.name for tensor in plan]:
        raise DataError(
            "the reply does not name the arrays of the plan",
            hint="return the arrays that came in, under the same names, in the same order",
        )
    for tensor in plan:
        array = np.asarray(given.arrays[tensor.name])
        start = array if given.reference is None else given.reference.get(tensor.name)
        if start is None or array.size != tensor.size or np.shape(start) != array.shape:
            raise DataError(
                f"array {tensor.name} of shape {array.shape} is not what the plan sums",
                hint="return arrays of the shapes that came in",
            )
        if not {array.dtype.kind, np.asarray(start).dtype.kind} <= set(_SUMMABLE):
            raise DataError(
                f"array {tensor.name} of dtype {array.dtype} cannot be summed",
                hint="return real numbers",
            )


def _check_names(spec: RoundSpec, given: Contribution) -> None:
    if len(given.received) != hashlib.sha256().digest_size:
        raise Malformed("the digest of what was received is not 32 bytes")
    if len(given.metrics) > spec.metric_slots or len(given.names) != len(given.metrics) + 2:
        raise DataError(
            f"{len(given.metrics)} metrics under {len(given.names)} names; the plan has room for "
            f"{spec.metric_slots}",
            hint="return fewer metrics",
        )
    for name in given.names:
        if not name.isprintable() or len(name.encode()) > MAX_LABEL_BYTES:
            raise DataError(f"{name[:80]!r} is no name, or too long", hint="use plain, short names")
    if spec.names and given.names != spec.names:
        raise DataError(
            "the reply names other records or metrics than the replies of the rounds before",
            hint="return the same metrics in every round, whatever the data are",
        )
