from __future__ import annotations

import numpy as np
import pytest

from comity.core.aggregate.mean import weighted_mean
from comity.core.privacy.event import (
    Mechanism,
    Plan,
    PrivacyEvent,
    Sampling,
    Spend,
)
from comity.core.privacy.plan import largest_that_fits, training_plan
from comity.errors import ConfigError, DataError


def test_a_training_plan_counts_each_step_of_each_round() -> None:
    plan = training_plan(rounds=4, steps_per_round=3, sampling_rate="0.5", noise_multiplier="2")
    (spend,) = plan.spends
    assert spend.count == 12
    assert spend.event.sampling is Sampling.POISSON
    assert spend.event.mechanism is Mechanism.DISCRETE_GAUSSIAN


@pytest.mark.parametrize(("rounds", "steps"), [(0, 1), (1, 0)])
def test_a_plan_without_steps_is_refused(rounds: int, steps: int) -> None:
    with pytest.raises(ConfigError):
        training_plan(rounds=rounds, steps_per_round=steps, sampling_rate="1", noise_multiplier="1")


@pytest.mark.parametrize("fitting", range(8))
def test_the_largest_count_that_fits_is_found(fitting: int) -> None:
    assert largest_that_fits(7, lambda count: count <= fitting) == min(fitting, 7)


def test_equal_plans_are_equal_values_whatever_the_order() -> None:
    one = Spend(PrivacyEvent(Mechanism.GAUSSIAN, "1"), 2)
    two = Spend(PrivacyEvent(Mechanism.LAPLACE, "0.5"))
    assert Plan.of([one, two, two]) == Plan.of([two]) + Plan.of([two, one])


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"parameter": "0"}, "parameter"),
        ({"parameter": "x"}, "parameter"),
        ({"parameter": "NaN"}, "parameter"),
        ({"parameter": "1", "sampling": Sampling.POISSON, "sampling_rate": "0"}, "sampling_rate"),
        ({"parameter": "1", "sampling_rate": "0.5"}, "sampling is none"),
    ],
)
def test_an_event_that_describes_nothing_is_refused(fields: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        PrivacyEvent(Mechanism.GAUSSIAN, **fields)  # type: ignore[arg-type]  # the table's point


def test_a_spend_counts_at_least_one() -> None:
    with pytest.raises(ConfigError, match="count"):
        Spend(PrivacyEvent(Mechanism.GAUSSIAN, "1"), 0)


def test_an_event_is_read_back_as_it_was_written() -> None:
    event = PrivacyEvent(Mechanism.GAUSSIAN, "1.10", Sampling.POISSON, "0.1")
    assert PrivacyEvent.from_record(event.as_record()) == event


@pytest.mark.parametrize(
    "change", [{"schema_version": 2}, {"mechanism": "magic"}, {"sampling": None}]
)
def test_an_event_of_another_schema_or_kind_is_not_guessed_at(change: dict[str, object]) -> None:
    record = {**PrivacyEvent(Mechanism.GAUSSIAN, "1").as_record(), **change}
    with pytest.raises(ConfigError):
        PrivacyEvent.from_record(record)


def test_an_event_that_lacks_a_field_is_refused() -> None:
    record: dict[str, object] = {**PrivacyEvent(Mechanism.GAUSSIAN, "1").as_record()}
    del record["parameter"]
    with pytest.raises(ConfigError, match="parameter"):
        PrivacyEvent.from_record(record)


def test_the_mean_is_weighted_and_keeps_types() -> None:
    mean = weighted_mean(
        [
            ({"w": np.array([0.0], np.float32), "n": np.array([1])}, 1.0),
            ({"w": np.array([4.0], np.float32), "n": np.array([4])}, 3.0),
        ]
    )
    assert mean["w"] == 3.0
    assert mean["w"].dtype == np.float32
    assert mean["n"].dtype == np.int64
    assert mean["n"] == 3


ONE = {"w": np.ones(2)}


@pytest.mark.parametrize(
    ("contributions", "words"),
    [
        ([], "no contribution"),
        ([(ONE, 1.0), ({"v": np.ones(2)}, 1.0)], "names other arrays"),
        ([(ONE, 1.0), ({"w": np.ones(3)}, 1.0)], "shape"),
        ([(ONE, 1.0), ({"w": np.array([1.0, np.nan])}, 1.0)], "NaN"),
        ([(ONE, 0.0)], "weight above 0"),
        ([(ONE, -1.0)], "weight -1"),
        ([(ONE, float("nan"))], "weight nan"),
    ],
)
def test_what_cannot_be_averaged_is_refused(
    contributions: list[tuple[dict[str, np.ndarray], float]], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        weighted_mean(contributions)


def test_integer_arrays_need_no_check_for_nan() -> None:
    assert weighted_mean([({"n": np.array([2])}, 1.0)])["n"] == 2
