# ruff: noqa: ARG001, ARG005 - apps take what Flower hands them
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord
from flwr.app import RecordDict as Records
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from comity.adapters.flower.app import LoadedApp
from comity.adapters.flower.engine import EngineSettings, RunOutcome, run_app
from comity.adapters.flower.site_engine import SimulatedSite
from comity.core.policy.rule import PartKind, Rule, SitePolicy, TrainPolicy
from comity.errors import ConfigError, PolicyRefused, UnavailableError
from comity.events import Event, ExchangeFinished, RunFinished, SiteDropped
from comity.ids import SiteName
from comity.ports import Exchange
from comity.release import Released, Withheld
from comity.services.gate import Part, UnsafeSimulationGate

ServerMain = Callable[[Grid, Context], None]


class RuleDoor(UnsafeSimulationGate):
    """Withholds what its policy does not let out in the clear."""

    def __init__(self, policy: SitePolicy) -> None:
        self.policy = policy

    def release(
        self, exchange: Exchange, parts: Any, *, note: str = ""
    ) -> tuple[Released[Any] | Withheld, ...]:
        return tuple(self._one(exchange, part, note) for part in parts)

    def _one(self, exchange: Exchange, part: Part, note: str) -> Released[Any] | Withheld:
        rule = self.policy.train.rule_for(exchange.message_type, part.kind)
        if rule is not Rule.PLAIN:
            return Withheld(f"{exchange.message_type}.{part.kind} = {rule}", "it stays")
        (released,) = UnsafeSimulationGate().release(exchange, [part], note=note)
        return released


def client() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        value = float(context.node_config["partition-id"])
        content: Any = message.content
        arrays = ArrayRecord({"x": Array(content["a"]["x"].numpy() + value)})
        metrics = MetricRecord({"num-examples": 1, "value": value, "each": [value, value]})
        config = ConfigRecord({"partitions": context.node_config["num-partitions"]})
        return Message(Records({"a": arrays, "m": metrics, "c": config}), reply_to=message)

    @app.query("fail")
    def fail(message: Message, context: Context) -> Message:
        raise SystemExit("planted secret")

    @app.query("refuse")
    def refuse(message: Message, context: Context) -> Message:
        return Message(Error(99, "planted reason"), reply_to=message)

    @app.query("nothing")
    def nothing(message: Message, context: Context) -> Message:
        return None  # type: ignore[return-value]  # an app may do so

    @app.query("slow")
    def slow(message: Message, context: Context) -> Message:
        time.sleep(0.2)
        return Message(Records(), reply_to=message)

    @app.query("spoil")
    def spoil(message: Message, context: Context) -> Message:
        content: Any = message.content
        seen = {"x": content["c"]["x"], "list": list(content["c"]["list"])}
        content["c"]["x"] = 99
        content["c"]["list"].append(99)
        return Message(Records({"c": ConfigRecord(seen)}), reply_to=message)

    return app


def ran(
    main: ServerMain,
    *,
    sites: int = 3,
    policy: SitePolicy | None = None,
    app: ClientApp | None = None,
    events: list[Event] | None = None,
    **how: Any,
) -> RunOutcome:
    server = ServerApp()
    server.main()(main)
    door = UnsafeSimulationGate() if policy is None else RuleDoor(policy)
    here = [SimulatedSite(SiteName(f"site-{i}"), door, policy) for i in range(sites)]
    settings = EngineSettings(threads=True, **how)
    told = events if events is not None else []
    return run_app(LoadedApp("test", server, app or client()), here, settings, told.append)


def asking(grid: Grid, kind: str, content: Records | None = None) -> list[Message]:
    shared = content or Records()
    return [Message(shared, node, kind) for node in grid.get_node_ids()]


def training(grid: Grid) -> list[Message]:
    return asking(grid, "train", Records({"a": ArrayRecord({"x": Array(np.zeros(2))})}))


def test_replies_come_in_site_order_whatever_the_order_asked() -> None:
    def main(grid: Grid, context: Context) -> None:
        replies = list(grid.send_and_receive(reversed(training(grid))))
        nodes = [reply.metadata.src_node_id for reply in replies]
        assert nodes == sorted(nodes) == list(grid.get_node_ids())
        values = [reply.content["m"]["value"] for reply in replies]
        assert values == [0.0, 1.0, 2.0]
        assert replies[0].content["c"]["partitions"] == 3

    assert ran(main).replies == 3


def test_messages_can_be_pushed_and_pulled_by_hand() -> None:
    def main(grid: Grid, context: Context) -> None:
        ids = list(grid.push_messages(training(grid)))
        assert len(set(ids)) == 3
        pulled: list[Message] = []
        while len(pulled) < 3:
            pulled += grid.pull_messages(ids)
        assert {reply.metadata.reply_to_message_id for reply in pulled} == set(ids)
        assert list(grid.pull_messages(ids)) == []
        assert list(grid.pull_messages(["unknown"])) == []

    ran(main)


def test_pulling_gives_up_after_a_moment_so_that_a_loop_can_do_other_things() -> None:
    def main(grid: Grid, context: Context) -> None:
        ids = list(grid.push_messages(asking(grid, "query.slow")))
        rounds, pulled = 0, 0
        while pulled < 4:
            pulled += len(list(grid.pull_messages(ids)))
            rounds += 1
        assert rounds >= 2

    ran(main, sites=4)


def test_what_the_caller_changes_after_pushing_does_not_reach_the_sites() -> None:
    def main(grid: Grid, context: Context) -> None:
        config = ConfigRecord({"x": 1, "list": [1]})
        ids = list(grid.push_messages(asking(grid, "query.spoil", Records({"c": config}))))
        config["x"] = 2
        for reply in grid.pull_messages(ids):
            assert reply.content["c"]["x"] == 1

    ran(main)


def test_each_receiver_has_records_of_its_own() -> None:
    def main(grid: Grid, context: Context) -> None:
        config = ConfigRecord({"x": 1, "list": [1]})
        content = Records({"c": config})
        for reply in grid.send_and_receive(asking(grid, "query.spoil", content)):
            assert (reply.content["c"]["x"], reply.content["c"]["list"]) == (1, [1])
        assert config == {"x": 1, "list": [1]}

    ran(main)


def test_the_grid_shows_its_run_and_makes_messages() -> None:
    def main(grid: Grid, context: Context) -> None:
        assert grid.run.run_id == context.run_id
        message = grid.create_message(Records(), "query.slow", 2, "g", ttl=60.0)
        assert (message.metadata.group_id, message.metadata.ttl) == ("g", 60.0)
        (reply,) = grid.send_and_receive([message])
        assert reply.metadata.group_id == "g"
        assert [node.node_id for node in grid.get_nodes()] == [2]
        grid.set_run(grid.run)

    ran(main, sites=1)


def test_a_message_to_a_node_that_does_not_exist_is_an_error_of_the_server() -> None:
    def main(grid: Grid, context: Context) -> None:
        grid.push_messages([Message(Records(), 999, "train")])

    with pytest.raises(ConfigError, match="ValueError: node 999 does not exist"):
        ran(main)


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        ("query.fail", 2, "SystemExit"),
        ("query.nothing", 2, "TypeError"),
        ("query.unknown", 2, "ValueError"),
        ("query.refuse", 2, "planted reason"),
    ],
)
def test_a_failed_call_is_an_error_reply(kind: str, code: int, reason: str) -> None:
    seen: list[Error] = []

    def main(grid: Grid, context: Context) -> None:
        list(grid.send_and_receive(training(grid)))
        seen.extend(reply.error for reply in grid.send_and_receive(asking(grid, kind)))

    events: list[Event] = []
    ran(main, events=events)
    assert {(error.code, error.reason) for error in seen} == {(code, reason)}
    assert sum(isinstance(event, SiteDropped) for event in events) == 3


def test_a_run_in_which_no_site_ever_answers_fails() -> None:
    def main(grid: Grid, context: Context) -> None:
        list(grid.send_and_receive(asking(grid, "query.fail")))

    with pytest.raises(UnavailableError, match=r"no site ever gave .* SystemExit \(3\)"):
        ran(main)


def test_late_replies_are_left_out_and_reach_nobody() -> None:
    def main(grid: Grid, context: Context) -> None:
        replies = list(grid.send_and_receive(asking(grid, "query.slow"), timeout=0.3))
        assert 1 <= len(replies) < 3
        assert len(list(grid.send_and_receive(training(grid)))) == 3

    outcome = ran(main)
    assert outcome.dropouts["TimeoutError"] >= 1


def test_lifespan_hooks_of_both_apps_run() -> None:
    order: list[str] = []
    server, app = ServerApp(), client()

    @server.lifespan()
    def of_server(context: Context) -> Iterator[None]:
        order.append("server starts")
        yield
        order.append("server ends")

    @app.lifespan()
    def of_client(context: Context) -> Iterator[None]:
        order.append("client starts")
        yield
        order.append("client ends")

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        list(grid.send_and_receive(training(grid)))

    site = SimulatedSite(SiteName("site-1"), UnsafeSimulationGate())
    run_app(LoadedApp("test", server, app), [site], EngineSettings(threads=True))
    assert order == ["server starts", "client starts", "client ends", "server ends"]


def test_what_happened_is_told() -> None:
    events: list[Event] = []

    def main(grid: Grid, context: Context) -> None:
        assert list(grid.send_and_receive([])) == []
        list(grid.send_and_receive(training(grid)))

    outcome = ran(main, events=events)
    finished = [event for event in events if isinstance(event, ExchangeFinished)]
    assert [(e.number, e.message_type, e.asked, e.dropouts) for e in finished] == [
        (1, "train", 3, 0)
    ]
    assert isinstance(events[-1], RunFinished)
    assert outcome.exchanges == 1
    assert set(outcome.released_bytes) == {"site-0", "site-1", "site-2"}
    assert min(outcome.released_bytes.values()) > 0


def test_what_the_server_leaves_in_its_state_is_the_result() -> None:
    def main(grid: Grid, context: Context) -> None:
        context.state["model"] = ArrayRecord({"w": Array(np.ones(2))})
        context.state["history"] = MetricRecord({"loss": [1.0, 0.5]})
        context.state["notes"] = ConfigRecord({"x": 1})

    outcome = ran(main)
    assert outcome.arrays["model"]["w"].tolist() == [1.0, 1.0]
    assert outcome.metrics == {"history": {"loss": [1.0, 0.5]}}


@pytest.mark.parametrize("code", [None, 0])
def test_a_server_that_exits_in_peace_ends_the_run(code: int | None) -> None:
    def main(grid: Grid, context: Context) -> None:
        raise SystemExit(code)

    assert ran(main).exchanges == 0


def test_a_server_that_fails_is_an_error_with_the_apps_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main(grid: Grid, context: Context) -> None:
        raise SystemExit(3)

    with pytest.raises(ConfigError, match="the ServerApp raised SystemExit: 3"):
        ran(main)
    err = capsys.readouterr().err
    assert "test_grid_local.py" in err
    assert "adapters/flower" not in err


@pytest.mark.parametrize("error", [SystemExit(1), ValueError("the display broke")])
def test_what_a_listener_raises_is_not_taken_for_the_apps(error: BaseException) -> None:
    def main(grid: Grid, context: Context) -> None:
        list(grid.send_and_receive(training(grid)))

    class Broken(list[Event]):
        def append(self, _: Event) -> None:
            raise error

    with pytest.raises(type(error)) as caught:
        ran(main, events=Broken())
    assert caught.value is error


def test_ctrl_c_in_the_server_is_ctrl_c() -> None:
    def main(grid: Grid, context: Context) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(main)


def test_one_run_at_a_time_in_a_process() -> None:
    def main(grid: Grid, context: Context) -> None:
        ran(main)

    with pytest.raises(UnavailableError, match="another run is under way"):
        ran(main)


def test_a_run_without_sites_is_refused() -> None:
    with pytest.raises(ConfigError, match="a run needs sites"):
        ran(lambda grid, context: None, sites=0)


def test_an_app_made_in_memory_needs_threads() -> None:
    site = SimulatedSite(SiteName("site-1"), UnsafeSimulationGate())
    with pytest.raises(ConfigError, match="cannot run in worker processes"):
        run_app(LoadedApp("test", ServerApp(), client()), [site])


@pytest.mark.parametrize("how", [{"workers": 0}, {"threads_per_call": 0}, {"max_reply_bytes": 0}])
def test_settings_out_of_range_are_refused_by_name(how: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(how))):
        EngineSettings(**how)  # type: ignore[arg-type]  # one integer each


def test_parallel_threads_need_threads() -> None:
    with pytest.raises(ConfigError, match="needs threads"):
        EngineSettings(parallel_threads=True)


def test_parallel_threads_overlap_calls_of_different_sites() -> None:
    barrier = threading.Barrier(2, timeout=20)
    app = ClientApp()

    @app.query("meet")
    def meet(message: Message, context: Context) -> Message:
        barrier.wait()
        return Message(Records(), reply_to=message)

    def main(grid: Grid, context: Context) -> None:
        list(grid.send_and_receive(asking(grid, "query.meet")))

    outcome = ran(main, sites=2, app=app, parallel_threads=True, workers=2)
    assert outcome.replies == 2


# --- policy -----------------------------------------------------------------------------------


def policy(**rules: Rule) -> SitePolicy:
    named = {("train", PartKind(kind)): rule for kind, rule in rules.items()}
    return SitePolicy(train=TrainPolicy(rules=named))


def test_sites_that_demand_a_sum_fail_a_run_that_has_none() -> None:
    def main(grid: Grid, context: Context) -> None:
        list(grid.send_and_receive(training(grid)))
        raise AssertionError("the strategy must never see such replies")

    with pytest.raises(PolicyRefused, match=r"train\.arrays = sum at site-0, site-1, site-2"):
        ran(main, policy=policy())


def test_what_a_site_withholds_is_missing_from_its_reply() -> None:
    def main(grid: Grid, context: Context) -> None:
        for reply in grid.send_and_receive(training(grid)):
            assert set(reply.content) == {"a", "m"}
            assert set(reply.content["m"]) == {"num-examples", "value"}

    outcome = ran(main, policy=policy(arrays=Rule.PLAIN, metrics=Rule.PLAIN))
    assert outcome.withheld == {"train.config = withhold": 6}


def test_lists_beside_metrics_leave_with_the_configuration() -> None:
    def main(grid: Grid, context: Context) -> None:
        for reply in grid.send_and_receive(training(grid)):
            assert set(reply.content) == {"a", "m", "c"}
            assert set(reply.content["m"]) == {"num-examples", "value", "each"}

    everything = policy(arrays=Rule.PLAIN, metrics=Rule.PLAIN, config=Rule.PLAIN)
    assert ran(main, policy=everything).withheld == {}


def test_lists_alone_leave_as_a_metric_record() -> None:
    def main(grid: Grid, context: Context) -> None:
        for reply in grid.send_and_receive(training(grid)):
            assert isinstance(reply.content["m"], MetricRecord)
            assert set(reply.content["m"]) == {"each"}

    withheld = policy(arrays=Rule.PLAIN, metrics=Rule.WITHHOLD, config=Rule.PLAIN)
    assert ran(main, policy=withheld).withheld == {"train.metrics = withhold": 3}


def test_an_error_text_stays_at_a_site_whose_policy_says_so() -> None:
    seen: list[Error] = []

    def main(grid: Grid, context: Context) -> None:
        list(grid.send_and_receive(training(grid)))
        seen.extend(reply.error for reply in grid.send_and_receive(asking(grid, "query.refuse")))

    ran(main, policy=policy(arrays=Rule.PLAIN, metrics=Rule.PLAIN))
    assert {error.reason for error in seen} == {"it stays"}


def test_a_server_that_fails_for_want_of_what_was_withheld_is_told_so() -> None:
    def main(grid: Grid, context: Context) -> None:
        for reply in grid.send_and_receive(training(grid)):
            reply.content["m"]

    with pytest.raises(ConfigError) as caught:
        ran(main, policy=policy(arrays=Rule.PLAIN, metrics=Rule.WITHHOLD))
    assert "train.metrics = withhold" in caught.value.hint
