"""What the coordinator does: Flower's own FedAvg, with a clock beside it."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs all rounds; leaves arrays, times and counts of replies in the state."""
    config = context.run_config
    random = np.random.default_rng(0)
    start = random.random(int(config["array-bytes"]) // 4, dtype=np.float32)
    ends: list[float] = []

    def note(_round: int, _arrays: ArrayRecord) -> MetricRecord:
        ends.append(time.monotonic())
        return MetricRecord({"noted": 1})

    strategy = FedAvg(fraction_evaluate=0.0, train_metrics_aggr_fn=count)
    rounds = int(config["rounds"])
    initial = ArrayRecord([start])
    result = strategy.start(grid, initial, num_rounds=rounds, evaluate_fn=note)
    history = result.train_metrics_clientapp
    replies = [int(str(history[number]["replies"])) for number in sorted(history)]
    context.state["arrays"] = result.arrays
    context.state["rounds"] = MetricRecord({"ends": ends, "replies": replies})


def count(replies: list[RecordDict], _weighted_by: str) -> MetricRecord:
    """How many usable replies a round had."""
    return MetricRecord({"replies": len(replies)})
