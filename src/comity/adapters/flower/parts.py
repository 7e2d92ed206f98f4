"""A `Trainer` as a standard Flower app: the same parts run on each engine, and under stock Flower.

app = client_app(make_trainer, load_data)          # one module of the app
app = server_app(make_trainer, rounds=10)          # another, or the same
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from comity.adapters.flower.site_engine import SPENDS_RECORD, spends_record
from comity.errors import DataError
from comity.ports import Arrays, Contribution, Metrics, Rng, Table, Trainer

ARRAYS: Final = "arrays"
METRICS: Final = "metrics"
WEIGHT: Final = "num-examples"
TRAIN_HISTORY: Final = "train-metrics"
EVALUATE_HISTORY: Final = "evaluate-metrics"

MakeTrainer = Callable[[Context], Trainer]
LoadData = Callable[[Context], Table]


def client_app(
    make_trainer: MakeTrainer,
    load_data: LoadData,
    rng: Rng,
    load_held_back: LoadData | None = None,
) -> ClientApp:
    """A `ClientApp` that trains and evaluates with a `Trainer`.

    Guarantees: where the trainer states privacy events, its train metrics stay at the site and
    the weight is the trainer's own, public one; what it spent goes to the site's gate only.

    Args:
        make_trainer: The trainer for one call; settings come from ``context.run_config``.
        load_data: The site's records; where they lie comes from ``context.node_config``.
        rng: What the trainer draws noise and batches from.
        load_held_back: The records that a model is scored on; those of `load_data` when None.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays, data = _arrays_of(message), load_data(context)
        _check_records(len(data.labels), context)
        contribution = make_trainer(context).fit(arrays, data, rng)
        return Message(_reply(contribution), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        data = (load_held_back or load_data)(context)
        metrics = make_trainer(context).evaluate(_arrays_of(message), data)
        record = _metric_record(metrics, float(len(data.labels)))
        return Message(RecordDict({METRICS: record}), reply_to=message)

    return app


def server_app(
    make_trainer: MakeTrainer,
    rounds: Callable[[Context], int],
    make_strategy: Callable[[Context, int], Strategy] | None = None,
) -> ServerApp:
    """A `ServerApp` that runs a strategy from a trainer's first arrays.

    Leaves in ``context.state``: ``arrays``, and the histories ``train-metrics`` and
    ``evaluate-metrics`` with one value a round in each list.

    Args:
        make_trainer: As in `client_app`; only `Trainer.initial` is called.
        rounds: How many rounds, from the context.
        make_strategy: The strategy, from the context and the number of sites; `SiteMean` over all
            sites when None.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        sites = len(list(grid.get_node_ids()))
        strategy = (make_strategy or _every_site)(context, sites)
        initial = array_record(make_trainer(context).initial())
        result = strategy.start(grid, initial, num_rounds=rounds(context))
        _keep(result, context)

    return app


class SiteMean(FedAvg):
    """`FedAvg` that also works where train metrics stay at home: then each site counts the same."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weighted mean; the plain mean when any site withheld its weight."""
        listed = list(replies)
        contents = [message.content for message in listed if message.has_content()]
        if any(not content.metric_records for content in contents):
            for content in contents:
                for name in list(content.metric_records):
                    del content[name]
                content[METRICS] = MetricRecord({self.weighted_by_key: 1.0})
        return super().aggregate_train(server_round, listed)


def array_record(arrays: Arrays) -> ArrayRecord:
    """Arrays by name as Flower's record, in their order."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def _every_site(context: Context, sites: int) -> Strategy:
    del context
    return SiteMean(min_train_nodes=sites, min_evaluate_nodes=sites, min_available_nodes=sites)


def _check_records(found: int, context: Context) -> None:
    most = context.node_config.get("max-records")
    if most is not None and found > int(most):
        raise DataError(
            f"the data set holds {found} records, and its budget stands for at most {most}",
            hint="set records and delta of the data set in the site file: delta < 1 / records",
        )


def _arrays_of(message: Message) -> Arrays:
    record = message.content.get(ARRAYS)
    if not isinstance(record, ArrayRecord):
        raise DataError(f"the message holds no array record {ARRAYS!r}")
    return MappingProxyType({name: array.numpy() for name, array in record.items()})


def _reply(contribution: Contribution) -> RecordDict:
    private = bool(contribution.spends)
    metrics: Metrics = MappingProxyType({}) if private else contribution.metrics
    content = RecordDict(
        {
            ARRAYS: array_record(contribution.arrays),
            METRICS: _metric_record(metrics, contribution.weight),
        }
    )
    if private:
        content[SPENDS_RECORD] = spends_record(contribution.spends)
    return content


def _metric_record(metrics: Mapping[str, float], weight: float) -> MetricRecord:
    scalars = {name: float(value) for name, value in metrics.items()}
    return MetricRecord({**scalars, WEIGHT: weight})


def _keep(result: Result, context: Context) -> None:
    context.state[ARRAYS] = result.arrays
    for name, history in (
        (TRAIN_HISTORY, result.train_metrics_clientapp),
        (EVALUATE_HISTORY, result.evaluate_metrics_clientapp),
    ):
        context.state[name] = MetricRecord(_columns(history))


def _columns(history: Mapping[int, MetricRecord]) -> dict[str, Any]:
    rows = [history[number] for number in sorted(history)]
    names = rows[0].keys() if rows else ()
    return {name: [cast("float", row[name]) for row in rows if name in row] for name in names}
