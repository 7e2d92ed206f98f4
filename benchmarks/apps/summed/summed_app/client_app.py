"""What a site does: a light step, and a weight of its own."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answers with arrays a little nearer to this site's own optimum, as training does."""
    site = int(context.node_config["partition-id"])
    optimum = np.float32(0.05 * (site + 1))
    record = message.content["arrays"]
    assert isinstance(record, ArrayRecord)  # noqa: S101 - for the type checker
    rate = np.float32(0.1)
    arrays = ArrayRecord([array + rate * (optimum - array) for array in record.to_numpy_ndarrays()])
    metrics = MetricRecord({"num-examples": 100 + 7 * site, "loss": 0.5})
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    return Message(content=content, reply_to=message)
