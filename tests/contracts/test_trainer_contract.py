"""What every trainer guarantees; run over each one, plain and private."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from comity.adapters.train.linear import LinearTrainer
from comity.adapters.train.mlp import MlpTrainer
from comity.adapters.train.privacy import DpSgd
from comity.adapters.train.sklearn_estimator import SklearnTrainer
from comity.errors import DataError
from comity.ports import Table, Trainer

FEATURES = 3
PRIVACY = DpSgd(clip_norm=1.0, noise_multiplier="0.5", sampling_rate="0.5", expected_records=200)


class SystemBytes:
    def token(self, size: int) -> bytes:
        return os.urandom(size)


def sgd() -> Any:
    return SGDClassifier(loss="log_loss", random_state=0)


def network() -> Any:
    return MLPClassifier((8,), learning_rate_init=0.05, random_state=0)


TRAINERS: dict[str, Trainer] = {
    "linear": LinearTrainer(FEATURES, steps=20),
    "linear private": LinearTrainer(FEATURES, steps=20, privacy=PRIVACY),
    "mlp": MlpTrainer(FEATURES, hidden=8, steps=60),
    "mlp private": MlpTrainer(FEATURES, hidden=8, steps=40, privacy=PRIVACY),
    "scikit-learn linear": SklearnTrainer(sgd, FEATURES),
    "scikit-learn network": SklearnTrainer(network, FEATURES, passes=40),
    "scikit-learn margin": SklearnTrainer(lambda: SGDClassifier(random_state=0), FEATURES),
}


@pytest.fixture(params=TRAINERS)
def trainer(request: pytest.FixtureRequest) -> Trainer:
    return TRAINERS[request.param]


def table(records: int = 200) -> Table:
    draw = np.random.default_rng(7)
    features = draw.normal(size=(records, FEATURES))
    labels = (features[:, 0] - 0.5 * features[:, 1] > 0).astype(np.int64)
    return Table(features, labels, ("a", "b", "c"), ("no", "yes"))


def test_every_caller_starts_from_equal_arrays(trainer: Trainer) -> None:
    one, two = trainer.initial(), trainer.initial()
    assert list(one) == list(two)
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_it_learns_what_can_be_learned(trainer: Trainer) -> None:
    given = trainer.fit(trainer.initial(), table(), SystemBytes())
    scores = trainer.evaluate(given.arrays, table())
    assert scores["accuracy"] > 0.8
    assert scores["auc"] > 0.85


def test_what_it_gives_has_the_names_shapes_and_dtypes_of_what_it_got(trainer: Trainer) -> None:
    start = trainer.initial()
    given = trainer.fit(start, table(), SystemBytes())
    assert {name: (a.shape, a.dtype) for name, a in given.arrays.items()} == {
        name: (a.shape, a.dtype) for name, a in start.items()
    }


def test_what_it_got_is_unchanged(trainer: Trainer) -> None:
    start = trainer.initial()
    before = {name: array.copy() for name, array in start.items()}
    trainer.fit(start, table(), SystemBytes())
    assert all(np.array_equal(start[name], before[name]) for name in start)


def test_an_empty_data_set_is_refused(trainer: Trainer) -> None:
    with pytest.raises(DataError, match="empty"):
        trainer.fit(trainer.initial(), table(0), SystemBytes())


def test_other_features_than_the_model_s_are_refused(trainer: Trainer) -> None:
    wide = Table(np.zeros((2, 5)), np.array([0, 1]), tuple("abcde"), ("no", "yes"))
    with pytest.raises(DataError, match="5 features, the model 3"):
        trainer.fit(trainer.initial(), wide, SystemBytes())


def test_a_label_that_the_model_does_not_know_is_refused(trainer: Trainer) -> None:
    other = Table(np.zeros((2, 3)), np.array([0, 2]), tuple("abc"), ("no", "yes"))
    with pytest.raises(DataError, match="labels run from 0 to 2"):
        trainer.evaluate(trainer.initial(), other)


def test_a_private_fit_says_what_it_spent_and_tells_nothing_else(trainer: Trainer) -> None:
    given = trainer.fit(trainer.initial(), table(), SystemBytes())
    if given.spends:
        assert sum(spend.count for spend in given.spends) in {20, 40}
        assert given.weight == 1.0
        assert not given.metrics
    else:
        assert given.weight == 200.0
        assert "accuracy" in given.metrics
