"""Secure sums in the app's own process: the mod, the wrapped strategy and members' folders."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.app import RecordDict as Records
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy
from tests.fakes.members import (
    ROUNDS,
    SITES,
    START,
    modded,
    nodes,
    own_folders,
    secure_run,
    stepped,
    wrapped,
)
from tests.fakes.summing import (
    Asked,
    Seen,
    Train,
    client,
    ran,
    records,
    scored,
    simulated,
    starting,
)

import comity
from comity.adapters.flower.app import LoadedApp
from comity.adapters.flower.engine import EngineSettings, RunOutcome, run_app
from comity.adapters.flower.private_names import enter_run
from comity.bootstrap.members import coordinating_member, summing_member, write_members
from comity.errors import (
    CohortTooSmall,
    ConfigError,
    ProtocolError,
    StrategyRefused,
    UnavailableError,
)
from comity.events import SiteDropped
from comity.services.sum_plan import SumSettings

WITHIN = 0.5 * (2 * 2.0 * 16 * SITES / 2.0**31) * 8
"""Of one mean: half a step, of values up to 2 with headroom 16, by a share of an eighth."""
STRATEGIES: dict[str, tuple[Callable[[], Strategy], float]] = {
    "FedAvg": (FedAvg, 1.0),
    "FedAdam": (lambda: flower.FedAdam(eta=0.1, tau=0.1), 4.0),  # divides by sqrt(v) + tau
}


@pytest.fixture
def members(tmp_path: Path) -> Path:
    write_members(tmp_path / "members", SITES)
    return tmp_path / "members"


def failing_in_round_two(asked: Asked) -> Records:
    if asked.site == 1 and asked.number == 2:
        raise ValueError("a planted secret")
    return stepped(asked)


def plain_run(
    *,
    make: Callable[[], Strategy] = FedAvg,
    train: Train = stepped,
    seen: Seen | None = None,
    without: int | None = None,
) -> RunOutcome:
    """The same app as it is; as though the site at index `without` were not there."""

    def failing(answer: Train) -> Train:
        def answered(asked: Asked) -> Records:
            if asked.site == without:
                raise ValueError("left out")
            return answer(asked)

        return answered

    seen = seen or Seen()
    app = client(seen, failing(train), failing(scored))
    return ran(starting(make, START, ROUNDS), app, sites=SITES, seen=seen)


def same(plain: RunOutcome, secure: RunOutcome, within: float = WITHIN) -> None:
    for name, array in plain.arrays["arrays"].items():
        found = secure.arrays["arrays"][name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        # A float32 result has its own rounding of 2**-24 besides.
        np.testing.assert_allclose(found, array, rtol=0, atol=within + 2.0**-21)
    assert np.abs(START["w"] - plain.arrays["arrays"]["w"]).max() > 0.05
    assert {*plain.metrics["train"]} == {"rounds", "loss"}
    assert {*plain.metrics["evaluate"]} == {"rounds", "loss", "n"}
    for name, history in plain.metrics.items():
        assert {*secure.metrics[name]} == {*history}
        for key, values in history.items():
            assert len(values) == ROUNDS
            # Metrics are summed exactly; they differ as the models do, of 36 values.
            np.testing.assert_allclose(secure.metrics[name][key], values, atol=36 * within + 1e-9)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_mod_and_a_wrapped_strategy_give_the_plain_result_to_quantisation(
    members: Path, name: str
) -> None:
    make, amplified = STRATEGIES[name]
    asked = Seen()
    secure = secure_run(members, make=make, seen=asked)
    same(plain_run(make=make), secure, amplified * WITHIN)
    for kind in ("train", "evaluate"):
        assert sorted(asked.of(kind)) == sorted([*range(SITES)] * ROUNDS)


def test_a_simulation_needs_only_the_folder_of_all_members(members: Path) -> None:
    server = ServerApp()
    server.main()(starting(wrapped(FedAvg, members), START, ROUNDS))
    app = modded(client(Seen(), stepped))
    loaded = LoadedApp("test", server, app, {"comity-members": str(members)})
    secure = run_app(loaded, simulated(SITES), EngineSettings(threads=True))
    same(plain_run(), secure)
    assert all((folder / "sums").is_dir() for folder in own_folders(members))


def test_the_coordinator_s_own_folder_will_do(members: Path) -> None:
    server = wrapped(FedAvg, members / "coordinator")
    app = modded(client(Seen(), stepped))
    secure = ran(starting(server, START, ROUNDS), app, sites=nodes(own_folders(members)))
    same(plain_run(), secure)


def test_a_site_that_raises_drops_out_of_its_round_and_the_rest_are_averaged(
    members: Path,
) -> None:
    seen = Seen()
    secure = secure_run(members, train=failing_in_round_two, seen=seen)
    same(plain_run(train=failing_in_round_two), secure)
    dropped = [(event.site, event.error) for event in seen.events if isinstance(event, SiteDropped)]
    assert dropped == [("site-2", "ValueError")]
    assert (
        np.abs(secure.arrays["arrays"]["w"] - plain_run().arrays["arrays"]["w"]).max()
        > 100 * WITHIN
    )


# --- what leaves a site -----------------------------------------------------------------------


def bytes_of(content: Records) -> bytes:
    """All bytes of a record dict's values, one after the other."""
    found = []
    for record in content.values():
        if isinstance(record, ArrayRecord):
            found += [array.numpy().tobytes() for array in record.values()]
        else:
            values = (v if isinstance(v, list) else [v] for v in record.values())
            found += [v if isinstance(v, bytes) else str(v).encode() for vs in values for v in vs]
    return b"\0".join(found)


def numbers_found(updates: Sequence[Records], wire: bytes) -> int:
    """How many of the updates' doubles stand in `wire` bit for bit."""
    own = {
        number.tobytes()
        for update in updates
        for number in next(iter(update.array_records.values()))["w"].numpy()
    }
    return sum(number in wire for number in own)


def test_replies_hold_no_number_of_any_update_and_no_metric(members: Path) -> None:
    updates: list[Records] = []
    sent: list[Records] = []

    def train(asked: Asked) -> Records:
        updates.append(stepped(asked))
        return updates[-1]

    def outside(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        sent.append(reply.content)
        return reply

    secure_run(members, train=train, outside=[outside])
    assert len(updates) == SITES * ROUNDS
    assert len(sent) > 2 * len(updates)
    wire = b"".join(map(bytes_of, sent))
    assert numbers_found(updates, b"".join(map(bytes_of, updates))) > 400
    assert numbers_found(updates, wire) == 0
    assert not any(isinstance(r, MetricRecord) for content in sent for r in content.values())
    arrays = [a.numpy() for c in sent for r in c.array_records.values() for a in r.values()]
    assert {array.dtype.kind for array in arrays} == {"u"}


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_request_without_an_invitation_is_refused_before_the_app_runs(
    members: Path, kind: str
) -> None:
    seen = Seen()
    found: list[Message] = []

    def main(grid: Grid, context: Context) -> None:
        del context
        asked = [Message(records(START), node, kind) for node in grid.get_node_ids()]
        found.extend(grid.send_and_receive(asked))
        queries = [Message(records(), node, "query") for node in grid.get_node_ids()]
        assert not any(reply.has_error() for reply in grid.send_and_receive(queries))

    app = client(seen, stepped)
    app.query()(lambda message, _: Message(records(), reply_to=message))
    # The engine says so where nothing was trained at all.
    with (
        pytest.raises(UnavailableError, match="nothing was trained")
        if kind == "train"
        else nullcontext()
    ):
        ran(main, modded(app), sites=nodes(own_folders(members)), seen=seen)
    assert len(found) == SITES
    assert all("PolicyRefused" in str(reply.error.reason) for reply in found)
    assert seen.calls == []


# --- who takes part ---------------------------------------------------------------------------


def other_root(tmp_path: Path, sites: int = SITES) -> Path:
    write_members(tmp_path / "other", sites)
    return tmp_path / "other"


def never_enrolled(members: Path, tmp_path: Path) -> Path:
    del members
    return other_root(tmp_path) / "site-2"


def false_key(members: Path, tmp_path: Path) -> Path:
    shutil.copy(other_root(tmp_path) / "site-2" / "identity.key", members / "site-2")
    return members / "site-2"


def another_name(members: Path, tmp_path: Path) -> Path:
    shutil.copytree(members / "site-2", tmp_path / "site-9")
    return tmp_path / "site-9"


def coordinator_s(members: Path, tmp_path: Path) -> Path:
    del tmp_path
    return members / "coordinator"


@pytest.mark.parametrize("make", [never_enrolled, false_key, another_name, coordinator_s])
def test_a_site_that_is_not_who_the_roster_says_is_left_out_before_its_app_runs(
    members: Path, tmp_path: Path, make: Callable[[Path, Path], Path]
) -> None:
    folders = own_folders(members)
    folders[1] = make(members, tmp_path)
    seen = Seen()
    secure = secure_run(members, folders=folders, seen=seen)
    same(plain_run(without=1), secure)
    assert {site for site, _ in seen.calls} == {0, 2, 3, 4}


def test_a_roster_that_the_pinned_root_did_not_sign_is_refused(
    members: Path, tmp_path: Path
) -> None:
    for name in ("site-1", "coordinator"):
        shutil.copy(other_root(tmp_path / name) / name / "roster.json", members / name)
    with pytest.raises(ProtocolError):
        summing_member(members / "site-1")
    with pytest.raises(ProtocolError):
        comity.SecureAggregation(FedAvg(), members)


def test_two_sites_are_too_few(tmp_path: Path) -> None:
    members = other_root(tmp_path, sites=2)
    seen = Seen()
    with pytest.raises(CohortTooSmall):
        secure_run(members, folders=own_folders(members, 2), seen=seen)
    assert seen.calls == []


# --- refused before anything is sent ----------------------------------------------------------


@pytest.mark.parametrize("name", ["FedMedian", "FedTrimmedAvg", "Krum"])
def test_a_strategy_that_needs_single_replies_is_refused_when_it_is_wrapped(
    members: Path, name: str
) -> None:
    with pytest.raises(StrategyRefused, match=name):
        comity.SecureAggregation(getattr(flower, name)(), members)


@pytest.mark.parametrize("missing", ["identity.key", "roster.json", "root.pub", ""])
def test_a_coordinator_s_folder_that_lacks_something_is_told(members: Path, missing: str) -> None:
    if missing:
        (members / "coordinator" / missing).unlink()
    else:
        shutil.rmtree(members / "coordinator")
    with pytest.raises(ConfigError, match="coordinator") as told:
        comity.SecureAggregation(FedAvg(), members)
    assert told.value.hint


@pytest.mark.parametrize(
    ("node", "run"),
    [
        ({}, {}),
        ({"partition-id": 0}, {}),
        ({"partition-id": 0}, {"comity-members": ""}),
        ({}, {"comity-members": "members"}),
    ],
)
def test_a_node_without_a_member_folder_is_told_the_keys_to_set(
    node: dict[str, Any], run: dict[str, Any]
) -> None:
    enter_run(1)

    def never(message: Message, context: Context) -> Message:
        raise AssertionError((message, context))

    with pytest.raises(ConfigError, match="no member folder") as told:
        comity.secure_aggregation_mod(
            Message(records(START), 2, "train"), Context(1, 2, node, Records(), run), never
        )
    assert told.value.hint is not None
    assert {"comity-member", "comity-members"} <= set(told.value.hint.replace(",", "").split())


# --- members' folders -------------------------------------------------------------------------


def test_each_private_key_lies_in_one_file_that_only_its_owner_reads(members: Path) -> None:
    secure_run(members)
    files = [path for path in members.rglob("*") if path.is_file()]
    keys = [path for path in files if path.name == "identity.key"]
    assert {path.parent.name for path in keys} == {
        "coordinator",
        *(f"site-{number}" for number in range(1, SITES + 1)),
    }
    for key in keys:
        text = key.read_text("ascii").strip()
        forms = (text.encode(), text.upper().encode(), bytes.fromhex(text))
        assert [path for path in files if any(f in path.read_bytes() for f in forms)] == [key]
    public = {"roster.json", "root.pub"}
    for path in members.rglob("*"):
        if path.name not in public:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert {path.name for path in (members / "coordinator").iterdir()} == {"identity.key", *public}


def test_members_are_never_written_over(members: Path) -> None:
    before = {path: path.read_bytes() for path in members.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="already"):
        write_members(members, SITES)
    assert {p: p.read_bytes() for p in members.rglob("*") if p.is_file()} == before


def test_a_key_that_others_may_read_is_not_used(members: Path) -> None:
    for name in ("site-1", "coordinator"):
        (members / name / "identity.key").chmod(0o640)
    with pytest.raises(ConfigError, match="others"):
        summing_member(members / "site-1")
    with pytest.raises(ConfigError, match="others"):
        coordinating_member(members / "coordinator", SumSettings())
