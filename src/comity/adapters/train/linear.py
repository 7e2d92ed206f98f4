"""Logistic regression in NumPy, plain or with record-level differential privacy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comity.adapters.train.privacy import DpSgd
from comity.adapters.train.scores import scores_of
from comity.adapters.train.steps import check_settings, check_table, descend, rowwise
from comity.ports import Arrays, Contribution, Metrics, Rng, Table


@dataclass(frozen=True, slots=True)
class LinearTrainer:
    """Multinomial logistic regression by gradient descent.

    With `privacy`, each step draws a Poisson batch, clips each record's gradient, adds discrete
    Gaussian noise and divides by the expected batch; an empty batch still releases noise. What a
    round gives is then the average of its steps' arrays, which is less noisy and costs nothing.

    Attributes:
        features: Number of features.
        classes: Number of classes, at least 2.
        steps: Gradient steps in one call of `fit`.
        learning_rate: Step size.
        l2: Weight decay; data-free, so it costs no privacy.
        privacy: DP-SGD, or None for plain full-batch steps.
    """

    features: int
    classes: int = 2
    steps: int = 1
    learning_rate: float = 1.0
    l2: float = 0.0
    privacy: DpSgd | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def initial(self) -> Arrays:
        """Zeros: ``weights`` (features, classes) and ``bias`` (classes,), float64."""
        return {
            "weights": np.zeros((self.features, self.classes)),
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
        return softmax(features @ arrays["weights"] + arrays["bias"])

    def gradients(
        self, arrays: Arrays, features: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Each record's gradient of the cross-entropy, shape (n, features * classes + classes).

        A record's gradient depends on that record alone, to the last bit.
        """
        error = softmax(rowwise(features, arrays["weights"]) + arrays["bias"])
        error[np.arange(len(labels)), labels] -= 1.0
        outer = features[:, :, None] * error[:, None, :]
        return np.concatenate(
            [outer.reshape(len(labels), self.features * self.classes), error], axis=1
        )


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of probabilities; never overflows."""
    with np.errstate(invalid="ignore"):
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    total: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return total
