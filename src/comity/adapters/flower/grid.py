"""The in-process `Grid`: carries a ServerApp's messages to simulated sites and back.

Replies come sorted by site, so that floating-point sums are the same bits in each run.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from comity.adapters.flower.arrays import own_copy
from comity.adapters.flower.calls import AppFailure
from comity.adapters.flower.crew import Call, Crew, Finished
from comity.adapters.flower.private_names import (
    Run,
    name_message,
    reply_to,
    with_metadata,
)
from comity.adapters.flower.refusals import Refusals
from comity.adapters.flower.secure_messages import PROTOCOL_TYPES
from comity.adapters.flower.secure_site import admit, send_sum
from comity.adapters.flower.seeds import call_seed, simulated_secret
from comity.adapters.flower.site_engine import Outgoing, SimulatedSite, send_out
from comity.errors import ConfigError, PolicyRefused
from comity.events import EventSink, ExchangeFinished, SiteDropped
from comity.ids import AppDigest, ExchangeId, RunId, SiteName
from comity.ports import Exchange

FIRST_NODE: Final = 2
"""Node id of the first site; the coordinator's is 1."""

_POLL_S: Final = 0.5
_SLOW_POLL_S: Final = 0.5
_MAX_SLOW_POLLS: Final = 4
ASKER: Final = "coordinator"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What tells this run from others.

    Attributes:
        run: Flower's number of the run.
        name: The same as text, for journals and events.
        seed: The run's seed.
        app: Digest of the app.
    """

    run: int
    name: RunId
    seed: int
    app: AppDigest


@dataclass(slots=True)
class Tally:
    """What went through a grid so far."""

    exchanges: int = 0
    replies: int = 0
    dropouts: dict[str, int] = field(default_factory=dict)
    site_dropouts: dict[SiteName, Counter[str]] = field(default_factory=dict)
    released_bytes: dict[SiteName, int] = field(default_factory=dict)
    withheld: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Sent:
    """A message that was pushed and not yet answered."""

    call: Call
    site: SimulatedSite
    exchange: Exchange
    ordinal: int
    since_s: float
    summed: bool


_Place = tuple[SimulatedSite, Exchange, int]
"""Whose message, what it asks, and the position of its exchange in the run."""


class LocalGrid(Grid):
    """Carries messages to sites that a `Crew` runs, each reply through its site's gate.

    Calls from several threads take turns: Flower's older strategies ask each site from a thread.

    Args:
        run: Flower's description of the run.
        identity: The run's names and seed.
        sites: In order; a site's node id is its position plus `FIRST_NODE`.
        crew: Runs the app calls.
        events: Told of each finished exchange and each dropout.
    """

    def __init__(
        self,
        run: Run,
        identity: RunIdentity,
        sites: Sequence[SimulatedSite],
        crew: Crew,
        events: EventSink,
    ) -> None:
        self.tally = Tally(released_bytes=dict.fromkeys((site.name for site in sites), 0))
        self.refusals = Refusals()
        self._run = run
        self._identity = identity
        self._sites = {FIRST_NODE + index: site for index, site in enumerate(sites)}
        self._configs = _node_configs(sites)
        self._crew = crew
        self._events = events
        self._sent: dict[int, _Sent] = {}
        self._by_id: dict[str, int] = {}
        self._replies: dict[str, Message] = {}
        self._refused: dict[str, list[SiteName]] = {}
        self._numbers = 0
        self._messages = 0
        self._ordinal = 0
        self._thread = threading.get_ident()
        self._turn = threading.RLock()
        self._polls = 0
        self._polled_s = 0.0

    @property
    def name(self) -> RunId:
        """The run's name in journals and events."""
        return self._identity.name

    def set_run(self, run: Run) -> None:
        """Sets what `run` shows."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run of this grid."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node, as ``Message(...)`` makes it."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """The node ids of all sites, in site order.

        Raises:
            ConfigError: A strategy waits for more sites than there are, which would be for ever.
        """
        now = time.monotonic()
        if threading.get_ident() == self._thread:
            slow = now - self._polled_s >= _SLOW_POLL_S
            self._polls += slow
            self._polled_s = now
            if self._polls > _MAX_SLOW_POLLS + 1:
                raise ConfigError(
                    f"the ServerApp waits for more sites than this run has ({len(self._sites)})",
                    hint="raise --sites, or lower the strategy's min_available_nodes",
                )
        return list(self._sites)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages; the ids by which their replies can be pulled, in order.

        Raises:
            ValueError: A message goes to a node that does not exist, or was sent before.
        """
        self._polls = 0
        listed = list(messages)
        if not listed:
            return []
        with self._turn:
            self.tally.exchanges += not all(is_protocol(message) for message in listed)
            self._ordinal += 1
            frozen: dict[int, RecordDict] = {}
            admitted = [self._admit(message, frozen) for message in listed]
            calls = [call for call in admitted if call is not None]
            if calls:
                self._crew.submit(calls)
        return [message.metadata.message_id for message in listed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that are there, in site order; waits a moment when none is.

        Raises:
            PolicyRefused: Sites release only into a secure sum, and this run has none.
            RefusedError: Every site's gate refused.
        """
        wanted = list(message_ids)
        with self._turn:
            self._gather(wanted, time.monotonic() + _POLL_S)
            self._check_refusals()
            arrived = [wanted_id for wanted_id in wanted if wanted_id in self._replies]
            found = [self._replies.pop(wanted_id) for wanted_id in arrived]
        return sorted(found, key=_site_order)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Sends messages and waits for all replies, at most `timeout` seconds; in site order.

        Raises:
            PolicyRefused: Sites release only into a secure sum, and this run has none.
            RefusedError: Every site's gate refused.
        """
        sent = list(messages)
        with self._turn:
            started = time.monotonic()
            ids = self.push_messages(sent)
            self._gather(ids, None if timeout is None else started + timeout, wait_for_all=True)
            self._check_refusals()
            self.abandon(ids)
            found = [self._replies.pop(reply_id) for reply_id in ids if reply_id in self._replies]
            if sent:
                self._finish(sent[0].metadata.message_type, len(sent), found, started)
        return sorted(found, key=_site_order)

    def _admit(self, message: Message, frozen: dict[int, RecordDict]) -> Call | None:
        """The call that a message asks for; None where the site answers without its app."""
        node_id = message.metadata.dst_node_id
        site = self._sites.get(node_id)
        if site is None:
            raise ValueError(f"node {node_id} does not exist: ask Grid.get_node_ids()")
        self._messages += 1
        name_message(message, f"{self._identity.run:x}-{self._messages}")
        exchange = Exchange(
            ExchangeId(f"{message.metadata.message_id}-{site.name}"),
            ASKER,
            message.metadata.message_type,
            self._identity.name,
            _round_of(message, self.tally.exchanges),
            site.dataset,
        )
        self.refusals.sent(self._ordinal)
        admitted = admit(site, exchange, message)
        if admitted.answer is not None:
            self._take((site, exchange, self._ordinal), message, admitted.answer)
            return None
        content = message.content if admitted.content is None else admitted.content
        # The caller may change a record after pushing it; equal contents stay one object.
        kept = frozen.setdefault(id(message.content), own_copy(content))
        # Only calls count here: whether replies are summed must not change what an app draws.
        self._numbers += 1
        sent = with_metadata(copy.copy(message.metadata), kept)
        seed = self._seed(site, self._numbers)
        call = Call(self._numbers, node_id, self._configs[node_id], sent, seed)
        ordinal, now = self._ordinal, time.monotonic()
        self._sent[call.number] = _Sent(call, site, exchange, ordinal, now, admitted.summed)
        self._by_id[message.metadata.message_id] = call.number
        return call

    def _seed(self, site: SimulatedSite, number: int) -> bytes:
        seed = self._identity.seed
        return call_seed(site.secret or simulated_secret(seed, site.name), seed, site.name, number)

    def _gather(
        self, ids: Sequence[str], deadline_s: float | None, *, wait_for_all: bool = False
    ) -> None:
        while any(reply_id in self._by_id for reply_id in ids):
            left = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            finished = self._crew.wait(left)
            for done in finished:
                self._arrived(done)
            if left == 0.0 or (finished and not wait_for_all):
                return

    def abandon(self, ids: Iterable[str]) -> None:
        """Gives up messages whose replies nobody waits for any more."""
        late = [self._by_id.pop(reply_id) for reply_id in ids if reply_id in self._by_id]
        if late:
            self._crew.abandon(late)
        for number in late:
            sent = self._sent.pop(number)
            # Through the gate, so that the chain tells of it; nobody can pull the reply.
            late_one, request = AppFailure("TimeoutError", crashed=True), sent.call.message
            place = (sent.site, sent.exchange, sent.ordinal)
            app = self._identity.app
            self._count(place, send_out(sent.site, sent.exchange, request, late_one, app))

    def _arrived(self, done: Finished) -> None:
        sent = self._sent.pop(done.number)
        request, outcome, app = sent.call.message, done.outcome, self._identity.app
        del self._by_id[request.metadata.message_id]
        if sent.summed and isinstance(outcome, RecordDict):
            out = send_sum(sent.site, sent.exchange, request, outcome, app)
        else:
            out = send_out(sent.site, sent.exchange, request, outcome, app)
        self._take((sent.site, sent.exchange, sent.ordinal), request, out)

    def _take(self, place: _Place, request: Message, out: Outgoing) -> None:
        self._count(place, out)
        for policy in out.unsummed:
            self._refused.setdefault(policy, []).append(place[0].name)
        reply = reply_to(request, out.content, f"{request.metadata.message_id}-reply")
        self._replies[request.metadata.message_id] = reply

    def _count(self, place: _Place, out: Outgoing) -> None:
        site, exchange, ordinal = place
        tally, name = self.tally, site.name
        self.refusals.took(ordinal, exchange.message_type, name, out)
        for refusal in out.withheld:
            tally.withheld[refusal.policy] = tally.withheld.get(refusal.policy, 0) + 1
        tally.released_bytes[name] += out.size_bytes
        if out.failure:
            tally.dropouts[out.failure] = tally.dropouts.get(out.failure, 0) + 1
            tally.site_dropouts.setdefault(name, Counter())[out.failure] += 1
            self._events(SiteDropped(self._identity.name, name, exchange.exchange, out.failure))
        elif exchange.message_type not in PROTOCOL_TYPES:
            tally.replies += 1

    def _check_refusals(self) -> None:
        self.refusals.check()
        if not self._refused:
            return
        policy, sites = min(self._refused.items())
        kind, _, part = policy.partition(" ")[0].rpartition(".")
        raise PolicyRefused(
            f"{policy} at {', '.join(sorted(sites))}: this may leave only inside a secure sum, "
            "and this run has none",
            hint=f'a site\'s owner may write [train.rules.{kind}] {part} = "plain", with clip '
            "and noise",
        )

    def _finish(self, kind: str, asked: int, found: Sequence[Message], started_s: float) -> None:
        seconds = time.monotonic() - started_s
        dropouts = asked - sum(not message.has_error() for message in found)
        self._events(
            ExchangeFinished(
                self._identity.name, self.tally.exchanges, kind, asked, dropouts, seconds
            )
        )


def _node_configs(sites: Sequence[SimulatedSite]) -> dict[int, dict[str, Any]]:
    return {
        FIRST_NODE + index: {
            "partition-id": index,
            "num-partitions": len(sites),
            **site.node_config,
        }
        for index, site in enumerate(sites)
    }


def is_protocol(message: Message) -> bool:
    """Whether a message is one of the secure sum, which no app sees."""
    return message.metadata.message_type in PROTOCOL_TYPES


def _site_order(message: Message) -> tuple[int, int]:
    metadata = message.metadata
    return metadata.src_node_id, int(metadata.reply_to_message_id.rpartition("-")[2])


def _round_of(message: Message, ordinal: int) -> int:
    """The round that the coordinator states; the exchange's position where it states none."""
    for record in message.content.values():
        if isinstance(record, ConfigRecord):
            stated = record.get("server-round")
            if isinstance(stated, int) and stated > 0:
                return stated
    return ordinal
