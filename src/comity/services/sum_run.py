"""The coordinator's side of a run's secure sums, over any carrier of messages.

A round is one sum. Its attempts repeat the sites' stored contributions; where that is not possible
any more the next round trains afresh. What the coordinator learns of a round is one `Sum`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

import numpy as np

from comity.core.secagg.codec import code_of, decode, encode
from comity.core.secagg.coordinator import (
    closed,
    is_enough,
    opened,
    reveal_requests,
    step,
    unanswered,
)
from comity.core.secagg.mask import RingVector, Stream, apply_streams
from comity.core.secagg.messages import (
    Complaint,
    Invitation,
    Reveal,
    RoundSpec,
    Unfit,
    Upload,
)
from comity.core.secagg.quantize import mean_arrays
from comity.core.secagg.sum_state import Cause, SumResult, SumState, Void
from comity.core.secagg.terms import colluders
from comity.core.secagg.unmask import finished, unmasking
from comity.errors import (
    CohortTooSmall,
    Malformed,
    PolicyRefused,
    ProtocolError,
    RefusedError,
    UnavailableError,
)
from comity.events import AttemptVoid, EventSink, SumOpened, ignore
from comity.ids import RunId, SiteName
from comity.ports import Arrays, SealedUpload
from comity.services.enrol import Role, identity_keys
from comity.services.sum_epoch import Coordinator, Epoch, KeyCarrier
from comity.services.sum_plan import COARSER_BITS, Scales, SumSettings, first_scales, shifted

MAX_ROUNDS: Final = 3
"""Rounds that one sum may take: the first, and those that train afresh after it."""
_REPEATABLE: Final = frozenset({Cause.UNFIT, Cause.DISAGREE, Cause.TOO_FEW})

Unmask: TypeAlias = Callable[[RingVector, Sequence[Stream]], None]
"""Applies streams to a vector in place; `mask.apply_streams`, or the same over more processes."""


class Carrier(Protocol):
    """Carries the messages of one sum to sites and brings their answers, until its deadline.

    A site that does not answer is missing; what it answers instead is the carrier's to keep.
    """

    def announce(self, request: bytes) -> Mapping[str, bytes]:
        """Asks every site for keys."""

    def link(self, request: bytes) -> Mapping[str, bytes]:
        """Asks every site for its encapsulations."""

    def invite(
        self, invitations: Mapping[str, bytes]
    ) -> Iterator[tuple[str, SealedUpload | bytes]]:
        """Sends the app's message with an invitation; uploads as they arrive, by site."""

    def reveal(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Asks survivors for what opens the sum."""


@dataclass(frozen=True, slots=True)
class SumAsk:
    """What is to be summed.

    Attributes:
        message_type: What the app is asked.
        cohort: Whom.
        reference: The arrays that the sites start from; empty where only metrics are summed.
        received: Digest of the message that all of them are sent.
        sizes: Arrays to be summed as they are, by name and size, where there is no reference.
        exponent: The one power of two of all tensors, 0 for exact whole numbers; None follows
            what is expected of them.
    """

    message_type: str
    cohort: tuple[str, ...]
    reference: Arrays
    received: bytes
    sizes: Mapping[str, int] = field(default_factory=dict)
    exponent: int | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """What the coordinator learns.

    Attributes:
        arrays: The weighted mean.
        metrics: Weighted means by the app's names.
        weight: The sum of weights.
        result: The opened sum.
    """

    arrays: Arrays
    metrics: Mapping[str, float]
    weight: float
    result: SumResult


@dataclass(slots=True)
class _Attempt:
    """What one attempt came to: a sum, or why there is none."""

    spec: RoundSpec
    outcome: SumResult | Void
    total: RingVector
    answered: tuple[str, ...] = ()


@dataclass(slots=True)
class SumRun:
    """All secure sums of one run.

    Args:
        coordinator: Who asks, and the roster.
        run: The run.
        settings: What the run asks for.
        events: Told of each sum and each void attempt.
        unmask: How masks are taken off.
    """

    coordinator: Coordinator
    run: RunId
    settings: SumSettings = field(default_factory=SumSettings)
    events: EventSink = ignore
    unmask: Unmask = apply_streams
    _epoch: Epoch | None = None
    _round: int = 0
    _scales: dict[tuple[str, tuple[str, ...]], Scales] = field(default_factory=dict)

    def begin(self, carrier: KeyCarrier, *, anew: bool = False) -> Epoch:
        """Asks the sites for their keys: once a run, and `anew` where more sites have come."""
        if self._epoch is None or anew:
            hybrid = self.settings.hybrid
            place = (self._epoch.number + 1 if self._epoch else 1, self._round + 1)
            self._epoch = Epoch.begin(self.coordinator, self.run, place, carrier, hybrid=hybrid)
        return self._epoch

    def sum(self, ask: SumAsk, carrier: Carrier) -> Sum:
        """Sums what the sites contribute, without learning any single contribution.

        Raises:
            CohortTooSmall: Too few sites announced keys or uploaded, for any threshold.
            UnavailableError: No attempt gave a sum; names the last cause and its sites.
        """
        started = time.monotonic()
        epoch = self.begin(carrier)
        cohort = tuple(name for name in sorted(set(ask.cohort)) if name in epoch.sites)
        scales = self._scales_of(ask)
        attempt: _Attempt | None = None
        for _ in range(MAX_ROUNDS):
            self._round += 1
            attempt = self._round_of(replace(ask, cohort=cohort), scales, epoch, carrier)
            if isinstance(attempt.outcome, SumResult):
                if attempt.outcome.capped and scales.max_weight < scales.most_weight:
                    scales.widen()
                    self._void(attempt, Void(Cause.CAPPED))
                    continue
                return self._learned(ask, scales, attempt, started)
            left_out = set(attempt.outcome.sites)
            cohort = tuple(name for name in cohort if name not in left_out)
        cause = attempt.outcome if attempt else None
        named = ", ".join(cause.sites) if isinstance(cause, Void) else ""
        raise UnavailableError(
            f"no secure sum after {MAX_ROUNDS} rounds: "
            f"{cause.cause if isinstance(cause, Void) else 'weights were cut each time'}"
            + (f" ({named})" if named else ""),
            hint="see which sites dropped out, and start the run again",
        )

    def _round_of(self, ask: SumAsk, scales: Scales, epoch: Epoch, carrier: Carrier) -> _Attempt:
        cohort = ask.cohort
        exponents = scales.exponents(self.settings.ring_bits, max(len(cohort), 1))
        if ask.exponent is not None:
            exponents = [ask.exponent] * len(exponents)
        attempt = None
        for number in range(1, self.settings.terms.max_attempts + 1):
            threshold = self.settings.threshold(self._members, len(cohort))
            spec = self._spec(replace(ask, cohort=cohort), scales, number, (threshold, exponents))
            attempt = self._attempt(spec, ask, epoch, carrier)
            outcome = attempt.outcome
            if not isinstance(outcome, Void):
                return attempt
            self._void(attempt, outcome)
            if outcome.cause not in _REPEATABLE:
                return attempt
            if outcome.cause is Cause.UNFIT and ask.exponent is not None:
                raise PolicyRefused(
                    f"a number at {', '.join(outcome.sites)} is too large for an exact sum in a "
                    f"ring of {self.settings.ring_bits} bits"
                )
            if outcome.cause is Cause.UNFIT:
                exponents = shifted(exponents, self.settings.ring_bits)
                scales.coarser += COARSER_BITS[self.settings.ring_bits]
                cohort = attempt.answered
            else:
                cohort = tuple(name for name in attempt.answered if name not in outcome.sites)
        if attempt is None:
            raise CohortTooSmall("the settings allow no attempt", hint="raise max_attempts")
        return attempt

    def _attempt(self, spec: RoundSpec, ask: SumAsk, epoch: Epoch, carrier: Carrier) -> _Attempt:
        body = encode(spec)
        state, total = opened(spec, epoch.binding, ask.received)
        invitations = {
            name: encode(Invitation(body, *epoch.introduction(name))) for name in spec.cohort
        }
        state = self._collect(state, total, carrier.invite(invitations), epoch)
        answered = tuple(sorted({*state.uploads, *state.unfit}))
        kept = closed(state)
        if isinstance(kept, Void):
            return _Attempt(spec, kept, total, answered)
        return _Attempt(spec, self._opened(kept, total, carrier), total, answered)

    def _collect(
        self,
        state: SumState,
        total: RingVector,
        replies: Iterable[tuple[str, SealedUpload | bytes]],
        epoch: Epoch,
    ) -> SumState:
        for name, reply in replies:
            try:
                if isinstance(reply, SealedUpload):
                    upload = decode(Upload, reply.header)
                    state = step(state, name, upload, (reply.vector, total))
                else:
                    state = step(state, name, decode(Unfit, reply))
                epoch.linked.add(name)
            except (ProtocolError, RefusedError):
                continue  # as if it had not answered: closing names it among the dropped
        return state

    def _opened(self, state: SumState, total: RingVector, carrier: Carrier) -> SumResult | Void:
        requests = reveal_requests(state, self.coordinator.sign)
        bodies = {name: encode(request) for name, request in requests.items()}
        for name, body in carrier.reveal(bodies):
            try:
                state = step(state, name, _revealed(body))
            except (ProtocolError, RefusedError):
                continue
            if is_enough(state):
                break
        if not is_enough(state):
            return unanswered(state, colluders(self.settings.terms, self._members))
        streams = unmasking(state)
        if isinstance(streams, Void):
            return streams
        vector_streams, tail_streams = streams
        self.unmask(total, vector_streams)
        return finished(state, total, tail_streams)

    @property
    def _members(self) -> int:
        return len(identity_keys(self.coordinator.roster, Role.SITE))

    def _spec(
        self, ask: SumAsk, scales: Scales, attempt: int, plan: tuple[int, list[int]]
    ) -> RoundSpec:
        threshold, exponents = plan
        sizes = _sizes(ask)
        terms = self.settings.terms
        return RoundSpec(
            federation=self.coordinator.roster.federation,
            run=self.run,
            epoch=self._epoch.number if self._epoch else 0,
            round_number=self._round,
            attempt=attempt,
            message_type=ask.message_type,
            cohort=ask.cohort,
            threshold=threshold,
            ring_bits=self.settings.ring_bits,
            tensors=tuple(
                (name, size, exponent)
                for (name, size), exponent in zip(sizes.items(), exponents, strict=True)
            ),
            metric_slots=self.settings.metric_slots,
            weight_key=terms.weight_key,
            max_weight=scales.max_weight if ask.exponent is None else 1,
            clip_norm=self.settings.clip_norm,
            names=scales.names,
        )

    def _scales_of(self, ask: SumAsk) -> Scales:
        key = (ask.message_type, tuple(_sizes(ask)))
        if key not in self._scales:
            magnitudes = [
                float(np.max(np.abs(ask.reference[name]), initial=0.0))
                if name in ask.reference
                else 1.0
                for name in _sizes(ask)
            ]
            self._scales[key] = first_scales(magnitudes, self.settings)
        return self._scales[key]

    def _learned(self, ask: SumAsk, scales: Scales, attempt: _Attempt, started_s: float) -> Sum:
        result = attempt.outcome
        if isinstance(result, Void):
            raise Malformed("a void attempt has no sum")
        if ask.exponent is None:
            scales.learn(attempt.spec, attempt.total, result)
        reference = ask.reference or None
        arrays = mean_arrays(attempt.total, attempt.spec.plan(), result.share, reference)
        metrics = dict(zip(result.names[2:], result.metrics, strict=True))
        self.events(
            SumOpened(
                self.run,
                attempt.spec.round_number,
                attempt.spec.message_type,
                len(result.survivors),
                len(result.dropped),
                attempt.spec.attempt,
                result.capped,
                time.monotonic() - started_s,
            )
        )
        return Sum(arrays, metrics, result.weight, result)

    def _void(self, attempt: _Attempt, void: Void) -> None:
        spec = attempt.spec
        sites = tuple(SiteName(name) for name in void.sites)
        self.events(AttemptVoid(self.run, spec.round_number, spec.attempt, void.cause, sites))


def _sizes(ask: SumAsk) -> dict[str, int]:
    return {name: int(array.size) for name, array in ask.reference.items()} or dict(ask.sizes)


def _revealed(body: bytes) -> Reveal | Complaint:
    if code_of(body) == Complaint.CODE:
        return decode(Complaint, body)
    return decode(Reveal, body)
