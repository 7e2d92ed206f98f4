"""What a site does with the model that it receives."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .task import Network, accuracy, fit, load_data

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains on this site's points and answers with the new model."""
    data, _ = load_data(int(context.node_config["partition-id"]))
    network = _received(message)
    config = context.run_config
    loss = fit(
        network,
        data,
        epochs=int(config["local-epochs"]),
        batch=int(config["batch-size"]),
        rate=float(config["learning-rate"]),
    )
    metrics = MetricRecord({"num-examples": len(data), "loss": loss})
    content = RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Scores the model on points that this site did not train on."""
    _, data = load_data(int(context.node_config["partition-id"]))
    metrics = MetricRecord(
        {"num-examples": len(data), "accuracy": accuracy(_received(message), data)}
    )
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)


def _received(message: Message) -> Network:
    network = Network()
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return network
