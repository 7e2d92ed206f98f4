"""Unmasking a sum of masked vectors gives the sum; where it may not, the attempt is void by name.

Whoever drops out, whenever, in whatever order the others answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.fakes.sum_cohort import (
    COORDINATOR,
    Epoch,
    announced,
    drawn,
    site_names,
    spec_of,
    upload_random,
)

from comity.core.secagg import coordinator
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.mask import RingVector, Stream, apply_streams
from comity.core.secagg.messages import Invitation, Reveal, RoundSpec
from comity.core.secagg.quantize import Rounding, mean_arrays, quantize
from comity.core.secagg.ring import limit, words
from comity.core.secagg.site import invited, step
from comity.core.secagg.site_state import SiteState
from comity.core.secagg.site_upload import UPLOAD_RANDOM_BYTES, Contribution, MaskedUpload
from comity.core.secagg.sum_state import Cause, SumResult, SumState, Void
from comity.core.secagg.tail import checksums
from comity.core.secagg.unmask import finished, unmasking
from comity.errors import ComityError, DataError, Malformed, ProtocolError

RECEIVED = drawn(32, "model")
NAMES = ("arrays", "metrics", "loss", "accuracy")
EXPONENTS = {16: 6, 32: 18}
VALUES = st.floats(-8, 8, width=32)


@cache
def epoch_of(sites: int) -> Epoch:
    """An epoch whose sites are linked, each by a first round that nothing came of."""
    names = site_names(sites)
    epoch = announced(names)
    first = spec_of(names, ())
    states = {
        name: invited(epoch.members[name], epoch.states[name], epoch.invitation(name, first))
        for name in names
    }
    return replace(epoch, states=states)


@dataclass(frozen=True)
class Course:
    """One attempt: who gives what, who is lost when, and in what order the others answer."""

    spec: RoundSpec
    given: dict[str, Contribution]
    uploading: tuple[str, ...]
    revealing: tuple[str, ...]


@st.composite
def courses(draw: st.DrawFn, *, metrics: bool = True) -> Course:
    names = site_names(draw(st.integers(3, 9)))
    bits = draw(st.sampled_from([16, 32]))
    sizes = draw(st.lists(st.integers(0, 24), max_size=3).filter(lambda found: sum(found) <= 64))
    tensors = tuple((f"t{at}", size, EXPONENTS[bits]) for at, size in enumerate(sizes))
    seed = draw(st.integers(0, 2**32 - 1))
    weights = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 37.0, 1024.0]), min_size=9, max_size=9))
    numbers = st.floats(-1e6, 1e6) if metrics else st.just(0.0)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    common = np.random.default_rng(seed)
    start = {row: common.uniform(-4, 4, size).astype(dtype) for row, size, _ in tensors}
    reference = draw(st.sampled_from([None, start]))
    given_by = {}
    for at, name in enumerate(names):
        generator = np.random.default_rng([seed, at])
        arrays = {row: generator.uniform(-4, 4, size).astype(dtype) for row, size, _ in tensors}
        shown = (draw(numbers), draw(numbers))
        given_by[name] = Contribution(arrays, reference, weights[at], shown, NAMES, RECEIVED)
    gone = draw(st.sets(st.sampled_from(names), max_size=draw(st.integers(0, 3))))
    lost = draw(st.sets(st.sampled_from(names), max_size=draw(st.integers(0, 3))))
    left = [name for name in names if name not in gone]
    uploading = tuple(draw(st.permutations(left)))
    revealing = tuple(draw(st.permutations([name for name in left if name not in lost])))
    threshold = draw(st.sampled_from([0, 0, len(names)]))
    spec = spec_of(names, tensors, ring_bits=bits, round_number=2, threshold=threshold)
    return Course(spec, given_by, uploading, revealing)


def expected_void(course: Course) -> Void | None:
    """What the notes say of it."""
    cohort, threshold = course.spec.cohort, course.spec.threshold
    survivors = tuple(sorted(course.uploading))
    dropped = tuple(name for name in cohort if name not in survivors)
    if len(survivors) < threshold:
        return Void(Cause.TOO_FEW, dropped)
    silent = tuple(name for name in survivors if name not in course.revealing)
    if dropped and silent:
        return Void(Cause.MIXED, silent)
    if len(course.revealing) < threshold:
        return Void(Cause.TOO_FEW_REVEALS, silent)
    if not any(course.given[name].weight for name in survivors):
        return Void(Cause.NO_WEIGHT, survivors)
    return None


def uploads_of(course: Course) -> tuple[dict[str, SiteState], dict[str, MaskedUpload]]:
    epoch, states, uploads = epoch_of(len(course.spec.cohort)), {}, {}
    for name in course.uploading:
        member = epoch.members[name]
        state, answer = step(member, epoch.states[name], epoch.invitation(name, course.spec), b"")
        assert answer is None
        states[name], sent = step(member, state, course.given[name], upload_random(name))
        assert isinstance(sent, MaskedUpload)
        uploads[name] = sent
    return states, uploads


def run(course: Course) -> tuple[SumResult | Void, RingVector]:
    epoch = epoch_of(len(course.spec.cohort))
    states, uploads = uploads_of(course)
    binding = next(iter(epoch.states.values())).binding
    state, total = coordinator.opened(course.spec, binding, RECEIVED)
    for name, answer in uploads.items():
        state = coordinator.step(state, name, answer.upload, (answer.vector, total))
    closed = coordinator.closed(state)
    if isinstance(closed, Void):
        return closed, total
    requests = coordinator.reveal_requests(closed, COORDINATOR.sign)
    state = closed
    for name in course.revealing:
        states[name], shown = step(epoch.members[name], states[name], requests[name], b"")
        assert isinstance(shown, Reveal)
        state = coordinator.step(state, name, shown)
    if not coordinator.is_enough(state):
        return coordinator.unanswered(state, 0), total
    streams = unmasking(state)
    assert not isinstance(streams, Void)
    vector_streams, tail_streams = streams
    apply_streams(total, vector_streams)
    return finished(state, total, tail_streams), total


def plain_words(course: Course, name: str) -> RingVector:
    """A site's words without any mask."""
    spec, chance = course.spec, upload_random(name)[-32:]
    out: RingVector = np.zeros(sum(size for _, size, _ in spec.tensors), words(spec.ring_bits))
    rounding = Rounding(chance if spec.ring_bits == 16 else None)
    bound = limit(spec.ring_bits, len(spec.cohort))
    own = course.given[name]
    factor = own.weight / spec.max_weight
    quantize((own.arrays, own.reference), spec.plan(), factor, bound, rounding, out)
    return out


@settings(max_examples=100, deadline=None)
@given(courses())
def test_the_unmasked_sum_is_the_sum_or_the_attempt_is_void_by_name(course: Course) -> None:
    found, total = run(course)
    expected = expected_void(course)
    if expected is not None:
        assert found == expected
        return
    assert isinstance(found, SumResult)
    pieces = [plain_words(course, name) for name in course.uploading]
    assert np.array_equal(total, np.sum(pieces, axis=0, dtype=total.dtype))
    weights = [course.given[name].weight for name in course.uploading]
    assert (found.weight, found.clipped) == (math.fsum(weights), 0)
    assert found.share == math.fsum(weights) / course.spec.max_weight
    assert found.survivors == tuple(sorted(course.uploading))
    assert set(found.dropped) == set(course.spec.cohort) - set(course.uploading)
    assert found.names == NAMES


@settings(max_examples=40, deadline=None)
@given(courses())
def test_metrics_are_the_weighted_means_to_the_last_place(course: Course) -> None:
    found, _ = run(course)
    if isinstance(found, Void):
        return
    weights = [Fraction(course.given[name].weight) for name in course.uploading]
    for place, metric in enumerate(found.metrics):
        numbers = [Fraction(course.given[name].metrics[place]) for name in course.uploading]
        pairs = zip(weights, numbers, strict=True)
        exact = sum((weight * number for weight, number in pairs), Fraction(0)) / sum(weights)
        slack = len(weights) / (Fraction(found.share) * 2**64)
        rounding = Fraction(math.ulp(float(exact)))
        assert abs(Fraction(metric) - exact) <= slack + rounding


@settings(max_examples=40, deadline=None)
@given(courses(metrics=False))
def test_the_mean_is_the_weighted_mean_to_half_a_step_a_site(course: Course) -> None:
    found, total = run(course)
    if isinstance(found, Void):
        return
    plan = course.spec.plan()
    reference = next(iter(course.given.values())).reference
    means = mean_arrays(total, plan, found.share, reference)
    weights = np.array([course.given[name].weight for name in course.uploading])
    a_site = 0.5 if course.spec.ring_bits == 32 else 1.0
    for tensor in plan:
        held = np.array([course.given[name].arrays[tensor.name] for name in course.uploading])
        exact = (weights[:, None] * held).sum(axis=0) / weights.sum()
        bound = len(weights) * a_site / (found.share * 2.0**tensor.exponent)
        slack = 8 * float(np.finfo(held.dtype).eps)
        slack *= 8 * len(weights) * max(1.0, float(weights.max()) / float(weights.sum()))
        assert np.all(np.abs(means[tensor.name] - exact) <= bound * (1 + 1e-6) + slack)


@settings(max_examples=20, deadline=None)
@given(courses(), st.data())
def test_a_wrong_mask_never_passes_for_a_sum(course: Course, data: st.DataObject) -> None:
    found, total = run(course)
    if isinstance(found, Void) or total.size < 16:
        return
    other = Stream(data.draw(st.binary(min_size=32, max_size=32)))
    before = checksums(total)
    apply_streams(total, [other])
    assert checksums(total) != before


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True).map(sorted))
def test_a_site_that_was_not_sampled_comes_to_the_same_keys(rounds: list[int]) -> None:
    names = site_names(3)
    epoch = epoch_of(3)
    always, seldom = epoch.states[names[0]], epoch.states[names[1]]
    member, other = epoch.members[names[0]], epoch.members[names[1]]
    for number in range(1, rounds[-1] + 1):
        spec = spec_of(names, (), round_number=number, attempt=2)
        always = invited(member, always, epoch.invitation(names[0], spec))
        if number in rounds:
            seldom = invited(other, seldom, epoch.invitation(names[1], spec))
            assert always.chain(names[1]) == seldom.chain(names[0])
    assert always.chain(names[1]) != epoch.states[names[0]].chain(names[1]) or rounds[-1] == 1


def plain_course(sites: int, gone: int, lost: int) -> Course:
    names = site_names(sites)
    given_values = Contribution({"w": np.ones(16)}, None, 1.0, (0.0, 0.0), NAMES, RECEIVED)
    spec = spec_of(names, (("w", 16, 8),), round_number=2)
    uploading = names[gone:]
    return Course(spec, dict.fromkeys(names, given_values), uploading, uploading[lost:])


@pytest.mark.parametrize("sites", [3, 5, 8, 9])
@pytest.mark.parametrize("gone", [0, 1, 2, 3])
@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_every_mix_of_drop_outs_is_a_sum_or_void_by_name(sites: int, gone: int, lost: int) -> None:
    """Eight sites, one lost at each stage: as many answers as the threshold, and still void."""
    course = plain_course(sites, gone, lost)
    found, _ = run(course)
    expected = expected_void(course)
    assert isinstance(found, SumResult) if expected is None else found == expected


def revealed_sum() -> tuple[SumState, RingVector]:
    """Three sites' uploads and reveals, just before they are opened."""
    course = plain_course(3, 0, 0)
    states, uploads = uploads_of(course)
    epoch = epoch_of(3)
    state, total = coordinator.opened(course.spec, epoch.states["site-0000"].binding, RECEIVED)
    for name, answer in uploads.items():
        state = coordinator.step(state, name, answer.upload, (answer.vector, total))
    closed = coordinator.closed(state)
    assert isinstance(closed, SumState)
    for name, request in coordinator.reveal_requests(closed, COORDINATOR.sign).items():
        _, shown = step(epoch.members[name], states[name], request, b"")
        assert isinstance(shown, Reveal)
        closed = coordinator.step(closed, name, shown)
    return closed, total


def test_a_sum_that_one_altered_word_is_in_is_void_by_its_checksum() -> None:
    state, total = revealed_sum()
    streams = unmasking(state)
    assert not isinstance(streams, Void)
    vector_streams, tail_streams = streams
    apply_streams(total, vector_streams)
    assert isinstance(finished(state, total, tail_streams), SumResult)
    total[5] += 1
    assert finished(state, total, tail_streams) == Void(Cause.CHECKSUM)


def test_a_dealer_of_another_secret_than_it_committed_to_is_named() -> None:
    state, _ = revealed_sum()
    liar = replace(state.uploads["site-0001"], commitment=bytes(32))
    state = replace(state, uploads={**state.uploads, "site-0001": liar})
    assert unmasking(state) == Void(Cause.DEALER, ("site-0001",))


@pytest.mark.parametrize("size", [0, UPLOAD_RANDOM_BYTES - 1, UPLOAD_RANDOM_BYTES + 1])
def test_an_upload_takes_exactly_so_many_random_bytes(size: int) -> None:
    epoch, course = epoch_of(3), plain_course(3, 0, 0)
    name = course.spec.cohort[0]
    state = invited(epoch.members[name], epoch.states[name], epoch.invitation(name, course.spec))
    with pytest.raises(Malformed):
        step(epoch.members[name], state, course.given[name], bytes(size))


# --- masks are uniform -----------------------------------------------------------------------


def is_uniform(counts: NDArray[Any]) -> bool:
    """Chi-square within six standard deviations of its mean; keys are fixed, so never by chance."""
    expected = counts.sum() / counts.size
    assert expected >= 5
    statistic = float(((counts - expected) ** 2 / expected).sum())
    freedom = counts.size - 1
    return bool(abs(statistic - freedom) < 6 * math.sqrt(2 * freedom))


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("modulus", [2, 3, 5, 7, 11, 16, 64, 256])
def test_masks_are_uniform_over_residues_and_over_top_bits(bits: int, modulus: int) -> None:
    vector: Any = np.zeros(200_000, f"u{bits // 8}")
    apply_streams(
        vector, [Stream(drawn(32, "uniform", bits)), Stream(drawn(32, "two"), negative=True)]
    )
    low = np.bincount((vector % vector.dtype.type(modulus)).astype(np.int64), minlength=modulus)
    assert is_uniform(low)
    top = (vector >> vector.dtype.type(bits - 12)).astype(np.int64) * modulus >> 12
    if modulus & (modulus - 1) == 0:
        assert is_uniform(np.bincount(top, minlength=modulus))


def test_every_residue_of_the_small_ring_comes_up_as_often_the_top_one_too() -> None:
    vector = np.zeros(2**21, np.uint16)
    apply_streams(vector, [Stream(drawn(32, "every residue"))])
    counts = np.bincount(vector, minlength=2**16)
    assert is_uniform(counts)
    assert counts.min() > 0
    assert abs(int(counts[-1]) - 32) < 6 * math.sqrt(32)
    assert abs(int(counts[0]) - 32) < 6 * math.sqrt(32)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("value", [0.0, 7.5])
def test_an_upload_looks_uniform_whatever_it_holds(bits: int, value: float) -> None:
    names = site_names(3)
    epoch, size = epoch_of(3), 2**17
    spec = spec_of(names, (("w", size, EXPONENTS[bits]),), ring_bits=bits, round_number=2)
    given_values = Contribution(
        {"w": np.full(size, value)}, None, 1024.0, (0.0, 0.0), NAMES, RECEIVED
    )
    for name in names:
        state = invited(epoch.members[name], epoch.states[name], epoch.invitation(name, spec))
        _, answer = step(epoch.members[name], state, given_values, upload_random(name))
        assert isinstance(answer, MaskedUpload)
        assert is_uniform(np.bincount(answer.vector >> (bits - 8), minlength=256))
        assert is_uniform(np.bincount(answer.vector & 255, minlength=256))
        tail = np.frombuffer(answer.upload.tail, np.uint8)
        assert answer.vector.tobytes()[: tail.size] != tail.tobytes()


# --- nothing changes where something is refused ----------------------------------------------


@cache
def pool() -> tuple[dict[str, SiteState], list[tuple[str, Any, bytes]], SumState, RingVector]:
    """Messages of two attempts and two rounds, for sites and coordinator, right and wrong."""
    names = site_names(4)
    epoch = epoch_of(4)
    tensors = (("w", 3, 8),)
    messages: list[tuple[str, Any, bytes]] = []
    given_values = Contribution({"w": np.ones(3)}, None, 1.0, (0.0, 0.0), NAMES, RECEIVED)
    opened_at = None
    for number, attempt in ((2, 1), (2, 2), (3, 1), (5, 1)):
        spec = spec_of(names, tensors, round_number=number, attempt=attempt)
        course = Course(spec, dict.fromkeys(names, given_values), names[:3], names[:3])
        _, uploads = uploads_of(course)
        binding = epoch.states[names[0]].binding
        state, total = coordinator.opened(spec, binding, RECEIVED)
        opened_at = opened_at or (state, total.copy())
        for name, answer in uploads.items():
            state = coordinator.step(state, name, answer.upload, (answer.vector, total))
            messages.append((name, answer, b""))
        closed = coordinator.closed(state)
        assert isinstance(closed, SumState)
        requests = coordinator.reveal_requests(closed, COORDINATOR.sign)
        for name in names:
            messages.append((name, epoch.invitation(name, spec), b""))
            messages.append((name, given_values, upload_random(name, number, attempt)))
            if name in requests:
                messages.append((name, requests[name], b""))
    assert opened_at is not None
    return dict(epoch.states), messages, *opened_at


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_refused_message_changes_nothing_and_is_refused_by_name(data: st.DataObject) -> None:
    states, messages, sums, total = pool()
    states, total = dict(states), total.copy()
    members = epoch_of(4).members
    chosen = data.draw(st.lists(st.sampled_from(range(len(messages))), max_size=25))
    for place in chosen:
        name, message, random = messages[place]
        sender = data.draw(st.sampled_from([name, name, name, "site-0003", "stranger"]))
        site = sender if sender in states else name
        kept, sum_kept, total_kept = encode(states[site]), replace(sums), total.tobytes()
        try:
            if isinstance(message, MaskedUpload):
                vectors = (message.vector, total)
                sums = coordinator.step(sums, sender, message.upload, vectors)
            else:
                states[site], _ = step(members[site], states[site], message, random)
        except ComityError:
            assert encode(states[site]) == kept
            assert sums == sum_kept
            assert total.tobytes() == total_kept
        assert decode(SiteState, encode(states[site])) == states[site]


@cache
def events() -> list[Any]:
    """What can happen to one site of four: plans, its contributions, reveals of any survivors."""
    names, found = site_names(4), []
    epoch = epoch_of(4)
    given_values = Contribution({"w": np.ones(3)}, None, 1.0, (0.0, 0.0), NAMES, RECEIVED)
    for number, attempt in ((2, 1), (2, 2), (3, 1)):
        spec = spec_of(names, (("w", 3, 8),), round_number=number, attempt=attempt)
        found += [epoch.invitation(names[0], spec), given_values]
        for gone in ("", *names[1:]):
            uploading = tuple(name for name in names if name != gone)
            _, uploads = uploads_of(
                Course(spec, dict.fromkeys(names, given_values), uploading, uploading)
            )
            state, total = coordinator.opened(spec, epoch.states[names[0]].binding, RECEIVED)
            for name, answer in uploads.items():
                state = coordinator.step(state, name, answer.upload, (answer.vector, total))
            closed = coordinator.closed(state)
            assert isinstance(closed, SumState)
            found.append(coordinator.reveal_requests(closed, COORDINATOR.sign)[names[0]])
    return found


def test_no_order_of_events_brings_a_second_reveal_or_an_older_round() -> None:
    """Three hundred random orders; many of them come as far as the reveals of two rounds.

    Per round a site answers one request (the same again gets the same answer), so for each peer it
    gives a share or a seed, never both.
    """
    member, reached = epoch_of(4).members["site-0000"], 0
    generator = np.random.default_rng(4)
    for _ in range(300):
        state, given_to = epoch_of(4).states["site-0000"], set()
        answered: dict[int, tuple[bytes, Reveal]] = {}
        for place in generator.integers(0, len(events()), 40):
            message, before = events()[place], state
            random = upload_random("site-0000") if isinstance(message, Contribution) else b""
            try:
                state, answer = step(member, before, message, random)
            except ProtocolError:
                assert state is before
                continue
            except DataError:
                continue
            then, now = (before.round_number, before.attempt), (state.round_number, state.attempt)
            assert (
                now > then if isinstance(message, Invitation) and state != before else now >= then
            )
            if isinstance(answer, Reveal):
                first = answered.setdefault(state.round_number, (encode(message), answer))
                assert first == (encode(message), answer)
                peers = {name for name, _ in answer.shares} | {name for name, _ in answer.seeds}
                assert len(peers) == len(answer.shares) + len(answer.seeds) == 4
                given_to.add(state.round_number)
        reached += len(given_to) > 1
    assert reached > 50
