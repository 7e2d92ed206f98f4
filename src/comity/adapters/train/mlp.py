"""A network of one hidden layer in NumPy, plain or with record-level differential privacy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comity.adapters.train.linear import softmax
from comity.adapters.train.privacy import DpSgd
from comity.adapters.train.scores import scores_of
from comity.adapters.train.steps import check_settings, check_table, descend, rowwise
from comity.ports import Arrays, Contribution, Metrics, Rng, Table


@dataclass(frozen=True, slots=True)
class MlpTrainer:
    """One hidden layer of rectified units; otherwise as `LinearTrainer`.

    Attributes:
        features: Number of features.
        hidden: Units of the hidden layer.
        classes: Number of classes.
        steps: Gradient steps in one call of `fit`.
        learning_rate: Step size.
        l2: Weight decay.
        seed: Of the first arrays; equal at every site.
        privacy: DP-SGD, or None.
    """

    features: int
    hidden: int = 32
    classes: int = 2
    steps: int = 1
    learning_rate: float = 0.5
    l2: float = 0.0
    seed: int = 0
    privacy: DpSgd | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def initial(self) -> Arrays:
        """He-normal weights from `seed` (He et al. 2015), zero biases, float64."""
        draw = np.random.default_rng(self.seed)
        return {
            "hidden-weights": draw.normal(
                0, np.sqrt(2 / self.features), (self.features, self.hidden)
            ),
            "hidden-bias": np.zeros(self.hidden),
            "weights": draw.normal(0, np.sqrt(2 / self.hidden), (self.hidden, self.classes)),
            "bias": np.zeros(self.classes),
        }

    def fit(self, arrays: Arrays, data: Table, rng: Rng) -> Contribution:
        """Trains `steps` steps from `arrays`.

        Raises:
            DataError: The table does not fit the model, or the arrays are not the model's.
        """
        check_table(data, self.features, self.classes)
        return descend(self, arrays, data, rng)

    def evaluate(self, arrays: Arrays, data: Table) -> Metrics:
        """``accuracy``, and ``auc`` for two classes."""
        check_table(data, self.features, self.classes)
        return scores_of(data.labels, self.probabilities(arrays, data.features))

    def probabilities(self, arrays: Arrays, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Class probabilities, shape (n, classes)."""
        return softmax(self._hidden(arrays, features) @ arrays["weights"] + arrays["bias"])

    def gradients(
        self, arrays: Arrays, features: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Each record's gradient of the cross-entropy, flat, in the arrays' order.

        A record's gradient depends on that record alone, to the last bit.
        """
        records = len(labels)
        hidden = np.maximum(
            rowwise(features, arrays["hidden-weights"]) + arrays["hidden-bias"], 0.0
        )
        error = softmax(rowwise(hidden, arrays["weights"]) + arrays["bias"])
        error[np.arange(records), labels] -= 1.0
        inner = rowwise(error, arrays["weights"].T) * (hidden > 0)
        parts = (
            (features[:, :, None] * inner[:, None, :]).reshape(
                records, self.features * self.hidden
            ),
            inner,
            (hidden[:, :, None] * error[:, None, :]).reshape(records, self.hidden * self.classes),
            error,
        )
        return np.concatenate(parts, axis=1)

    def _hidden(self, arrays: Arrays, features: NDArray[np.float64]) -> NDArray[np.float64]:
        units: NDArray[np.float64] = np.maximum(
            features @ arrays["hidden-weights"] + arrays["hidden-bias"], 0.0
        )
        return units
