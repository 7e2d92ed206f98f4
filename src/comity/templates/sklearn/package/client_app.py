"""What a site does with the model that it receives."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.metrics import log_loss

from .task import CLASSES, arrays_of, classifier, load_data

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains on this site's records and answers with the new model."""
    x, y, _, _ = _data(context)
    model = _model(message, context)
    for _ in range(int(context.run_config["local-epochs"])):
        model.partial_fit(x, y, classes=CLASSES)
    loss = log_loss(y, model.predict_proba(x), labels=CLASSES)
    metrics = MetricRecord({"num-examples": len(x), "loss": float(loss)})
    content = RecordDict({"arrays": ArrayRecord(arrays_of(model)), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Scores the model on records that this site did not train on."""
    _, _, x, y = _data(context)
    accuracy = float(_model(message, context).score(x, y))
    metrics = MetricRecord({"num-examples": len(x), "accuracy": accuracy})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)


def _data(context):
    node = context.node_config
    return load_data(int(node["partition-id"]), int(node["num-partitions"]))


def _model(message, context):
    arrays = message.content["arrays"].to_numpy_ndarrays()
    return classifier(arrays, float(context.run_config["alpha"]))
