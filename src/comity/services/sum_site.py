"""A site's side of secure sums: the protocol's state machine behind the site's own gate.

Everything that leaves is a `Released`: keys, masked uploads, the one bit that a plan does not fit,
answers to reveals. The gate commits to the journal first, then the place is kept, then the message
leaves; so a site that was put back to an older place finds its journal ahead of it, and takes no
part until it announced new keys.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from comity.core.policy.rule import PartKind
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.messages import (
    AnnounceRequest,
    Invitation,
    LinkRequest,
    RevealRequest,
    RoundSpec,
)
from comity.core.secagg.site import ended, revealed, step
from comity.core.secagg.site_keys import ANNOUNCE_RANDOM_BYTES
from comity.core.secagg.site_state import Member, SiteState, Stage
from comity.core.secagg.site_upload import UPLOAD_RANDOM_BYTES, Contribution, MaskedUpload
from comity.errors import DataError, WrongStage
from comity.ports import Arrays, Exchange, KeptContribution, KeptSum, Rng, SealedUpload, SumStore
from comity.release import Released, Withheld
from comity.services.books import SumMark
from comity.services.door import Door
from comity.services.parts import Part, SumPlace

MAX_RUNS: Final = 64
"""Runs whose places a site holds in memory; others are read from where they are kept."""


@dataclass(slots=True)
class _Place:
    """Where a site stands in a run, and what it holds for the attempt that is open."""

    state: SiteState
    contribution: KeptContribution | None = None
    upload: SealedUpload | None = None
    received: bytes = b""

    def kept(self) -> KeptSum:
        return KeptSum(encode(self.state), self.contribution, self.upload)


@dataclass(slots=True)
class SummingSite:
    """One site's part in secure sums.

    Args:
        member: Who the site is, whom it trusts, its terms.
        door: Its gate.
        rng: Random bytes for keys, masks and shares.
        store: Where its places are kept.
    """

    member: Member
    door: Door
    rng: Rng
    store: SumStore
    _places: OrderedDict[str, _Place] = field(default_factory=OrderedDict)

    def announce(self, exchange: Exchange, body: bytes) -> Released[bytes]:
        """The site's signed keys of a new epoch.

        Raises:
            ProtocolError: The request does not parse or is an old one.
            RefusedError: The site's terms forbid it.
            UnavailableError: Journal or place cannot be written.
        """
        request = decode(AnnounceRequest, body)
        place = self._place(request.run)
        token = self.rng.token(ANNOUNCE_RANDOM_BYTES)
        state, said = step(self.member, place.state, request, token)
        return self._leave(exchange, _Place(state), (said, "announce"))

    def link(self, exchange: Exchange, run: str, body: bytes) -> Released[bytes]:
        """The site's encapsulations to others, in a hybrid epoch; raises as `announce` does."""
        place = self._place(run)
        state, said = step(self.member, place.state, decode(LinkRequest, body), b"")
        return self._leave(exchange, _Place(state), (said, "link"))

    def open(self, exchange: Exchange, body: bytes, received: bytes) -> bool:
        """Accepts an attempt before the app runs.

        Args:
            exchange: What is asked; its run names the place.
            body: The invitation.
            received: Digest of the message that the app would get, made by the site.

        Returns:
            Whether the app must run; else `repeat` gives what is kept, under the new attempt.

        Raises:
            ProtocolError: The invitation lies, or comes out of its turn.
            RefusedError: The plan breaks the site's terms.
        """
        place = self._place(exchange.run)
        invitation = decode(Invitation, body)
        if place.upload is not None and place.state.spec == invitation.spec:
            return False  # a repeated request: the stored bytes answer it
        state, _ = step(self.member, place.state, invitation, b"")
        kept = place.contribution
        spec = decode(RoundSpec, state.spec)
        if kept is not None and (kept.round_number, kept.received) != (spec.round_number, received):
            kept = None
        self._places[exchange.run] = _Place(state, kept, None, received)
        return kept is None

    def contribute(
        self, exchange: Exchange, parts: Sequence[Part]
    ) -> tuple[Released[SealedUpload | bytes], tuple[Withheld, ...]]:
        """Takes the app's reply through the gate and into the open attempt.

        Args:
            exchange: What is asked.
            parts: The reply; the reference of its arrays is what the update starts from.

        Returns:
            The upload, or the encoded `Unfit`; and what stays.

        Raises:
            WrongStage: No attempt is open.
            DataError: A NaN, arrays that are not the plan's, or no weight.
            RefusedError: The policy lets nothing be summed, or the budget is spent.
            UnavailableError: Journal or place cannot be written; nothing left.
        """
        place = self._opened(exchange.run)
        moved = _Place(place.state, received=place.received)

        def mask(given: Sequence[Part]) -> Part:
            reference = next((part.reference for part in given if part.reference is not None), None)
            moved.contribution = self._contribution(place, given)
            return self._masked(moved, reference, repeat=False)

        released, stayed = self.door.release_sum(exchange, parts, mask)
        self._keep(exchange.run, moved)
        return released, stayed

    def repeat(
        self, exchange: Exchange, reference: Arrays | None
    ) -> Released[SealedUpload | bytes]:
        """What was kept, again: the same bytes to the same request, else under fresh masks.

        Nothing is trained and nothing spent: the noise is that of the first time.

        Raises:
            WrongStage: Nothing is kept.
            UnavailableError: Journal or place cannot be written; nothing left.
        """
        place = self._opened(exchange.run)
        if place.upload is not None:
            part = _part(place.state, place.upload, "repeat")
            return self._release(exchange, part)
        if place.contribution is None:
            raise WrongStage("no contribution of this round is kept")
        moved = _Place(place.state, place.contribution, received=place.received)
        released = self._release(exchange, self._masked(moved, reference, repeat=True))
        self._keep(exchange.run, moved)
        return released

    def reveal(self, exchange: Exchange, body: bytes) -> Released[bytes]:
        """Answers the one reveal of a round; the contribution is then gone for good.

        Raises:
            ProtocolError: The request lies, or the round was revealed for other survivors.
            UnavailableError: Journal or place cannot be written; nothing left.
        """
        place = self._opened(exchange.run)
        state, answer = revealed(self.member, place.state, decode(RevealRequest, body))
        if state.stage != Stage.CLOSED:
            complaint = _part(state, encode(answer), "complaint")
            return self._release(exchange, complaint)
        return self._leave(exchange, _Place(state), (answer, "reveal"))

    def end(self, run: str) -> None:
        """Forgets the keys of a run that is over; where it stood stays known."""
        place = self._place(run)
        if place.state.stage != Stage.NEW:
            self._keep(run, _Place(ended(place.state)))

    # --- places -------------------------------------------------------------------------------

    def _place(self, run: str) -> _Place:
        place = self._places.get(run)
        if place is None:
            kept = self.store.load(run)
            place = _Place(SiteState(run=run))
            if kept is not None:
                place = _Place(decode(SiteState, kept.state), kept.contribution, kept.upload)
        mark = self.door.sum_mark(run)
        if _is_ahead(mark, place.state):
            # What was kept is older than the journal: take no part before new keys.
            place = _Place(
                SiteState(
                    run=run,
                    epoch=mark.epoch,
                    round_number=mark.round_number,
                    attempt=mark.attempt,
                    revealed=mark.revealed,
                )
            )
        return place

    def _opened(self, run: str) -> _Place:
        place = self._place(run)
        if place.state.stage < Stage.INVITED:
            raise WrongStage("this site takes no part in this run's sums yet")
        return place

    def _keep(self, run: str, place: _Place) -> None:
        self.store.keep(run, place.kept())
        self._places[run] = place
        self._places.move_to_end(run)
        while len(self._places) > MAX_RUNS:
            self._places.popitem(last=False)

    def _leave(self, exchange: Exchange, place: _Place, said: tuple[Any, str]) -> Released[bytes]:
        message, stage = said
        released = self._release(exchange, _part(place.state, encode(message), stage))
        self._keep(place.state.run, place)
        return released

    def _release(self, exchange: Exchange, part: Part) -> Released[Any]:
        (released,) = self.door.release(exchange, [part])
        if isinstance(released, Withheld):
            raise WrongStage(f"this site's gate keeps {part.name}: {released.reason}")
        return released

    def _masked(self, moved: _Place, reference: Arrays | None, *, repeat: bool) -> Part:
        kept = moved.contribution
        if kept is None:
            raise WrongStage("no contribution of this round is kept")
        given = Contribution(
            kept.arrays, reference, kept.weight, kept.metrics, kept.names, kept.received
        )
        token = self.rng.token(UPLOAD_RANDOM_BYTES)
        moved.state, answer = step(self.member, moved.state, given, token)
        if isinstance(answer, MaskedUpload):
            moved.upload = SealedUpload(encode(answer.upload), answer.vector)
            return _part(moved.state, moved.upload, "repeat" if repeat else "upload")
        return _part(moved.state, encode(answer), "unfit")  # type: ignore[arg-type]  # an Unfit

    def _contribution(self, place: _Place, given: Sequence[Part]) -> KeptContribution:
        spec = decode(RoundSpec, place.state.spec)
        arrays = _only(given, PartKind.ARRAYS)
        metrics = _only(given, PartKind.METRICS)
        values: Mapping[str, float] = metrics.value if metrics else {}
        if metrics and spec.weight_key not in values:
            raise DataError(
                f"the reply has no {spec.weight_key!r} among its metrics",
                hint=f"return the number of examples as {spec.weight_key}",
            )
        keys = [name for name in values if name != spec.weight_key]
        return KeptContribution(
            spec.round_number,
            place.received,
            arrays.value if arrays else {},
            float(values[spec.weight_key]) if metrics else 1.0,
            tuple(float(values[name]) for name in keys),
            (arrays.name if arrays else "", metrics.name if metrics else "", *keys),
        )


def _only(parts: Sequence[Part], kind: PartKind) -> Part | None:
    found = [part for part in parts if part.kind is kind]
    if len(found) > 1:
        raise DataError(
            f"the reply holds {len(found)} records of {kind.value}; a sum takes one",
            hint="return one record of arrays and one of metrics",
        )
    return found[0] if found else None


def _part(state: SiteState, value: SealedUpload | bytes, stage: str) -> Part:
    place = SumPlace(state.run, state.epoch, state.round_number, state.attempt, stage)
    return Part(PartKind.PROTOCOL, stage, value, place=place)


def _is_ahead(mark: SumMark, state: SiteState) -> bool:
    place = (state.epoch, state.round_number, state.attempt)
    return (mark.epoch, mark.round_number, mark.attempt) > place or mark.revealed > state.revealed
