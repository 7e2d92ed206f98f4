"""How good a classifier is on records that it did not train on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comity.errors import DataError


def accuracy(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """The fraction of records whose most probable class is their label.

    Args:
        labels: Shape (n,).
        probabilities: Shape (n, classes).
    """
    _check_some(labels)
    return float(np.mean(np.argmax(probabilities, axis=1) == labels))


def auc(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """The area under the ROC curve: the chance that a record of class 1 outscores one of class 0.

    Exact, by mid-ranks, so that ties count one half (Hanley and McNeil 1982).

    Args:
        labels: 0 or 1, shape (n,).
        scores: Higher means class 1, shape (n,).

    Raises:
        DataError: One of the two classes is missing.
    """
    _check_some(labels)
    positives = int(np.sum(labels == 1))
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise DataError("AUC needs records of both classes", hint="hold back records of each class")
    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    del values
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(np.sum(mid_ranks[inverse][labels == 1]))
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def scores_of(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, float]:
    """``accuracy``, and ``auc`` where there are two classes and records of both."""
    result = {"accuracy": accuracy(labels, probabilities)}
    if probabilities.shape[1] == 2 and len(np.unique(labels)) == 2:  # noqa: PLR2004 - two classes
        result["auc"] = auc(labels, probabilities[:, 1])
    return result


def _check_some(labels: NDArray[np.int64]) -> None:
    if not len(labels):
        raise DataError("the data set is empty", hint="give it at least one record")
