"""The cohort's training without any framework: one loop, one mean, one process.

python benchmarks/plain_loop.py '{"rounds": 20, "cohort": 50, "users": 200, "threads": 1}'
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import torch

from apps.cohort.cohort_app.task import Network, fit, load_data


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Carries out one order; times are readings of the machine's monotonic clock, in seconds."""
    started = time.monotonic()
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    random.seed(0)
    network, model = Network(), Network()
    ends = [time.monotonic()]
    losses = []
    for _ in range(order["rounds"]):
        start = model.state_dict()
        total = {name: torch.zeros_like(array) for name, array in start.items()}
        weight, loss = 0, 0.0
        for user in random.sample(range(order["users"]), order["cohort"]):
            images, labels = load_data(user)
            network.load_state_dict(start)
            loss += fit(network, images, labels)
            weight += len(labels)
            for name, array in network.state_dict().items():
                total[name] += array * len(labels)
        model.load_state_dict({name: array / weight for name, array in total.items()})
        losses.append(loss / order["cohort"])
        ends.append(time.monotonic())
    rounds = {"ends": ends, "replies": [order["cohort"]] * order["rounds"], "losses": losses}
    return {"metrics": {"rounds": rounds}, "started": started, "ended": ends[-1], "mean": 0.0}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
