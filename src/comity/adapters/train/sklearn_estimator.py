"""Any scikit-learn classifier with `partial_fit` whose fitted arrays can be averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.adapters.train.scores import scores_of
from comity.adapters.train.steps import check_table
from comity.errors import ConfigError
from comity.ports import Arrays, Contribution, Metrics, Rng, Table

_AVERAGED: Final = ("coef_", "intercept_", "coefs_", "intercepts_")
"""Fitted attributes whose mean over sites is a model: linear ones, and multi-layer perceptrons."""


@dataclass(frozen=True, slots=True)
class SklearnTrainer:
    """Trains an estimator by `partial_fit`; states no privacy claim.

    Attributes:
        make_estimator: Makes a fresh estimator with its settings, such as
            ``lambda: SGDClassifier(loss="log_loss", random_state=0)``.
        features: Number of features.
        classes: Number of classes.
        passes: Calls of `partial_fit` over the whole table in one `fit`.
    """

    make_estimator: Callable[[], Any]
    features: int
    classes: int = 2
    passes: int = 1

    def initial(self) -> Arrays:
        """The arrays of an estimator that saw one zero record of each class, set to zero.

        Multi-layer perceptrons keep their random first weights (symmetry must be broken), which
        are equal at every caller where the estimator has a `random_state`.

        Raises:
            ConfigError: The estimator cannot be trained in parts, or its arrays cannot be averaged.
        """
        arrays = self._arrays(self._primed())
        if any(name.startswith("coefs_") for name in arrays):
            return arrays
        return {name: np.zeros_like(array) for name, array in arrays.items()}

    def fit(self, arrays: Arrays, data: Table, rng: Rng) -> Contribution:
        """`passes` passes over the table from `arrays`, records in their order; weight n.

        Raises:
            DataError: The table does not fit the model.
        """
        del rng  # the estimator's own random_state decides
        check_table(data, self.features, self.classes)
        estimator = self._with(arrays)
        for _ in range(self.passes):
            estimator.partial_fit(data.features, data.labels)
        metrics = scores_of(data.labels, self._probabilities(estimator, data.features))
        return Contribution(self._arrays(estimator), float(len(data.labels)), metrics)

    def evaluate(self, arrays: Arrays, data: Table) -> Metrics:
        """``accuracy``, and ``auc`` for two classes."""
        check_table(data, self.features, self.classes)
        return scores_of(data.labels, self._probabilities(self._with(arrays), data.features))

    def _primed(self) -> Any:  # noqa: ANN401 - scikit-learn has no types
        estimator = self.make_estimator()
        if not hasattr(estimator, "partial_fit"):
            raise ConfigError(
                f"{type(estimator).__name__} has no partial_fit",
                hint="use an estimator that trains in parts, such as SGDClassifier",
            )
        labels = np.arange(self.classes)
        estimator.partial_fit(np.zeros((self.classes, self.features)), labels, classes=labels)
        return estimator

    def _with(self, arrays: Arrays) -> Any:  # noqa: ANN401 - scikit-learn has no types
        estimator = self._primed()
        names = self._names(estimator)
        for name in names:
            value = getattr(estimator, name)
            if isinstance(value, list):
                setattr(
                    estimator,
                    name,
                    [np.array(arrays[f"{name}{index}"]) for index in range(len(value))],
                )
            else:
                setattr(estimator, name, np.array(arrays[name]))
        return estimator

    def _names(self, estimator: Any) -> tuple[str, ...]:  # noqa: ANN401 - scikit-learn has no types
        names = tuple(name for name in _AVERAGED if hasattr(estimator, name))
        if not names:
            raise ConfigError(
                f"{type(estimator).__name__} has no arrays whose mean is a model",
                hint="use a linear model or an MLPClassifier",
            )
        return names

    def _arrays(self, estimator: Any) -> dict[str, NDArray[np.float64]]:  # noqa: ANN401 - likewise
        result: dict[str, NDArray[np.float64]] = {}
        for name in self._names(estimator):
            value = getattr(estimator, name)
            if isinstance(value, list):
                result |= {f"{name}{index}": np.array(part) for index, part in enumerate(value)}
            else:
                result[name] = np.array(value, dtype=np.float64)
        return result

    def _probabilities(
        self,
        estimator: Any,  # noqa: ANN401 - likewise
        features: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        if hasattr(estimator, "predict_proba"):
            return np.asarray(estimator.predict_proba(features), dtype=np.float64)
        scores = np.asarray(estimator.decision_function(features), dtype=np.float64)
        if scores.ndim == 1:
            chance = 1 / (1 + np.exp(-scores))
            return np.stack([1 - chance, chance], axis=1)
        return scores
