"""The model and the data: logistic regression, on records that each site makes up."""

import numpy as np

FEATURES = 10
RECORDS = 300


def load_data(partition_id: int) -> tuple[np.ndarray, ...]:
    """One site's records as (train x, train y, test x, test y). Put your own data here."""
    rule = np.random.default_rng(2024).normal(size=FEATURES)  # the same at every site
    rng = np.random.default_rng(partition_id)
    shift = rng.normal(scale=0.5, size=FEATURES)  # each site sees other people
    x = rng.normal(size=(RECORDS, FEATURES)) + shift
    y = (x @ rule + rng.normal(scale=0.5, size=RECORDS) > 0).astype(float)
    cut = RECORDS * 4 // 5
    return x[:cut], y[:cut], x[cut:], y[cut:]


def new_model() -> list[np.ndarray]:
    """Weights and bias that a run starts from."""
    return [np.zeros(FEATURES), np.zeros(1)]


def fit(
    model: list[np.ndarray], x: np.ndarray, y: np.ndarray, epochs: int, learning_rate: float
) -> list[np.ndarray]:
    """The model after so many steps of gradient descent over all records."""
    weights, bias = (array.copy() for array in model)
    for _ in range(epochs):
        error = probability([weights, bias], x) - y
        weights -= learning_rate * x.T @ error / len(x)
        bias -= learning_rate * error.mean()
    return [weights, bias]


def loss(model: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """Mean log loss."""
    p = np.clip(probability(model, x), 1e-9, 1 - 1e-9)
    return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())


def accuracy(model: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """The share of records that the model gets right."""
    return float(((probability(model, x) > 0.5) == y).mean())


def probability(model: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """The probability of class 1, record by record."""
    weights, bias = model
    return 1 / (1 + np.exp(-np.clip(x @ weights + bias, -30, 30)))
