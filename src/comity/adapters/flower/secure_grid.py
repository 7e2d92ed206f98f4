"""A `Grid` around any other: sums what the sites reply, and gives the caller one reply.

Messages of train and evaluate become secure sums; queries pass as they are. The caller gets the
weighted mean under the app's own record names, with the summed weight, and an error reply for each
site that dropped out. What a single site contributed is nowhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from comity.adapters.flower.private_names import Run, name_message, reply_to
from comity.adapters.flower.secure_carrier import MessageCarrier, type_of
from comity.adapters.flower.secure_messages import content_digest
from comity.adapters.flower.strategies import check_strategy
from comity.core.policy.rule import PROTECTED, category_of
from comity.errors import StrategyRefused
from comity.events import EventSink, ExchangeFinished, ignore
from comity.services.sum_run import Sum, SumAsk, SumRun

DEFAULT_METRICS: Final = "metrics"


class SecureGrid(Grid):
    """Sums replies to train and evaluate messages over the sites of an inner grid.

    Args:
        inner: Carries messages to sites whose engine takes part in secure sums.
        sums: The run's sums.
        events: Told of each exchange that the caller asked for.
        protected: The categories of messages whose replies are summed.
        in_band: Messages of the protocol travel as the app's own type, for engines that hand a
            message to an app's mods only where the app has a function for its type.
    """

    def __init__(
        self,
        inner: Grid,
        sums: SumRun,
        events: EventSink = ignore,
        protected: frozenset[str] = PROTECTED,
        *,
        in_band: bool = False,
    ) -> None:
        self._in_band = in_band
        self._protected = protected
        self._inner = inner
        self._sums = sums
        self._events = events
        self._nodes: dict[str, int] = {}
        self._asked: set[int] = set()
        self._admitted = False
        self._exchanges = 0

    def set_run(self, run: Run) -> None:
        """Sets what `run` shows."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run of this grid."""
        return self._inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node, as ``Message(...)`` makes it."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The node ids of all sites."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sends queries.

        Raises:
            StrategyRefused: One is a train or evaluate message: only a whole exchange is summed.
        """
        listed = list(messages)
        self._check_open(listed)
        return self._inner.push_messages(listed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to queries that are there."""
        return self._inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Queries as they are; train and evaluate messages of a known strategy as one sum.

        Raises:
            StrategyRefused: No strategy that is right for a sum asks, or the messages differ.
            CohortTooSmall: Too few sites for a secure sum.
            UnavailableError: No attempt gave a sum.
        """
        listed = list(messages)
        if not any(self._sums_up(message) for message in listed):
            return self._inner.send_and_receive(listed, timeout=timeout)
        if not self._admitted:
            self._check_open(listed)
        return self.mean(listed, timeout=timeout)

    @contextlib.contextmanager
    def admit(self, strategy: Strategy) -> Iterator[None]:
        """Checks `strategy` and lets its exchanges through while it runs.

        Raises:
            StrategyRefused: It would get the mean where it needs single replies.
        """
        check_strategy(strategy, self._weight_key, self._protected)
        self._admitted = True
        try:
            yield
        finally:
            self._admitted = False

    def mean(self, messages: Sequence[Message], *, timeout: float | None = None) -> list[Message]:
        """Sums the replies to equal messages: one reply with the weighted mean, then errors.

        Raises:
            StrategyRefused: There are no messages, or they differ in content or type.
            CohortTooSmall: Too few sites for a secure sum.
            UnavailableError: No attempt gave a sum.
        """
        started = time.monotonic()
        content, received = _same_content(messages)
        first = messages[0]
        kind = first.metadata.message_type
        if not _receivers(messages) <= self._asked:
            self._asked |= _receivers(messages) | set(self._inner.get_node_ids())
            self._sums.begin(self._carrier(first, RecordDict(), timeout), anew=True)
        nodes = {name: node for name, node in self._nodes.items() if node in _receivers(messages)}
        reference = _reference(content) if category_of(kind) == "train" else {}
        carrier = self._carrier(first, content, timeout)
        carrier.order = tuple(message.metadata.dst_node_id for message in messages)
        summed = self._sums.sum(SumAsk(kind, tuple(nodes), reference, received), carrier)
        answered = summed.result.survivors
        request = next(m for m in messages if m.metadata.dst_node_id == nodes[answered[0]])
        self._exchanges += 1
        name_message(request, carrier.request_id(answered[0]))
        content = _mean_records(summed, self._weight_key)
        reply = reply_to(request, content, f"{carrier.request_id(answered[0])}-mean")
        dropped = len(messages) - len(answered)
        seconds = time.monotonic() - started
        self._events(
            ExchangeFinished(self._sums.run, self._exchanges, kind, len(messages), dropped, seconds)
        )
        return [reply, *carrier.errors(set(answered))]

    def _sums_up(self, message: Message) -> bool:
        return category_of(type_of(message)) in self._protected

    def _check_open(self, messages: Sequence[Message]) -> None:
        kinds = {type_of(message) for message in messages if self._sums_up(message)}
        if kinds:
            raise StrategyRefused(
                f"{', '.join(sorted(kinds))} messages outside a known strategy: their replies "
                "leave the sites only as one sum",
                hint="use comity.secure_mean(grid, messages), or one of Flower's mean strategies",
            )

    @property
    def _weight_key(self) -> str:
        return self._sums.settings.terms.weight_key

    def _carrier(
        self, first: Message, content: RecordDict, timeout: float | None
    ) -> MessageCarrier:
        return MessageCarrier(
            self._inner, self._nodes, first, content, timeout, in_band=self._in_band
        )


def secure_mean(
    grid: Grid, messages: Iterable[Message], *, timeout: float | None = None
) -> Message:
    """The weighted mean of the replies to equal messages, as one reply: for hand-written loops.

    Args:
        grid: The grid that the engine gave to ``main``.
        messages: One for each site, of one type and content.
        timeout: Seconds until sites without a reply have dropped out.

    Raises:
        StrategyRefused: The run has no secure sums, or the messages differ.
        CohortTooSmall: Too few sites for a secure sum.
        UnavailableError: No attempt gave a sum.
    """
    if not isinstance(grid, SecureGrid):
        raise StrategyRefused(
            "this run has no secure sums", hint="run it with --secure: comity run APP --secure"
        )
    return grid.mean(list(messages), timeout=timeout)[0]


def _receivers(messages: Sequence[Message]) -> set[int]:
    return {message.metadata.dst_node_id for message in messages}


def _same_content(messages: Sequence[Message]) -> tuple[RecordDict, bytes]:
    if not messages:
        raise StrategyRefused("no messages, so no mean", hint="send one message to each site")
    first = messages[0]
    seen: dict[int, bytes] = {}
    for message in messages:
        key = id(message.content)
        if key not in seen:
            seen[key] = content_digest(message.content)
    kinds = {type_of(message) for message in messages}
    if len(set(seen.values())) > 1 or len(kinds) > 1:
        raise StrategyRefused(
            "the sites are sent different messages, and a sum over them has no meaning",
            hint="send every site the same content, or run without secure sums",
        )
    if len(_receivers(messages)) < len(messages):
        raise StrategyRefused("a site is sent two messages at once", hint="send each site one")
    return first.content, seen[id(first.content)]


def _reference(content: RecordDict) -> dict[str, NDArray[Any]]:
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    if len(records) != 1:
        raise StrategyRefused(
            f"the message holds {len(records)} array records; a secure sum takes one",
            hint="send the model in one array record",
        )
    return {name: array.numpy() for name, array in records[0].items()}


def _mean_records(summed: Sum, weight_key: str) -> RecordDict:
    arrays_name, metrics_name = summed.result.names[:2]
    content = RecordDict()
    if arrays_name:
        content[arrays_name] = ArrayRecord(
            {name: Array(np.asarray(array)) for name, array in summed.arrays.items()}
        )
    weight = int(summed.weight) if summed.weight.is_integer() else summed.weight
    content[metrics_name or DEFAULT_METRICS] = MetricRecord({**summed.metrics, weight_key: weight})
    return content
