"""What the coordinator does: sends the model out, and takes the mean of what comes back."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from .task import Network

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs all rounds and says how good the model became."""
    result = FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord(Network().state_dict()),
        num_rounds=int(context.run_config["rounds"]),
    )
    for number, metrics in result.evaluate_metrics_clientapp.items():
        print(f"round {number}: accuracy {metrics['accuracy']:.3f}")
