"""The Python API for notebooks and scripts: few names, typed results."""

from __future__ import annotations

from comity.adapters.flower.secure_grid import secure_mean
from comity.adapters.train.linear import LinearTrainer
from comity.adapters.train.mlp import MlpTrainer
from comity.adapters.train.privacy import DpSgd
from comity.adapters.train.sklearn_estimator import SklearnTrainer
from comity.adapters.train.tables import read_csv, scaled
from comity.api.apps import client_app, server_app
from comity.api.federation import Federation
from comity.api.results import SiteReport, TrainResult
from comity.core.privacy.plan import training_plan
from comity.ports import Table
from comity.services.answer import Answer

__all__ = [
    "Answer",
    "DpSgd",
    "Federation",
    "LinearTrainer",
    "MlpTrainer",
    "SiteReport",
    "SklearnTrainer",
    "Table",
    "TrainResult",
    "client_app",
    "read_csv",
    "scaled",
    "secure_mean",
    "server_app",
    "training_plan",
]
