"""What the coordinator does: Flower's own FedAvg over a sample of users, with a clock beside it."""

import time

from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import Network

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs all rounds; leaves arrays, times, counts of replies and losses in the state."""
    config = context.run_config
    users = len(list(grid.get_node_ids()))
    share = int(config["cohort"]) / users
    ends: list[float] = []

    def note(_round: int, _arrays: ArrayRecord) -> MetricRecord:
        ends.append(time.monotonic())
        return MetricRecord({"noted": 1})

    strategy = FedAvg(share, 0.0, train_metrics_aggr_fn=summed_up)
    initial = ArrayRecord(Network().state_dict())
    rounds = int(config["rounds"])
    result = strategy.start(grid, initial, num_rounds=rounds, evaluate_fn=note)
    history = [result.train_metrics_clientapp[number] for number in range(1, rounds + 1)]
    replies = [int(str(metrics["replies"])) for metrics in history]
    losses = [float(str(metrics["loss"])) for metrics in history]
    context.state["arrays"] = result.arrays
    context.state["rounds"] = MetricRecord({"ends": ends, "replies": replies, "losses": losses})


def summed_up(replies: list[RecordDict], _weighted_by: str) -> MetricRecord:
    """How many usable replies a round had, and their mean loss."""
    losses = [float(str(reply.metric_records["metrics"]["loss"])) for reply in replies]
    return MetricRecord({"replies": len(replies), "loss": sum(losses) / len(losses)})
