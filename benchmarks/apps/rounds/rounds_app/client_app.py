"""What a site does: one step that costs next to nothing."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answers with new arrays, which differ from site to site."""
    step = np.float32(int(context.node_config["partition-id"]) + 1)
    record = message.content["arrays"]
    assert isinstance(record, ArrayRecord)  # noqa: S101 - for the type checker
    arrays = ArrayRecord([array + step for array in record.to_numpy_ndarrays()])
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    return Message(content=content, reply_to=message)
