"""What a site checks of a plan and of a reveal, each against its own terms and its own roster."""

from __future__ import annotations

from collections.abc import Sequence

from comity.core.secagg.codec import decode
from comity.core.secagg.messages import MAX_METRICS, RevealRequest, RoundSpec
from comity.core.secagg.quantize import MAX_EXPONENT, WEIGHT_STEPS, range_of
from comity.core.secagg.ring import RINGS, TAIL_BITS, limit
from comity.core.secagg.site_state import Member, SiteState
from comity.core.secagg.terms import check_threshold
from comity.errors import Malformed, NotAMember, PolicyRefused, Verification


def check_plan(member: Member, state: SiteState, spec: RoundSpec) -> None:
    """Checks a plan whose run, epoch, round and attempt are right.

    Raises:
        Malformed: Its cohort or tensors are no set, or a number is out of bounds.
        NotAMember: The cohort holds a site that this one shares no key with.
        CohortTooSmall: Too few sites for this site's terms.
        PolicyRefused: Threshold, ring, attempts, range, weight, skipped rounds or hybrid keys
            break the terms, a later attempt is finer than an earlier one, or too many plans of the
            run did not fit; names which.
    """
    if member.terms.hybrid and not state.hybrid:
        raise PolicyRefused("this site sums with hybrid keys only", hint="announce a new epoch")
    _check_cohort(member, state, spec.cohort)
    check_threshold(member.terms, len(member.roster), len(spec.cohort), spec.threshold)
    _check_numbers(member, spec)
    _check_bounds(member, state, spec)
    _check_coarser(state, spec)


def check_survivors(member: Member, spec: RoundSpec, request: RevealRequest) -> None:
    """Checks that a reveal could be for this site's upload.

    Raises:
        Malformed: The survivors are no sorted set, or the shares are not theirs.
        Verification: They are not of the cohort, too few, or this site is not among them.
    """
    survivors = request.survivors
    _check_sorted(survivors, "survivors")
    if request.receiver != member.site:
        raise Verification(f"a reveal for {request.receiver!r}, not for this site")
    if not set(survivors) <= set(spec.cohort):
        raise Verification("the survivors are not all of the cohort")
    if member.site not in survivors:
        raise Verification("this site uploaded, and is told that it dropped out")
    if len(survivors) < spec.threshold:
        raise Verification(
            f"{len(survivors)} survivors, fewer than the threshold of {spec.threshold}"
        )
    senders = tuple(name for name, _, _ in request.shares)
    if senders != tuple(name for name in survivors if name != member.site):
        raise Malformed("a reveal must bring the share of each survivor, in order")


def _check_cohort(member: Member, state: SiteState, cohort: Sequence[str]) -> None:
    _check_sorted(cohort, "cohort")
    if member.site not in cohort:
        raise Verification("the cohort does not hold this site")
    for name in cohort:
        if name != member.site and not state.chain(name):
            raise NotAMember(f"this site shares no key with {name[:80]!r} in this epoch")


def _check_sorted(names: Sequence[str], what: str) -> None:
    if list(names) != sorted(set(names)):
        raise Malformed(f"the {what} must be sorted, each site once")


def _check_numbers(member: Member, spec: RoundSpec) -> None:
    if spec.ring_bits not in RINGS:
        raise Malformed(f"a ring of {spec.ring_bits} bits")
    if spec.ring_bits not in member.terms.rings:
        raise PolicyRefused(f"a ring of {spec.ring_bits} bits; this site does not allow it")
    if spec.metric_slots > MAX_METRICS or spec.attempt < 1:
        raise Malformed("attempts count from 1, and metrics have a bound")
    names = [name for name, _, _ in spec.tensors]
    if len(set(names)) != len(names):
        raise Malformed("a tensor stands twice in the plan")
    if spec.max_weight & (spec.max_weight - 1):
        raise Malformed(f"a largest weight of {spec.max_weight}, which is no power of two")
    if any(abs(exponent) > MAX_EXPONENT for _, _, exponent in spec.tensors):
        raise Malformed("a tensor's exponent is out of bounds")
    if spec.clip_norm < 0:
        raise Malformed(f"clip_norm is {spec.clip_norm}")


def _check_bounds(member: Member, state: SiteState, spec: RoundSpec) -> None:
    terms = member.terms
    if state.unfits >= terms.max_unfits:
        # Refused before the app runs: to refuse only what does not fit would say that it does not.
        raise PolicyRefused(
            f"this site said {state.unfits} times in this run that a plan does not fit, and takes "
            "no further part in it",
            hint="begin a new run, with a larger range",
        )
    if spec.attempt > terms.max_attempts:
        raise PolicyRefused(f"attempt {spec.attempt}; this site allows {terms.max_attempts}")
    if spec.round_number - state.chain_round > terms.max_skipped_rounds:
        raise PolicyRefused(
            f"round {spec.round_number} skips more than {terms.max_skipped_rounds} rounds",
            hint="announce a new epoch",
        )
    if spec.weight_key != terms.weight_key:
        raise PolicyRefused(
            f"weighed by {spec.weight_key[:80]!r}; this site weighs by {terms.weight_key!r}"
        )
    if not 1 <= spec.max_weight <= terms.max_weight:
        raise PolicyRefused(
            f"a largest weight of {spec.max_weight}; this site allows {terms.max_weight}"
        )
    if len(spec.cohort) * spec.max_weight * WEIGHT_STEPS >= 2**TAIL_BITS:
        raise PolicyRefused(f"a largest weight of {spec.max_weight}: the sum of weights could wrap")
    _check_ranges(member, spec)


def _check_ranges(member: Member, spec: RoundSpec) -> None:
    terms, bound = member.terms, limit(spec.ring_bits, len(spec.cohort))
    for tensor in spec.plan():
        reach = range_of(tensor, bound)
        if reach < terms.smallest_range:
            raise PolicyRefused(
                f"tensor {tensor.name[:80]!r} is given a range of {reach:.3g}; the smallest that "
                f"this site allows is {terms.smallest_range:g}"
            )
        if spec.clip_norm > reach:
            raise PolicyRefused(
                f"tensor {tensor.name[:80]!r} has a range of {reach:.3g}, below the clip norm of "
                f"{spec.clip_norm:g}: a sum could wrap"
            )


def _check_coarser(state: SiteState, spec: RoundSpec) -> None:
    """Within a round a plan only gets coarser, all of it alike.

    Whether a contribution fits is one bit about it. With this, the attempts of a round are one
    search upwards; without, they would be a search for a single value. A range depends on ring and
    cohort too, so neither may make it smaller.
    """
    if not state.spec or spec.round_number != state.round_number:
        return
    before = decode(RoundSpec, state.spec)
    shifts = {old[2] - new[2] for old, new in zip(before.tensors, spec.tensors, strict=False)}
    same = [row[:2] for row in before.tensors] == [row[:2] for row in spec.tensors]
    if not same or len(shifts) > 1 or not _reaches_as_far(spec, before, max(shifts, default=0)):
        raise PolicyRefused(
            f"attempt {spec.attempt} of round {spec.round_number} is not the plan of the attempt "
            "before, or a coarser one throughout"
        )
    if spec.max_weight != before.max_weight or spec.clip_norm != before.clip_norm:
        raise PolicyRefused(
            f"attempt {spec.attempt} of round {spec.round_number} changes weight or clip norm"
        )


def _reaches_as_far(spec: RoundSpec, before: RoundSpec, shift: int) -> bool:
    """Whether a plan whose exponents are lower by `shift` gives no smaller range."""
    bound, earlier = (limit(one.ring_bits, len(one.cohort)) for one in (spec, before))
    return shift >= 0 and bound << shift >= earlier
