"""Any Flower app whose strategy takes a mean gives the plain run's result under secure sums.

How near: a site rounds its weighted update to a whole number of steps, by at most half a step in
the ring of 32 bits and one step in that of 16, so the mean of n sites is off by at most `quantum`
below. Training here moves towards fixed points, so errors of earlier rounds shrink; a server
optimizer that divides by sqrt(v) + tau may enlarge them by eta / tau.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy
from tests.fakes import summing
from tests.fakes.summing import Asked, Seen, client, fitted, ran, records, scored, starting

import comity
from comity.adapters.flower.app_file import read_app
from comity.adapters.flower.engine import EngineSettings, RunOutcome, run_app
from comity.bootstrap.sums import with_sums
from comity.core.policy.rule import SumPolicy
from comity.errors import CohortTooSmall, StrategyRefused, UnavailableError
from comity.events import AttemptVoid, SiteDropped, SumOpened
from comity.services.sum_plan import SumSettings

START: dict[str, Any] = {"w": np.linspace(-1, 1, 30), "b": np.full((2, 3), 0.25, np.float32)}
LARGEST = 2.0
"""No value or update of these apps is larger."""
ROUNDS = 3

MEANS: dict[str, tuple[Callable[[], Strategy], float]] = {
    "FedAvg": (FedAvg, 1.0),
    "FedProx": (lambda: flower.FedProx(proximal_mu=0.1), 1.0),
    "FedAvgM": (lambda: flower.FedAvgM(server_learning_rate=0.7, server_momentum=0.5), 2.0),
    "FedAdam": (lambda: flower.FedAdam(eta=0.1, tau=0.1), 4.0),
    "FedYogi": (lambda: flower.FedYogi(eta=0.1, tau=0.1), 4.0),
    "FedAdagrad": (lambda: flower.FedAdagrad(eta=0.1, tau=0.1), 4.0),
}


def quantum(bits: int, sites: int, max_weight: int = 2**11, mean_weight: float = 500.0) -> float:
    """The most that one mean may be off by."""
    headroom, rounding = (16, 0.5) if bits == 32 else (2, 1.0)
    # The exponent is a whole number, so a step may be twice as large as the headroom asks.
    step: float = 2 * LARGEST * headroom * sites / 2.0 ** (bits - 1)
    # The largest weight of a later round is at most eight times the mean.
    share = mean_weight / max(max_weight, 8 * mean_weight)
    return rounding * step / share


def settings(bits: int = 32, **more: Any) -> SumSettings:
    return SumSettings(ring_bits=bits, first_max_weight=2**11, **more)


def same(outcomes: list[RunOutcome], within: float) -> None:
    plain, secure = outcomes
    assert list(plain.arrays) == list(secure.arrays) == ["arrays"]
    assert list(plain.arrays["arrays"]) == list(secure.arrays["arrays"])
    for name, array in plain.arrays["arrays"].items():
        found = secure.arrays["arrays"][name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        # A float32 result has its own rounding of 2**-24 besides.
        np.testing.assert_allclose(found, array, rtol=0, atol=within + LARGEST * 2.0**-22)
    assert list(plain.metrics) == list(secure.metrics)
    for name, history in plain.metrics.items():
        assert list(secure.metrics[name]) == list(history)
        for key, values in history.items():
            # Metrics are summed exactly; they differ as the models do, of 36 values.
            np.testing.assert_allclose(secure.metrics[name][key], values, atol=36 * within + 1e-9)


def failing_in_round_two(asked: Asked) -> Any:
    if asked.site == 1 and asked.number == 2:
        raise ValueError("a planted secret")
    return fitted(asked)


@pytest.mark.parametrize("bits", [32, 16])
@pytest.mark.parametrize("name", MEANS)
def test_a_mean_strategy_gives_the_plain_result_to_quantisation(name: str, bits: int) -> None:
    make, amplified = MEANS[name]
    outcomes, asked = [], []
    for how in (None, settings(bits)):
        seen = Seen()
        outcomes.append(ran(starting(make, START), client(seen, fitted), secure=how, seen=seen))
        assert sorted(seen.of("train")) == sorted([*range(4)] * ROUNDS)
        asked.append(seen.calls)
    assert asked[0] == asked[1]
    within = amplified * quantum(bits, 4)
    assert within < (1e-5 if bits == 32 else 0.1)
    same(outcomes, within)
    start = np.concatenate([np.ravel(value) for value in START.values()])
    end = np.concatenate([np.ravel(a) for a in outcomes[1].arrays["arrays"].values()])
    assert np.abs(start - end).max() > 0.05


@pytest.mark.parametrize("bits", [32, 16])
@pytest.mark.parametrize("name", ["FedAvg", "FedAdam"])
def test_a_site_that_raises_in_one_round_drops_out_and_the_run_goes_on_as_the_plain_one(
    name: str, bits: int
) -> None:
    make, amplified = MEANS[name]
    outcomes, dropped = [], []
    for how in (None, settings(bits)):
        seen = Seen()
        app = client(seen, failing_in_round_two)
        outcomes.append(ran(starting(make, START), app, secure=how, seen=seen))
        dropped.append([(e.site, e.error) for e in seen.events if isinstance(e, SiteDropped)])
        assert sorted(seen.of("train")) == sorted([*range(4)] * ROUNDS)
    assert dropped == [[("site-2", "ValueError")]] * 2
    same(outcomes, amplified * quantum(bits, 4))


@pytest.mark.parametrize("bits", [32, 16])
def test_half_of_the_nodes_are_the_same_nodes_and_give_the_plain_result(bits: int) -> None:
    outcomes, asked = [], []
    for how in (None, settings(bits)):
        seen = Seen()
        main = starting(lambda: FedAvg(fraction_train=0.5, fraction_evaluate=0.5), START)
        outcomes.append(ran(main, client(seen, fitted), sites=8, secure=how, seed=3))
        asked.append(seen.calls)
    assert asked[0] == asked[1]
    assert len({site for site, _ in asked[0]}) > 4
    same(outcomes, quantum(bits, 4))


# --- refused before any training --------------------------------------------------------------


class Ranking(FedAvg):
    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        return super().aggregate_train(server_round, replies)


def replaced() -> Strategy:
    strategy = FedAvg()
    strategy.aggregate_train = lambda *_: (None, None)  # type: ignore[method-assign]
    return strategy


def first_of(found: Any, _key: str) -> Any:
    return MetricRecord(dict(next(iter(found[0].metric_records.values()))))


REFUSED: dict[str, Callable[[], Strategy]] = {
    "FedMedian": flower.FedMedian,
    "FedTrimmedAvg": flower.FedTrimmedAvg,
    "Krum": flower.Krum,
    "MultiKrum": flower.MultiKrum,
    "QFedAvg": lambda: flower.QFedAvg(client_learning_rate=0.1),
    "Bulyan": flower.Bulyan,
    "FedXgbBagging": flower.FedXgbBagging,
    "FedXgbCyclic": flower.FedXgbCyclic,
    "DifferentialPrivacyServerSideFixedClipping": lambda: (
        flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 4)
    ),
    "DifferentialPrivacyServerSideAdaptiveClipping": lambda: (
        flower.DifferentialPrivacyServerSideAdaptiveClipping(
            FedAvg(), 1.0, 4, clipped_count_stddev=2.0
        )
    ),
    "DifferentialPrivacyClientSideFixedClipping": lambda: (
        flower.DifferentialPrivacyClientSideFixedClipping(FedAvg(), 1.0, 1.0, 4)
    ),
    "DifferentialPrivacyClientSideAdaptiveClipping": lambda: (
        flower.DifferentialPrivacyClientSideAdaptiveClipping(
            FedAvg(), 1.0, 4, clipped_count_stddev=2.0
        )
    ),
    "FedAvg has a train_metrics_aggr_fn": lambda: FedAvg(train_metrics_aggr_fn=first_of),
    "FedAdam has a evaluate_metrics_aggr_fn": lambda: flower.FedAdam(
        evaluate_metrics_aggr_fn=first_of
    ),
    "Ranking changes aggregate_train": Ranking,
    "FedAvg changes aggregate_train": replaced,
    "FedAvg weighs by 'loss'": lambda: FedAvg(weighted_by_key="loss"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_strategy_that_needs_single_replies_is_refused_before_any_training(name: str) -> None:
    seen = Seen()
    with pytest.raises(StrategyRefused) as refusal:
        ran(starting(REFUSED[name], START), client(seen, fitted), secure=SumSettings())
    assert name in refusal.value.message
    assert refusal.value.hint
    assert refusal.value.exit_code == 3
    assert seen.calls == []


def test_no_strategy_of_flower_s_is_left_undecided() -> None:
    known = {name for name in dir(flower) if inspect.isclass(getattr(flower, name))}
    assert known - {"Strategy", "Result"} == {*MEANS} | {*REFUSED} & known


def request(grid: Grid, kind: str = "train") -> list[Message]:
    content = records(START, round_number=1)
    return [Message(content, node, kind) for node in grid.get_node_ids()]


@pytest.mark.parametrize("how", ["send_and_receive", "push_messages"])
def test_a_hand_written_loop_is_refused_before_any_training(how: str) -> None:
    seen = Seen()
    with pytest.raises(StrategyRefused, match="train messages outside") as refusal:
        ran(
            lambda grid, _: getattr(grid, how)(request(grid)),
            client(seen, fitted),
            secure=SumSettings(),
        )
    assert "comity.secure_mean" in str(refusal.value.hint)
    assert seen.calls == []


class Unequal(FedAvg):
    def configure_train(self, *given: Any) -> Any:
        messages = list(super().configure_train(*given))
        for number, message in enumerate(messages):
            message.content = records(START, number=number)
        return messages


def test_a_strategy_that_sends_sites_different_content_is_refused() -> None:
    seen = Seen()
    with pytest.raises(StrategyRefused, match="different messages"):
        ran(starting(Unequal, START), client(seen, fitted), secure=SumSettings())
    assert seen.calls == []


# --- hand-written loops -----------------------------------------------------------------------


class InOrder(FedAvg):
    def configure_train(self, *given: Any) -> Any:
        messages = list(super().configure_train(*given))
        return sorted(messages, key=lambda message: message.metadata.dst_node_id)

    def configure_evaluate(self, *given: Any) -> Any:
        del given
        return []


def test_a_hand_written_loop_works_with_secure_mean() -> None:
    seen, found = Seen(), []

    def main(grid: Grid, context: Context) -> None:
        arrays = START
        for number in (1, 2):
            content = records(arrays, round_number=number)
            messages = [Message(content, node, "train") for node in grid.get_node_ids()]
            reply = comity.secure_mean(grid, messages)
            assert not reply.has_error()
            arrays = {name: a.numpy() for name, a in reply.content["arrays"].items()}  # type: ignore[union-attr]
            found.append(dict(reply.content["metrics"]))
        context.state["arrays"] = ArrayRecord({n: Array(a) for n, a in arrays.items()})

    secure = ran(main, client(seen, fitted), secure=settings())
    plain = ran(starting(InOrder, START, 2), client(Seen(), fitted))
    for name, array in plain.arrays["arrays"].items():
        np.testing.assert_allclose(secure.arrays["arrays"][name], array, atol=2 * quantum(32, 4))
    assert [metrics["num-examples"] for metrics in found] == [2600, 2600]
    assert [metrics["steps"] for metrics in found] == [5.0, 5.0]
    assert found[0]["loss"] == pytest.approx(plain.metrics["train"]["loss"][0])


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (lambda _: [], "no messages"),
        (lambda grid: request(grid)[:2] + request(grid, "evaluate")[2:], "different messages"),
        (lambda grid: [*request(grid), request(grid)[0]], "two messages"),
        (
            lambda grid: [Message(records(), node, "train") for node in grid.get_node_ids()],
            "0 array records",
        ),
    ],
)
def test_secure_mean_refuses_what_has_no_mean(
    messages: Callable[[Grid], list[Message]], words: str
) -> None:
    seen = Seen()
    with pytest.raises(StrategyRefused, match=words):
        ran(
            lambda grid, _: comity.secure_mean(grid, messages(grid)),  # type: ignore[arg-type]
            client(seen, fitted),
            secure=SumSettings(),
        )
    assert seen.calls == []


def test_secure_mean_of_a_run_without_secure_sums_says_how_to_get_them() -> None:
    with pytest.raises(StrategyRefused, match="no secure sums") as refusal:
        ran(
            lambda grid, _: comity.secure_mean(grid, request(grid)),  # type: ignore[arg-type]
            client(Seen(), fitted),
        )
    assert "--secure" in str(refusal.value.hint)


def test_queries_pass_through_one_reply_a_site() -> None:
    seen, found = Seen(), []

    def main(grid: Grid, context: Context) -> None:
        del context
        for kind in ("query", "query.describe"):
            messages = [Message(records(None, None, a=1), n, kind) for n in grid.get_node_ids()]
            found.append([r.content["metrics"]["site"] for r in grid.send_and_receive(messages)])
        ids = list(grid.push_messages([Message(records(), n, "query.describe") for n in [2, 3]]))
        pulled: list[Message] = []
        while len(pulled) < 2:
            pulled += grid.pull_messages(ids)
        found.append([r.content["metrics"]["site"] for r in pulled])
        assert grid.run.run_id
        grid.set_run(grid.run)
        message = grid.create_message(records(), "query.describe", 2, "group")
        (reply,) = grid.send_and_receive([message])
        assert reply.content["metrics"]["site"] == 0

    app = client(seen, fitted, describe=lambda asked: records(None, {"site": asked.site}))
    app.query()(
        lambda message, context: Message(
            records(None, {"site": int(context.node_config["partition-id"])}), reply_to=message
        )
    )
    ran(main, app, secure=SumSettings())
    assert found == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1]]


# --- values of every kind ---------------------------------------------------------------------


def once(
    train: Callable[[Asked], Any],
    start: dict[str, Any],
    how: SumSettings | None,
    seen: Seen | None = None,
    **more: Any,
) -> RunOutcome:
    rounds = more.pop("rounds", 1)
    main = starting(lambda: FedAvg(fraction_evaluate=0.0), start, rounds)
    return ran(main, client(seen or Seen(), train), secure=how, seen=seen, **more)


def test_arrays_of_every_real_dtype_and_shape_come_as_the_plain_mean_of_its_dtype() -> None:
    start: dict[str, Any] = {
        "half": np.ones(5, np.float16),
        "single": np.ones((2, 2), np.float32),
        "double": np.ones(3),
        "counter": np.asarray([7], np.int64),
        "small": np.asarray([1, 2], np.uint8),
        "empty": np.zeros((0, 4)),
        "fortran": np.asfortranarray(np.ones((3, 2))),
        "zero": np.zeros(4),
    }

    def train(asked: Asked) -> Any:
        arrays = {
            name: (array + asked.site + 1).astype(array.dtype)
            for name, array in asked.arrays.items()
        }
        return records(arrays, {"num-examples": 500})

    plain, secure = (once(train, start, how) for how in (None, settings()))
    for name, array in plain.arrays["arrays"].items():
        found = secure.arrays["arrays"][name]
        assert (name, found.dtype, found.shape) == (name, array.dtype, array.shape)
        np.testing.assert_allclose(found, array, atol=8 * 2.0**-10 if name == "half" else 1e-4)


def test_an_array_without_dimensions_keeps_its_shape() -> None:
    start = {"temperature": np.asarray(0.5), "w": np.ones(2)}

    def train(asked: Asked) -> Any:
        arrays = {name: np.asarray(array + asked.site) for name, array in asked.arrays.items()}
        return records(arrays, {"num-examples": 500})

    found: list[Any] = []

    def main(grid: Grid, context: Context) -> None:
        del context
        messages = [Message(records(start), n, "train") for n in grid.get_node_ids()]
        found.append(comity.secure_mean(grid, messages).content["arrays"]["temperature"].numpy())  # type: ignore[union-attr]

    ran(main, client(Seen(), train), secure=settings())
    assert found[0].shape == ()
    assert found[0] == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("bits", [32, 16])
def test_a_model_that_starts_at_zero_gets_scales_of_its_own(bits: int) -> None:
    start = {"w": np.zeros(20), "b": np.zeros(1, np.float32)}
    plain, secure = (
        ran(starting(FedAvg, start, 4), client(Seen(), fitted), secure=how)
        for how in (None, settings(bits))
    )
    same([plain, secure], quantum(bits, 4))


def test_values_that_do_not_fit_are_summed_coarser_without_training_again() -> None:
    def train(asked: Asked) -> Any:
        arrays = {name: array + 1000.0 * (asked.site + 1) for name, array in asked.arrays.items()}
        return records(arrays, {"num-examples": 1000})

    start = {"w": np.full(3, 0.5)}
    seen = Seen()
    secure = once(train, start, settings(), seen, rounds=2)
    assert sorted(seen.of("train")) == sorted([0, 1, 2, 3] * 2)
    opened = [event for event in seen.events if isinstance(event, SumOpened)]
    assert [event.attempts for event in opened] == [3, 1]
    causes = [event.cause for event in seen.events if isinstance(event, AttemptVoid)]
    assert len(causes) == 2
    assert all("range was too small" in cause for cause in causes)
    np.testing.assert_allclose(secure.arrays["arrays"]["w"], np.full(3, 5000.5), atol=0.1)


def test_weights_above_the_first_largest_weight_train_that_round_again_and_come_out_right() -> None:
    def train(asked: Asked) -> Any:
        arrays = {name: array + asked.site for name, array in asked.arrays.items()}
        return records(arrays, {"num-examples": 50_000 * (asked.site + 1)})

    seen = Seen()
    secure = once(train, {"w": np.ones(3)}, settings(), seen, rounds=2)
    assert sorted(seen.of("train")) == sorted([0, 1, 2, 3] * 3)
    np.testing.assert_allclose(secure.arrays["arrays"]["w"], np.full(3, 5.0), atol=1e-4)
    causes = [event.cause for event in seen.events if isinstance(event, AttemptVoid)]
    assert causes == ["weights were above the largest of the plan"]


def test_the_largest_weight_never_passes_what_the_terms_allow() -> None:
    terms = SumPolicy(max_weight=1500)
    secure = once(fitted, START, SumSettings(terms=terms), rounds=3)
    plain = once(fitted, START, None, rounds=3)
    np.testing.assert_allclose(
        secure.arrays["arrays"]["w"], plain.arrays["arrays"]["w"], atol=quantum(32, 4)
    )


def test_a_site_whose_metrics_change_their_names_is_refused_and_the_others_go_on() -> None:
    def train(asked: Asked) -> Any:
        extra = {"sick": 1.0} if (asked.site, asked.number) == (2, 2) else {"loss": 1.0}
        arrays = {name: array + asked.site for name, array in asked.arrays.items()}
        return records(arrays, {"num-examples": 500, **extra})

    seen = Seen()
    secure = once(train, {"w": np.ones(3)}, settings(), seen, rounds=2)
    dropped = [(e.site, e.error) for e in seen.events if isinstance(e, SiteDropped)]
    assert dropped == [("site-3", "DataError")]
    expected = 1 + (0 + 1 + 2 + 3) / 4 + (0 + 1 + 3) / 3
    np.testing.assert_allclose(secure.arrays["arrays"]["w"], np.full(3, expected), atol=1e-4)


def test_evaluate_alone_is_summed_under_the_app_s_own_names() -> None:
    def answer(asked: Asked) -> Any:
        content = records(None, {"num-examples": asked.site + 1, "accuracy": asked.site / 4})
        content["of-the-app"] = content.pop("metrics")
        return content

    found: list[Any] = []

    def main(grid: Grid, context: Context) -> None:
        del context
        messages = [Message(records(START), n, "evaluate") for n in grid.get_node_ids()]
        found.append(comity.secure_mean(grid, messages).content)

    ran(main, client(Seen(), fitted, answer), secure=SumSettings())
    assert list(found[0]) == ["of-the-app"]
    assert found[0]["of-the-app"]["num-examples"] == 10
    assert found[0]["of-the-app"]["accuracy"] == pytest.approx(0.5)


def test_configurations_reach_the_app_and_stay_at_the_site_in_its_reply() -> None:
    seen = Seen()

    def train(asked: Asked) -> Any:
        assert asked.message.content["config"]["lr"] == 0.5
        content = fitted(asked)
        content["secret"] = records(None, None, names=["alice", "bob"])["config"]
        content["metrics"]["each"] = [1.0, 2.0]  # type: ignore[assignment]  # a metric record
        return content

    found: list[Any] = []

    def main(grid: Grid, context: Context) -> None:
        del context
        messages = [Message(records(START, lr=0.5), n, "train") for n in grid.get_node_ids()]
        found.append(comity.secure_mean(grid, messages).content)

    ran(main, client(seen, train), secure=SumSettings())
    assert sorted(found[0]) == ["arrays", "metrics"]
    assert sorted(found[0]["metrics"]) == ["loss", "num-examples", "steps"]
    assert all(list(content) == ["arrays", "config"] for content in seen.contents)


# --- cohorts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sites", [1, 2])
def test_too_few_sites_for_a_secure_sum_are_refused_before_any_training(sites: int) -> None:
    seen = Seen()
    with pytest.raises(CohortTooSmall, match=f"{sites} sites") as refusal:
        ran(
            starting(lambda: FedAvg(min_available_nodes=1, min_train_nodes=1), START),
            client(seen, fitted),
            sites=sites,
            secure=SumSettings(),
        )
    assert refusal.value.exit_code == 3
    assert seen.calls == []


def test_three_sites_tolerate_no_dropout_and_the_run_says_so() -> None:
    def train(asked: Asked) -> Any:
        if asked.site == 1:
            raise ValueError
        return fitted(asked)

    with pytest.raises((CohortTooSmall, UnavailableError), match="sites"):
        ran(starting(FedAvg, START), client(Seen(), train), sites=3, secure=SumSettings())


def test_no_site_answers_and_the_run_says_so() -> None:
    def train(asked: Asked) -> Any:
        raise ValueError(asked.site)

    with pytest.raises((CohortTooSmall, UnavailableError)):
        ran(starting(FedAvg, START), client(Seen(), train), secure=SumSettings())


def test_a_hybrid_run_gives_the_same_mean() -> None:
    plain, secure = (once(fitted, START, how) for how in (None, settings(hybrid=True)))
    np.testing.assert_allclose(
        secure.arrays["arrays"]["w"], plain.arrays["arrays"]["w"], atol=quantum(32, 4)
    )


# --- in worker processes ----------------------------------------------------------------------

PROJECT = """
[project]
name = "anyapp"
[tool.flwr.app.components]
serverapp = "secure_any_app.server:app"
clientapp = "secure_any_app.client:app"
[tool.flwr.app.config]
strategy = "FedAvg"
deed = "none"
timeout-s = 60.0
"""
CLIENT = """
import time
import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    assert sorted(message.content) == ["arrays", "config"]
    site = context.node_config["partition-id"]
    if site == 1 and message.content["config"]["server-round"] == 2:
        if context.run_config["deed"] == "raise":
            raise ValueError
        if context.run_config["deed"] == "hang":
            time.sleep(60)
    arrays = [
        (a + 0.25 * (np.cos(np.arange(a.size) + site).reshape(a.shape) - a)
         + 0.01 * np.random.randn(*a.shape)).astype(a.dtype)
        for a in message.content["arrays"].to_numpy_ndarrays()
    ]
    loss = float(abs(arrays[0]).sum())
    metrics = MetricRecord({"num-examples": 500 + 100 * site, "loss": loss})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content, reply_to=message)
@app.evaluate()
def evaluate(message, context):
    metrics = MetricRecord({"num-examples": 50, "noise": float(np.random.rand())})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
"""
SERVER = """
import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp, strategy
app = ServerApp()
@app.main()
def main(grid, context):
    config = context.run_config
    more = {} if config["strategy"] == "FedAvg" else {"tau": 0.1}
    made = getattr(strategy, config["strategy"])(**more)
    start = ArrayRecord([np.linspace(-1, 1, 40), np.ones((2, 3), np.float32)])
    result = made.start(grid, start, num_rounds=3, timeout=config["timeout-s"])
    context.state["arrays"] = result.arrays
    for name in ("train", "evaluate"):
        history = getattr(result, f"{name}_metrics_clientapp")
        keys = sorted({key for record in history.values() for key in record})
        context.state[name] = MetricRecord(
            {key: [history[number][key] for number in sorted(history)] for key in keys}
        )
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "secure_any_app"
    package.mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (package / "__init__.py").write_text("")
    (package / "client.py").write_text(CLIENT)
    (package / "server.py").write_text(SERVER)
    return tmp_path


def in_processes(
    folder: Path,
    how: SumSettings | None,
    *overrides: str,
    seen: Seen | None = None,
    count: int = 4,
) -> RunOutcome:
    sites, sums = summing.simulated(count), None
    if how is not None:
        sites, sums = with_sums(sites, how, summing.EVERYTHING, summing.FEDERATION)
    told = (seen or Seen()).events.append
    return run_app(read_app(folder, overrides), sites, EngineSettings(workers=3), told, sums)


@pytest.mark.parametrize(("name", "deed"), [("FedAvg", "raise"), ("FedAdam", "none")])
def test_apps_in_worker_processes_give_the_plain_result_too(
    folder: Path, name: str, deed: str
) -> None:
    how = (f"strategy='{name}'", f"deed='{deed}'")
    plain, secure = (in_processes(folder, one, *how) for one in (None, settings()))
    same([plain, secure], MEANS[name][1] * quantum(32, 4))


def test_a_site_that_hangs_drops_out_and_the_run_goes_on(folder: Path) -> None:
    how, seen = ("deed='hang'", "timeout-s=4.0"), Seen()
    secure = in_processes(folder, settings(), *how, seen=seen, count=8)
    dropped = [(e.site, e.error) for e in seen.events if isinstance(e, SiteDropped)]
    assert ("site-2", "TimeoutError") in dropped
    assert len(dropped) <= 2, "a call may wait in the hand of the worker that hangs"
    opened = [e for e in seen.events if isinstance(e, SumOpened)]
    assert [e.dropped for e in opened if e.message_type == "train"] == [0, len(dropped), 0]
    assert len(secure.metrics["train"]["loss"]) == 3


def test_scored_depends_on_the_model_so_that_equal_histories_mean_something() -> None:
    first, second = (
        scored(Asked(0, 1, Message(records({"w": np.full(3, value)}), 2, "evaluate")))
        for value in (1.0, 2.0)
    )
    assert first["metrics"] != second["metrics"]
