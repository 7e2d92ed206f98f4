"""What the coordinator does: Flower's own FedAvg as it is, with a clock beside it."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

LAYERS = 10

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs all rounds; leaves arrays and times in the state."""
    config = context.run_config
    size = int(config["numbers"]) // LAYERS
    random = np.random.default_rng(0)
    start = [random.normal(0, 0.1, size).astype(np.float32) for _ in range(LAYERS)]
    ends: list[float] = []

    def note(_round: int, _arrays: ArrayRecord) -> MetricRecord:
        ends.append(time.monotonic())
        return MetricRecord({"noted": 1})

    strategy = FedAvg(fraction_evaluate=0.0)
    rounds = int(config["rounds"])
    result = strategy.start(grid, ArrayRecord(start), num_rounds=rounds, evaluate_fn=note)
    context.state["arrays"] = result.arrays
    context.state["rounds"] = MetricRecord({"ends": ends})
