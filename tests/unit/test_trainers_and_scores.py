from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB

from comity.adapters.train.linear import LinearTrainer
from comity.adapters.train.mlp import MlpTrainer
from comity.adapters.train.privacy import DpSgd
from comity.adapters.train.scores import accuracy, auc, scores_of
from comity.adapters.train.sklearn_estimator import SklearnTrainer
from comity.adapters.train.steps import unflat
from comity.errors import ConfigError, DataError
from comity.ports import Arrays, Table


class SeededBytes:
    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)

    def token(self, size: int) -> bytes:
        return self._draw.bytes(size)


def loss(model: LinearTrainer | MlpTrainer, arrays: Arrays, row: Any, label: int) -> float:
    return -float(np.log(model.probabilities(arrays, row[None])[0, label]))


@pytest.mark.parametrize("model", [LinearTrainer(4, 3), MlpTrainer(4, 5, 3, seed=1)])
def test_each_record_s_gradient_is_the_loss_s_own(model: LinearTrainer | MlpTrainer) -> None:
    draw = np.random.default_rng(0)
    start = model.initial()
    flat = draw.normal(size=sum(array.size for array in start.values()))
    rows, labels = draw.normal(size=(6, 4)), draw.integers(0, 3, 6)
    given = model.gradients(unflat(flat, start), rows, labels)
    for number in range(6):
        for place in range(len(flat)):
            nudge = np.zeros_like(flat)
            nudge[place] = 1e-6
            up = loss(model, unflat(flat + nudge, start), rows[number], labels[number])
            down = loss(model, unflat(flat - nudge, start), rows[number], labels[number])
            assert given[number, place] == pytest.approx((up - down) / 2e-6, abs=1e-5)


def records(rows: Any) -> Table:
    features = np.asarray(rows, dtype=np.float64)
    return Table(features, np.zeros(len(features), np.int64), ("a", "b"), ("no", "yes"))


def private(noise: str = "0.001", rate: str = "1") -> LinearTrainer:
    return LinearTrainer(2, learning_rate=1.0, privacy=DpSgd(0.5, noise, rate, 10))


def test_a_step_divides_by_the_expected_batch_never_by_the_one_that_came() -> None:
    few = private().fit(private().initial(), records([[1, 0]]), SeededBytes(0))
    many = private().fit(private().initial(), records([[1, 0]] * 4), SeededBytes(0))
    assert np.allclose(many.arrays["weights"], 4 * few.arrays["weights"], atol=1e-3)


def test_a_record_that_is_not_a_number_moves_nothing() -> None:
    clean = private().fit(private().initial(), records([[1, 0]]), SeededBytes(1))
    dirty = private().fit(private().initial(), records([[1, 0], [np.nan, 1]]), SeededBytes(1))
    for name, array in dirty.arrays.items():
        assert np.isfinite(array).all()
        assert np.allclose(array, clean.arrays[name], atol=1e-3)


def test_a_huge_record_moves_no_more_than_the_clip_norm() -> None:
    huge = private().fit(private().initial(), records([[1e200, 0]]), SeededBytes(2))
    size = np.sqrt(sum(float(np.sum(array**2)) for array in huge.arrays.values()))
    assert size <= 0.5 / 10 + 1e-3


def test_an_empty_batch_still_gives_noise() -> None:
    privacy = DpSgd(0.5, "1", "1e-18", 10)
    for model in (LinearTrainer(2, privacy=privacy), MlpTrainer(2, privacy=privacy)):
        start = model.initial()
        given = model.fit(start, records([[1, 0]]), SeededBytes(3))
        assert all(np.all(array != start[name]) for name, array in given.arrays.items())


def test_two_fits_draw_other_noise() -> None:
    rng = SeededBytes(4)
    one, two = (private().fit(private().initial(), records([[1, 0]]), rng) for _ in range(2))
    assert not np.array_equal(one.arrays["weights"], two.arrays["weights"])


def test_weight_decay_pulls_toward_zero() -> None:
    start = {"weights": np.ones((2, 2)), "bias": np.zeros(2)}
    decayed = LinearTrainer(2, l2=0.1).fit(start, records([[0, 0]]), SeededBytes(5))
    assert np.allclose(decayed.arrays["weights"], 0.9)


def test_expected_records_are_at_least_one() -> None:
    with pytest.raises(ConfigError, match="expected_records"):
        DpSgd(1.0, "1", "1", 0)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 1], [0.1, 0.9], 1.0),
        ([0, 1], [0.9, 0.1], 0.0),
        ([0, 1], [0.5, 0.5], 0.5),
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
        ([0, 1, 1, 0, 1], [0.2, 0.2, 0.9, 0.1, 0.2], 5 / 6),
    ],
)
def test_auc_counts_pairs_and_ties_as_one_half(
    labels: list[int], scores: list[float], expected: float
) -> None:
    assert auc(np.array(labels), np.array(scores)) == pytest.approx(expected)


def test_auc_of_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="both classes"):
        auc(np.array([1, 1]), np.array([0.1, 0.2]))


def test_scores_leave_auc_out_where_it_means_nothing() -> None:
    only_one = scores_of(np.array([1, 1]), np.array([[0.2, 0.8], [0.9, 0.1]]))
    three = scores_of(np.array([0, 2]), np.eye(3)[[0, 2]])
    assert only_one == {"accuracy": 0.5}
    assert three == {"accuracy": 1.0}


def test_accuracy_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        accuracy(np.zeros(0, np.int64), np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("make", "words"),
    [(LinearRegression, "no partial_fit"), (GaussianNB, "no arrays whose mean is a model")],
)
def test_an_estimator_that_cannot_be_averaged_is_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{make.__name__} has {words}"):
        SklearnTrainer(make, 2).initial()


def test_three_classes_are_trained_and_scored_by_margin() -> None:
    from sklearn.linear_model import SGDClassifier  # noqa: PLC0415 - beside the other estimators

    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 300)
    features = np.eye(3)[labels][:, :2] + draw.normal(0, 0.1, (300, 2))
    data = Table(features, labels, ("a", "b"), ("x", "y", "z"))
    trainer = SklearnTrainer(lambda: SGDClassifier(random_state=0), 2, classes=3, passes=5)
    given = trainer.fit(trainer.initial(), data, SeededBytes(0))
    assert trainer.evaluate(given.arrays, data)["accuracy"] > 0.8
