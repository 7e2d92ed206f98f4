"""Benign or malignant, from 30 measurements of cell nuclei, with record-level privacy."""

from pathlib import Path

import numpy as np
from flwr.app import Context

import comity

# The columns that the hospitals agreed on, in this order.
MEASURES = [
    "radius", "texture", "perimeter", "area", "smoothness",
    "compactness", "concavity", "concave points", "symmetry", "fractal dimension",
]
FEATURES = [
    *(f"mean {name}" for name in MEASURES),
    *(f"{name} error" for name in MEASURES),
    *(f"worst {name}" for name in MEASURES),
]
# Public bounds of the 30 measurements, from the instrument, not from anybody's records.
MEAN = [30, 40, 200, 2500, 0.2, 0.35, 0.45, 0.2, 0.3, 0.1]
ERROR = [3, 5, 22, 550, 0.03, 0.14, 0.4, 0.05, 0.08, 0.03]
WORST = [36, 50, 250, 4250, 0.22, 1.1, 1.25, 0.3, 0.65, 0.2]
HIGH = np.array([*MEAN, *ERROR, *WORST])


def trainer(context: Context) -> comity.LinearTrainer:
    """Logistic regression with differential privacy, by the run's configuration."""
    config = context.run_config
    privacy = comity.DpSgd(
        clip_norm=float(config["clip-norm"]),
        noise_multiplier=str(config["noise-multiplier"]),
        sampling_rate=str(config["sampling-rate"]),
        expected_records=int(config["expected-records"]),
    )
    return comity.LinearTrainer(
        features=len(HIGH),
        steps=int(config["steps-per-round"]),
        learning_rate=float(config["learning-rate"]),
        privacy=privacy,
    )


def records(context: Context, file: str) -> comity.Table:
    """One file of this hospital's records, scaled by the public bounds."""
    folder = Path(str(context.node_config["data-path"]))
    table = comity.read_csv(
        folder / file,
        label="diagnosis",
        feature_names=FEATURES,
        label_names=("malignant", "benign"),
        in_order=True,
    )
    return comity.scaled(table, np.zeros_like(HIGH), HIGH)


client = comity.client_app(
    trainer,
    load_data=lambda context: records(context, "records.csv"),
    load_held_back=lambda context: records(context, "held-back.csv"),
)
server = comity.server_app(trainer, rounds=lambda context: int(context.run_config["rounds"]))
