"""What a site does with the model that it receives."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .task import accuracy, fit, load_data, loss

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains on this site's records and answers with the new model."""
    x, y, _, _ = load_data(int(context.node_config["partition-id"]))
    config = context.run_config
    model = message.content["arrays"].to_numpy_ndarrays()
    model = fit(model, x, y, int(config["local-epochs"]), float(config["learning-rate"]))
    metrics = MetricRecord({"num-examples": len(x), "loss": loss(model, x, y)})
    content = RecordDict({"arrays": ArrayRecord(model), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Scores the model on records that this site did not train on."""
    _, _, x, y = load_data(int(context.node_config["partition-id"]))
    model = message.content["arrays"].to_numpy_ndarrays()
    metrics = MetricRecord({"num-examples": len(x), "accuracy": accuracy(model, x, y)})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
