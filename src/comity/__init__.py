"""Comity: train one model and answer one question together; each one's data stays at home."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from comity.api import (
        Answer,
        DpSgd,
        Federation,
        LinearTrainer,
        MlpTrainer,
        SiteReport,
        SklearnTrainer,
        Table,
        TrainResult,
        client_app,
        read_csv,
        scaled,
        secure_mean,
        server_app,
        training_plan,
    )

__version__ = "0.1.0"

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


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    """Imports a public name when it is first used, so that `import comity` stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'comity' has no attribute {name!r}")
    value = getattr(importlib.import_module("comity.api"), name)
    globals()[name] = value
    return value
