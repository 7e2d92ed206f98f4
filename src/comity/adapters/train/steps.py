"""The descent that the NumPy trainers share, plain or private."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from comity.adapters.train.privacy import DpSgd
from comity.adapters.train.scores import scores_of
from comity.core.privacy.event import Spend
from comity.core.privacy.plan import training_event
from comity.errors import ConfigError, DataError
from comity.ports import Arrays, Contribution, Rng, Table

MAX_STEPS: Final = 100_000
MIN_RATE: Final = 1e-12
MAX_RATE: Final = 1e6


class Differentiable(Protocol):
    """A model that knows each record's own gradient."""

    def initial(self) -> Arrays:
        """The arrays that a run starts from."""

    @property
    def steps(self) -> int:
        """Gradient steps in one call of `fit`."""

    @property
    def learning_rate(self) -> float:
        """Step size."""

    @property
    def l2(self) -> float:
        """Weight decay."""

    @property
    def privacy(self) -> DpSgd | None:
        """DP-SGD, or None."""

    def gradients(
        self, arrays: Arrays, features: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Each record's gradient, flat, in the arrays' order; shape (n, d)."""

    def probabilities(self, arrays: Arrays, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Class probabilities."""


def descend(model: Differentiable, arrays: Arrays, data: Table, rng: Rng) -> Contribution:
    """Takes `model.steps` steps and says what they cost.

    Plain: full batches, weight n, and the train metrics. Private: weight 1, since a count of
    records would be a release of its own, the average of the steps' arrays, and no metrics.
    """
    _check_arrays(arrays, model.initial())
    flat = np.concatenate([array.reshape(-1) for array in arrays.values()])
    total = np.zeros_like(flat)
    privacy = model.privacy
    for _ in range(model.steps):
        current = unflat(flat, arrays)
        if privacy is None:
            step = model.gradients(current, data.features, data.labels).mean(axis=0)
        else:
            batch = privacy.batch(len(data.labels), rng)
            rows = model.gradients(current, data.features[batch], data.labels[batch])
            step = privacy.mean_gradient(rows, rng)
        with np.errstate(over="ignore", invalid="ignore"):  # the gate refuses what is not finite
            flat = flat - model.learning_rate * (step + model.l2 * flat)
            total += flat
    if privacy is None:
        result = unflat(flat, arrays)
        metrics = scores_of(data.labels, model.probabilities(result, data.features))
        return Contribution(result, float(len(data.labels)), metrics)
    event = training_event(privacy.sampling_rate, privacy.noise_multiplier)
    averaged = unflat(total / model.steps, arrays)
    return Contribution(averaged, 1.0, spends=(Spend(event, model.steps),))


def rowwise(rows: NDArray[np.float64], matrix: NDArray[Any]) -> NDArray[np.float64]:
    """``rows @ matrix``, each row by itself.

    One product over all rows rounds a row by how many others there are. With weights that cancel,
    one record more would then move every other record's gradient, and the sensitivity of their sum
    would be that of the whole batch.
    """
    product: NDArray[np.float64] = np.matmul(rows[:, None, :], matrix)[:, 0, :]
    return product


def check_settings(model: Differentiable) -> None:
    """Checks the settings that a run's configuration may choose.

    Raises:
        ConfigError: One is not sane; names it.
    """
    if not 1 <= model.steps <= MAX_STEPS:
        raise ConfigError(f"steps is {model.steps}", hint=f"set steps from 1 to {MAX_STEPS:,}")
    if not MIN_RATE <= model.learning_rate <= MAX_RATE:
        raise ConfigError(
            f"learning_rate is {model.learning_rate}",
            hint=f"set learning_rate from {MIN_RATE:g} to {MAX_RATE:g}",
        )
    if not 0 <= model.l2 <= MAX_RATE:
        raise ConfigError(f"l2 is {model.l2}", hint=f"set l2 from 0 to {MAX_RATE:g}")


def unflat(flat: NDArray[np.float64], like: Arrays) -> dict[str, NDArray[np.float64]]:
    """Arrays of the names and shapes of `like`, cut from one vector."""
    result, start = {}, 0
    for name, array in like.items():
        result[name] = flat[start : start + array.size].reshape(array.shape)
        start += array.size
    return result


def _check_arrays(arrays: Arrays, like: Arrays) -> None:
    """Checks that a coordinator's arrays are this model's: their names, shapes, and float64."""
    kinds = [
        {name: (array.shape, array.dtype) for name, array in found.items()}
        for found in (arrays, like)
    ]
    if list(arrays) != list(like) or kinds[0] != kinds[1]:
        raise DataError(
            "the arrays that came are not this model's",
            hint="start from the trainer's own initial arrays",
        )


def check_table(data: Table, features: int, classes: int) -> None:
    """Checks that a table fits a model.

    Raises:
        DataError: It is empty, or has other features or labels than the model.
    """
    if not len(data.labels):
        raise DataError("the data set is empty", hint="give it at least one record")
    if data.features.shape[1] != features:
        raise DataError(
            f"the data set has {data.features.shape[1]} features, the model {features}",
            hint="use the feature list that the federation agreed on",
        )
    if data.labels.min() < 0 or data.labels.max() >= classes:
        raise DataError(
            f"labels run from {data.labels.min()} to {data.labels.max()}; the model knows "
            f"0 to {classes - 1}"
        )
