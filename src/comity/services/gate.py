"""The gate: the one way out of a site.

    decide (site policy) -> spend (ledger) -> protect (clip, noise, redact) -> record (audit chain)
        -> Released

Spend and record are entries of one transaction for all parts of an exchange, and a `Released` is
made after its commit, so a crash between any two steps never under-counts. A refusal is a
`Withheld`, whose reason depends on who asked for what, never on a value or on what matched.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from comity.core.chain.canonical import encode
from comity.core.policy.decide import policy_record, protections_off
from comity.core.policy.rule import SitePolicy
from comity.core.privacy.event import Plan
from comity.core.privacy.ledger import Freed
from comity.errors import (
    ComityError,
    DataError,
    Malformed,
    PolicyRefused,
    RefusedError,
    Replay,
    WrongStage,
)
from comity.events import EventSink, JournalStarted, PlanReserved, ignore
from comity.ids import DatasetName, ReservationId
from comity.ports import Exchange, SignedHead
from comity.release import Released, Withheld, claim_seal
from comity.services.books import EXCHANGE, POLICY, Answered, SumMark, parts_of, record_body
from comity.services.custody import Custody, Note, salted_note
from comity.services.door import (
    Door,
    GateLimits,
    GateParts,
    Mask,
    SiteIdentity,
    check_count,
    check_names,
    check_sums,
)
from comity.services.ledger import (
    Admission,
    BudgetState,
    budget_of,
    budget_state,
    budget_story,
    reserved,
)
from comity.services.parts import (
    SUMMED_KINDS,
    Part,
    Weighed,
    check_summable,
    committed,
    refused,
    request_tag,
    weigh,
    within_quotas,
)
from comity.services.spend import Spender, Spending

__all__ = [
    "BudgetState",
    "Door",
    "Gate",
    "GateLimits",
    "GateParts",
    "Mask",
    "Part",
    "SiteIdentity",
    "UnsafeSimulationGate",
]

_SEAL: Final = claim_seal(__name__)
_TAG_KEY: Final = b"comity/request-tag/v1"
_SALT_BYTES: Final = 16
_RECORDED: Final = (DataError, RefusedError, Malformed, WrongStage)
"""Refusals of a reply that are records themselves."""


class Gate:
    """One site's gate.

    Safe to call from several threads; one call runs at a time.

    Args:
        identity: Who the site is.
        policy: What its owner decided; recorded whenever it changed.
        parts: Journal, head keeper, keys, accountant, clock and generator.
        events: Hears of what was committed.
        limits: Bounds on what it holds.

    Raises:
        Verification: A record of the journal or the kept head was altered.
        VersionMismatch: A newer release wrote the journal.
        UnavailableError: The journal cannot be written.
    """

    def __init__(
        self,
        identity: SiteIdentity,
        policy: SitePolicy,
        parts: GateParts,
        events: EventSink = ignore,
        limits: GateLimits | None = None,
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._ports = parts
        self._events = events
        self._limits = limits or GateLimits()
        self._lock = threading.RLock()
        self._tag_key = parts.keys.sign(_TAG_KEY)
        self._last: tuple[str, tuple[Released[Any] | Withheld, ...]] = ("", ())
        self._custody = Custody(
            identity.site,
            parts.journal,
            parts.heads,
            parts.keys,
            parts.clock,
            replay_window=self._limits.replay_window,
        )
        self._spender = Spender(policy, Admission(parts.accountant, parts.rng))
        fresh = not self._custody.books.head.sequence and not self._custody.behind
        self._record_policy()
        if fresh and policy.budgets:
            events(JournalStarted(identity.site, tuple(sorted(policy.budgets))))

    def release(
        self, exchange: Exchange, parts: Sequence[Part], *, note: str = ""
    ) -> tuple[Released[Any] | Withheld, ...]:
        """Decides on each part, spends, protects, records, and returns what may leave.

        All parts of an exchange are one transaction. The same exchange with the same content again
        gives the same answer and costs nothing. A reply that is refused as a whole is recorded,
        and what a trusted trainer says it cost is spent, before the error is raised.

        Args:
            exchange: What is asked, by whom.
            parts: What would leave.
            note: What a person typed, such as a question; kept beside the chain, erasable.

        Returns:
            For each part, in order, a `Released` or a `Withheld`.

        Raises:
            DataError: A number is NaN or infinite, a value has no encoding, or arrays or names are
                not those that may leave.
            Malformed: A name or id of the exchange is too long; or a part's own fault.
            PolicyRefused: The reply is too large, or it claims what the policy does not allow.
            BudgetExhausted: More ran than was reserved.
            JournalBehind: The journal is behind its head.
            Replay: The exchange was answered before, with other content.
            UnavailableError: The journal could not be written; nothing left.
        """
        with self._lock:
            self._custody.check_open()
            check_names(exchange, self._limits)
            return self._decided(exchange, parts, note)

    def release_sum(
        self, exchange: Exchange, parts: Sequence[Part], mask: Mask
    ) -> tuple[Released[Any], tuple[Withheld, ...]]:
        """Decides, spends and protects as `release` does; then arrays and metrics leave masked.

        Everything is one transaction: what was spent stands in the journal before the masked
        message leaves, and is never freed after it. A refusal is recorded and spent likewise.

        Args:
            exchange: What is asked, by whom.
            parts: What would be summed.
            mask: Makes the one message that leaves, from the protected parts.

        Returns:
            The message, and a refusal for each part that stays.

        Raises:
            PolicyRefused: Nothing may be summed, a bound on sums is reached, or as for `release`.
            DataError: As for `release`, or as `mask` raises.
            BudgetExhausted: More ran than was reserved.
            JournalBehind: The journal is behind its head.
            Replay: The exchange was answered before.
            UnavailableError: The journal could not be written; nothing left.
        """
        with self._lock:
            self._custody.check_open()
            check_names(exchange, self._limits)
            outcomes = self._decided(exchange, parts, "", mask)
            stayed = (item for item in outcomes[:-1] if isinstance(item, Withheld))
            return cast("Released[Any]", outcomes[-1]), tuple(stayed)

    def sum_mark(self, run: str) -> SumMark:
        """How far this site came in the secure sums of `run`, by its journal."""
        with self._lock:
            return self._custody.books.sum_mark(run)

    def reserve(self, dataset: DatasetName, plan: Plan, *, purpose: str) -> ReservationId:
        """Reserves a whole plan before any of it runs.

        Raises:
            BudgetExhausted: It does not fit; the hint says what would.
            PolicyRefused: The data set has no budget, or one for another unit.
            JournalBehind: The journal is behind its head.
            UnavailableError: The journal could not be written; nothing is reserved.
        """
        with self._lock:
            self._custody.check_open()
            state = self._custody.books.ledger
            note = self._note(purpose)
            event = reserved(self._policy, state, dataset, plan, self._spender.ports)
            self._custody.commit([replace(event, purpose=note.digest)], notes=[note])
            delta = float(event.delta)
            epsilon = self._ports.accountant.epsilon(plan, delta)
        self._events(PlanReserved(self._identity.site, dataset, event.reservation, epsilon, delta))
        return event.reservation

    def free(self, reservation: ReservationId) -> None:
        """Gives a reservation back of which nothing left.

        Raises:
            WrongStage: Something of it left, or there is no such reservation.
        """
        with self._lock:
            self._custody.commit([Freed(reservation)])

    def bind_dataset(self, name: DatasetName, source: str) -> None:
        """Binds a data set's name to the digest of its source; a rename carries the spend along.

        Raises:
            PolicyRefused: The source goes by another name in this policy, or the name stands for
                other data.
        """
        with self._lock:
            self._custody.check_open()
            ledger = self._custody.books.ledger
            event = ledger.binding(name, source)
            if event is None:
                return
            holder = ledger.sources.get(source)
            if holder is not None and ledger.accounts[holder].dataset in self._policy.budgets:
                other = ledger.accounts[holder].dataset
                raise PolicyRefused(
                    f"data sets {other} and {name} have one source",
                    hint=f"keep one name: remove {other} or {name} from the site file",
                )
            self._custody.commit([event])

    def budget(self, dataset: DatasetName) -> BudgetState:
        """How a data set's budget stands.

        Raises:
            PolicyRefused: The data set has no budget.
        """
        with self._lock:
            state = self._custody.books.ledger
            budget = budget_of(self._policy, dataset)
            return budget_state(
                state.account(dataset), budget, self._ports.accountant, closed=state.closed
            )

    def ledger(self, dataset: DatasetName) -> tuple[str, ...]:
        """A data set's account in sentences: what was reserved, what ran, what is left.

        Raises:
            PolicyRefused: The data set has no budget.
        """
        with self._lock:
            account = self._custody.books.ledger.account(dataset)
            return budget_story(account, self.budget(dataset))

    def head(self) -> SignedHead:
        """The journal's head, signed; it travels with every reply."""
        with self._lock:
            return self._custody.head()

    def observe(self, signed: SignedHead) -> None:
        """Takes a head of this site that a peer holds.

        Raises:
            JournalBehind: It is above the journal's, so nothing leaves until it is restored.
            Verification: This site did not sign it.
        """
        with self._lock:
            self._custody.observe(signed)

    def restore(self, known: SignedHead | None = None, *, reason: str = "") -> SignedHead:
        """Records a loss and opens the site again; see `Custody.restore`.

        Args:
            known: A peer's copy of this site's head.
            reason: What a person says of the loss; kept beside the chain.

        Raises:
            ConfigError: The journal is not behind its head.
            Verification: `known` is not this site's signature.
        """
        with self._lock:
            self._custody.restore(known, self._note(reason) if reason else None)
            self._record_policy()
            return self._custody.head()

    def _decided(
        self, exchange: Exchange, parts: Sequence[Part], note: str, mask: Mask | None = None
    ) -> tuple[Released[Any] | Withheld, ...]:
        try:
            return self._decide(exchange, parts, note, mask)
        except _RECORDED as error:
            self._refuse(exchange, parts, error)
            raise

    def _decide(
        self, exchange: Exchange, parts: Sequence[Part], note: str, mask: Mask | None
    ) -> tuple[Released[Any] | Withheld, ...]:
        books = self._custody.books
        day = books.day_at(self._ports.clock.wall_s())
        check_count(parts, self._limits)
        weighed = weigh(self._policy, exchange, parts, in_sum=mask is not None)
        if mask is not None:
            check_sums(self._policy.train.sums, self._custody.books, exchange.run, day)
            check_summable(weighed)
        request = request_tag(self._tag_key, exchange, weighed)
        answered = books.answered(exchange.exchange)
        if answered is not None and mask is not None:
            raise Replay(f"exchange {exchange.exchange} was answered before")
        if answered is not None:
            return self._again(exchange, weighed, request, answered)
        quoted = within_quotas(self._policy, exchange, weighed, books, day)
        spent = self._spender.spend(exchange, quoted, books.ledger)
        if mask is not None:
            spent = replace(spent, weighed=_masked(self._policy, exchange, spent.weighed, mask))
        kept = self._note(note) if note else None
        return self._commit(exchange, spent, (request, day), kept)

    def _refuse(self, exchange: Exchange, parts: Sequence[Part], error: ComityError) -> None:
        """Records a refusal, and spends what led to it: an asker may learn from either."""
        books = self._custody.books
        if books.answered(exchange.exchange) is not None:
            return
        stayed = refused(parts[: self._limits.max_parts], error)
        spent = self._spender.spend_refused(exchange, stayed, books.ledger)
        request = request_tag(self._tag_key, exchange, stayed)
        self._commit(exchange, spent, (request, books.day_at(self._ports.clock.wall_s())), None)

    def _commit(
        self, exchange: Exchange, spent: Spending, taken: tuple[str, int], kept: Note | None
    ) -> tuple[Released[Any] | Withheld, ...]:
        request, day = taken
        record: Mapping[str, object] = {
            "exchange": exchange.exchange,
            "asker": exchange.asker,
            "message_type": exchange.message_type,
            "run": exchange.run,
            "round": exchange.round_number,
            "dataset": exchange.dataset,
            "day": day,
            "request": request,
            "note": kept.digest if kept else "",
            "parts": [item.record(exchange) for item in spent.weighed],
        }
        head = self._custody.commit(
            spent.events, [(EXCHANGE, record)], notes=[kept] if kept else []
        )
        outcomes = tuple(_outcome(item, head.sequence) for item in spent.weighed if not item.summed)
        self._last = (request, outcomes)
        site = self._identity.site
        self._events(committed(site, exchange, spent.weighed, head.sequence))
        return outcomes

    def _again(
        self, exchange: Exchange, weighed: Sequence[Weighed], request: str, answered: Answered
    ) -> tuple[Released[Any] | Withheld, ...]:
        if answered.request != request:
            raise Replay(
                f"exchange {exchange.exchange} was answered before, with other content",
                hint="give a new exchange a new id",
            )
        if self._last[0] == request:
            return self._last[1]
        record = next(self._ports.journal.records(after=answered.sequence - 1))
        outcomes: list[Released[Any] | Withheld] = []
        for item, before in zip(weighed, parts_of(record_body(record)), strict=True):
            if not item.leaves or before["outcome"] != "released":
                reason = item.decision.reason or str(before["reason"])
                outcomes.append(Withheld(str(before["policy"]), reason))
            elif before["digest"] == item.content.digest:
                outcomes.append(Released(item.value, answered.sequence, seal=_SEAL))
            else:
                raise Replay(
                    f"exchange {exchange.exchange} left with noise that was not kept",
                    hint="give a new exchange a new id; its noise costs again",
                )
        return tuple(outcomes)

    def _note(self, text: str) -> Note:
        return salted_note(text, self._ports.rng.token(_SALT_BYTES), self._limits.max_note_bytes)

    def _record_policy(self) -> None:
        digest = hashlib.sha256(encode(policy_record(self._policy))).hexdigest()
        if self._custody.behind or digest == self._custody.books.policy:
            return
        record = {
            "federation": self._identity.federation,
            "site": self._identity.site,
            "digest": digest,
            "protections_off": list(protections_off(self._policy)),
        }
        self._custody.commit([], [(POLICY, record)])


class UnsafeSimulationGate:
    """The door of a simulated site whose data are the caller's own: everything passes.

    No policy, no ledger, no journal; for simulated sites without a policy file.
    """

    def release(
        self, exchange: Exchange, parts: Sequence[Part], *, note: str = ""
    ) -> tuple[Released[Any] | Withheld, ...]:
        """Returns each part's value as it is, released under sequence 0."""
        del exchange, note
        return tuple(Released(part.value, 0, seal=_SEAL) for part in parts)

    def release_sum(
        self, exchange: Exchange, parts: Sequence[Part], mask: Mask
    ) -> tuple[Released[Any], tuple[Withheld, ...]]:
        """Masks all arrays and metrics; all else stays, as one number a site is what a sum is."""
        del exchange
        for part in parts:
            if part.fault is not None:
                raise part.fault
        message = mask([part for part in parts if part.kind in SUMMED_KINDS])
        return Released(message.value, 0, seal=_SEAL), ()

    def sum_mark(self, run: str) -> SumMark:
        """Nothing lasts here."""
        del run
        return SumMark()


def _masked(
    policy: SitePolicy, exchange: Exchange, weighed: Sequence[Weighed], mask: Mask
) -> tuple[Weighed, ...]:
    protected = [replace(item.part, value=item.value) for item in weighed if item.summed]
    return (*weighed, *weigh(policy, exchange, [mask(protected)]))


def _outcome(item: Weighed, sequence: int) -> Released[Any] | Withheld:
    if item.leaves:
        return Released(item.value, sequence, seal=_SEAL)
    return Withheld(item.decision.policy, item.decision.reason)
