"""What a user's device does with the model that it receives."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from .task import Network, fit, load_data

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains on this user's images and answers with the new model."""
    images, labels = load_data(int(context.node_config["partition-id"]))
    network = Network()
    record = message.content["arrays"]
    assert isinstance(record, ArrayRecord)  # noqa: S101 - for the type checker
    network.load_state_dict(record.to_torch_state_dict())
    loss = fit(network, images, labels)
    metrics = MetricRecord({"num-examples": len(labels), "loss": loss})
    content = RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)
