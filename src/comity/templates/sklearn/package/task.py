"""The model and the data: a linear classifier on the Wisconsin breast-cancer records."""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier

CLASSES = np.array([0, 1])
# Fixed beforehand: sites that scaled by their own records would not mean the same by a weight.
SCALE = np.array(
    "30 40 200 2000 .2 .4 .5 .2 .3 .1 3 5 20 500 .03 .2 .4 .05 .08 .03 40 50 300 4000 .3 1 1.2 "
    ".3 .7 .2".split(),
    dtype=float,
)


def load_data(partition_id: int, num_partitions: int) -> tuple[np.ndarray, ...]:
    """One site's records as (train x, train y, test x, test y). Put your own data here."""
    records = load_breast_cancer()
    mine = np.random.default_rng(0).permutation(len(records.data))[partition_id::num_partitions]
    x, y = records.data[mine] / SCALE, records.target[mine]
    cut = len(mine) * 4 // 5
    return x[:cut], y[:cut], x[cut:], y[cut:]


def new_model() -> list[np.ndarray]:
    """Coefficients and intercept that a run starts from."""
    return [np.zeros((1, len(SCALE))), np.zeros(1)]


def classifier(arrays: list[np.ndarray], alpha: float) -> SGDClassifier:
    """A scikit-learn estimator that holds the given arrays."""
    found = SGDClassifier(loss="log_loss", alpha=alpha, random_state=0)
    found.classes_ = CLASSES
    found.coef_, found.intercept_ = (array.copy() for array in arrays)
    return found


def arrays_of(estimator: SGDClassifier) -> list[np.ndarray]:
    """What travels of an estimator."""
    return [estimator.coef_, estimator.intercept_]
