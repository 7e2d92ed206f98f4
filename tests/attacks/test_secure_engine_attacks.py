"""What a coordinator, an app or a restored disk may try against secure sums in the engine."""

from __future__ import annotations

import contextlib
import shutil
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.app import RecordDict as Records
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from tests.fakes.gate_site import PATIENTS, plan
from tests.fakes.lasting_sum_site import closed, lasting
from tests.fakes.sum_sites import RECEIVED, RUN, SumSite, federation, root_of
from tests.fakes.summing import Asked, Seen, client, fitted, ran, records, starting

from comity.adapters.flower import engine
from comity.adapters.flower.grid import LocalGrid
from comity.adapters.flower.secure_grid import secure_mean
from comity.adapters.flower.secure_messages import ANNOUNCE, PROTOCOL, PROTOCOL_TYPES
from comity.adapters.flower.site_engine import SimulatedSite
from comity.core.policy.rule import PartKind, Rule, SitePolicy, TrainPolicy
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.messages import Announcement, AnnounceRequest, Invitation, RoundSpec
from comity.core.secagg.site_state import SiteState
from comity.errors import (
    ComityError,
    JournalBehind,
    PolicyRefused,
    Replay,
    UnavailableError,
    WrongStage,
)
from comity.events import AttemptVoid, SiteDropped, SumOpened
from comity.ports import SealedUpload
from comity.services.sum_epoch import Epoch
from comity.services.sum_plan import SumSettings

START: dict[str, Any] = {"w": np.linspace(-1, 1, 40), "b": np.full(8, 0.5, np.float32)}
SETTINGS = SumSettings(first_max_weight=2**21)


# --- a tap between sites and coordinator ------------------------------------------------------


class Tap(LocalGrid):
    """Keeps every reply that leaves the sites, and may change what goes to them."""

    replies: list[Message] = []  # noqa: RUF012 - one tap a test, emptied by its fixture

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = super().pull_messages(message_ids)
        self.replies += found
        return found

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        found = super().send_and_receive(messages, timeout=timeout)
        self.replies += found
        return found

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return super().push_messages([self.changed(message) for message in messages])

    def changed(self, message: Message) -> Message:
        return message


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> type[Tap]:
    class Fresh(Tap):
        replies: list[Message] = []  # noqa: RUF012 - likewise

    monkeypatch.setattr(engine, "LocalGrid", Fresh)
    return Fresh


def octets(reply: Message) -> bytes:
    """All bytes of a reply, with its numbers in several spellings."""
    if reply.has_error():
        return str(reply.error.reason).encode()
    pieces: list[bytes] = []
    for name, record in reply.content.items():
        pieces.append(name.encode())
        for key, value in record.items():
            pieces.append(key.encode())
            if isinstance(record, ArrayRecord):
                pieces.append(value.data)  # type: ignore[union-attr]  # an Array
            elif isinstance(value, bytes):
                pieces.append(value)
            else:
                listed = value if isinstance(value, list) else [value]
                pieces += [repr(item).encode() for item in listed]
    return b"\0".join(pieces)


COUNTS = [923_441, 1_187_653, 1_310_777, 841_307]
LOSSES = [0.7182818459, 3.1415926535, 2.2360679774, 1.6180339887]


def planted(asked: Asked) -> Records:
    rng = np.random.default_rng(asked.site)
    arrays = {
        name: (array + rng.standard_normal(array.shape)).astype(array.dtype)
        for name, array in asked.arrays.items()
    }
    planted_updates[asked.site] = [
        piece for name, array in arrays.items() for piece in (array, array - asked.arrays[name])
    ]
    return records(arrays, {"num-examples": COUNTS[asked.site], "loss": LOSSES[asked.site]})


planted_updates: dict[int, list[Any]] = {}


def patterns() -> set[bytes]:
    found: set[bytes] = set()
    for number in COUNTS:
        found |= {str(number).encode(), struct.pack("<q", number), struct.pack(">q", number)}
        found |= {struct.pack("<d", number), struct.pack(">d", number)}
        steps = number << 16
        found |= {struct.pack("<q", steps), struct.pack(">q", steps)}
    for value in LOSSES:
        found |= {repr(value).encode(), struct.pack("<d", value), struct.pack(">d", value)}
    for arrays in planted_updates.values():
        for array in arrays:
            for dtype in ("<f8", ">f8", "<f4", ">f4"):
                flat = array.astype(dtype)
                size = 1 if flat.itemsize == 8 else 2  # pairs of float32: no match by chance
                found |= {flat[i : i + size].tobytes() for i in range(len(flat) - size + 1)}
    return found


def hits(replies: Sequence[Message]) -> set[bytes]:
    whole = b"\0".join(octets(reply) for reply in replies)
    return {pattern for pattern in patterns() if pattern in whole}


def test_no_reply_of_a_secure_run_holds_a_count_a_metric_or_a_float_of_an_update(
    tap: type[Tap],
) -> None:
    ran(starting(FedAvg, START, 2), client(Seen(), planted), secure=SETTINGS)
    kinds = {reply.metadata.message_type for reply in tap.replies}
    assert len(tap.replies) == 4 * (1 + 2 * 4)
    assert {"train", "evaluate", *PROTOCOL_TYPES} - kinds == {"query.comity_link"}
    assert hits(tap.replies) == set()


def test_the_scan_finds_what_a_plain_run_gives(tap: type[Tap]) -> None:
    ran(starting(FedAvg, START, 1), client(Seen(), planted))
    assert len(hits(tap.replies)) > 100


# --- other ways to the same values ------------------------------------------------------------


def demanding(count: int = 4, policy: SitePolicy | None = None) -> list[SimulatedSite]:
    """Sites behind real gates whose policy lets arrays and metrics leave in a sum alone."""
    root, found = root_of(count), []
    for index in range(count):
        site = SumSite(index, policy or SitePolicy()).start(root)
        found.append(SimulatedSite(site.name, site.gate, site.policy, sums=site.sums))
    return found


def test_a_train_message_without_an_invitation_leaves_nothing_at_a_site_that_demands_sums(
    tap: type[Tap],
) -> None:
    replies: list[Any] = []
    original = LocalGrid._take

    def taken(self: LocalGrid, place: Any, request: Any, out: Any) -> None:
        replies.append(out)
        original(self, place, request, out)

    tap._take = taken  # type: ignore[method-assign]
    with pytest.raises(PolicyRefused, match="only inside a secure sum"):
        ran(starting(FedAvg, START), client(Seen(), planted), sites=demanding())
    assert replies
    assert all(len(out.content) == 0 and out.withheld for out in replies)
    assert tap.replies == []


def hoarding(asked: Asked) -> Records:
    arrays = {name: array + asked.site for name, array in START.items()}
    return records(arrays, {"num-examples": 923_441, "loss": 0.7182818459}, note="923441")


@pytest.mark.parametrize("kind", ["query", "query.x", "query.comity"])
def test_a_query_carries_nothing_out_past_the_policy(tap: type[Tap], kind: str) -> None:
    def main(grid: Grid, context: Context) -> None:
        del context
        grid.send_and_receive([Message(records(START), n, kind) for n in grid.get_node_ids()])

    app = client(Seen(), fitted, x=hoarding, comity=hoarding)
    app.query()(lambda message, _: Message(hoarding(Asked(0, 1, message)), reply_to=message))
    ran(main, app, sites=demanding())
    assert len(tap.replies) == 4
    assert all(reply.has_error() or not reply.content for reply in tap.replies)


def test_an_evaluate_reply_carries_no_arrays_out_under_a_sum(tap: type[Tap]) -> None:
    seen = Seen()

    def main(grid: Grid, context: Context) -> None:
        del context
        secure_mean(grid, [Message(records(START), n, "evaluate") for n in grid.get_node_ids()])

    app = client(seen, fitted, hoarding)
    with pytest.raises(ComityError):
        ran(main, app, secure=SETTINGS, seen=seen)
    assert {(e.site, e.error) for e in seen.events if isinstance(e, SiteDropped)} == {
        (f"site-{number}", "DataError") for number in range(1, 5)
    }
    held = [r for r in tap.replies if not r.has_error() and r.metadata.message_type == "evaluate"]
    assert held == []


def test_an_invitation_on_a_query_is_no_way_around_the_rule_for_queries(tap: type[Tap]) -> None:
    policy = SitePolicy(TrainPolicy(rules={("query", PartKind.ARRAYS): Rule.WITHHOLD}))
    root = root_of(4)
    sites = [SumSite(index, policy).start(root) for index in range(4)]
    four = federation(sites=sites)
    for site in sites:
        site.app = lambda site, _: [
            replace(part)
            for part in SumSite(site.index).app(
                site, replace(four.carrier.exchange(), message_type="train")
            )
        ]
    with pytest.raises(ComityError):
        four.sum("query")
    assert set(four.carrier.refused("invite")) == {
        (f"site-{number}", "PolicyRefused") for number in range(1, 5)
    }
    assert not any(stage == "invite" for stage, _, _ in four.carrier.left)
    assert tap.replies == []


def test_an_app_that_registers_the_protocol_s_names_never_sees_a_message_of_it() -> None:
    seen = Seen()
    app = client(
        seen,
        fitted,
        comity_announce=hoarding,
        comity_link=hoarding,
        comity_reveal=hoarding,
    )
    ran(starting(FedAvg, START, 1), app, secure=replace(SETTINGS, hybrid=True))
    assert {kind for _, kind in seen.calls} == {"train", "evaluate"}


@pytest.mark.parametrize("kind", [*sorted(PROTOCOL_TYPES), "train", "query.x"])
def test_a_forged_message_of_the_protocol_is_refused_before_the_app(
    kind: str, tap: type[Tap]
) -> None:
    seen = Seen()
    forged = Records({PROTOCOL: ConfigRecord({"body": b"CSA\1\7forged"})})

    def main(grid: Grid, context: Context) -> None:
        del context
        inner = grid._inner  # type: ignore[attr-defined]
        inner.send_and_receive([Message(forged, n, kind) for n in grid.get_node_ids()])

    app = client(seen, fitted, x=hoarding)
    with contextlib.suppress(UnavailableError):  # where no site ever answered
        ran(main, app, secure=SETTINGS)
    assert seen.calls == []
    assert len(tap.replies) == 4
    assert all(reply.has_error() for reply in tap.replies)


@pytest.mark.parametrize("record", [MetricRecord({"body": 1}), ConfigRecord({"body": "text"})])
def test_something_else_in_the_protocol_s_place_is_refused(record: Any, tap: type[Tap]) -> None:
    seen = Seen()

    def main(grid: Grid, context: Context) -> None:
        del context
        content = Records({**records(START), PROTOCOL: record})
        grid._inner.send_and_receive(  # type: ignore[attr-defined]
            [Message(content, n, "train") for n in grid.get_node_ids()]
        )

    with pytest.raises(ComityError, match="no site ever gave"):
        ran(main, client(seen, fitted), secure=SETTINGS)
    assert seen.calls == []
    assert all(reply.has_error() for reply in tap.replies)


def test_the_app_never_sees_the_protocol_s_record(tap: type[Tap]) -> None:
    del tap
    seen = Seen()
    ran(starting(FedAvg, START), client(seen, fitted), secure=SETTINGS)
    assert seen.contents
    assert not any(PROTOCOL in content for content in seen.contents)


# --- a coordinator that tells sites different things -------------------------------------------


@pytest.mark.parametrize("victim", [2, 4])
def test_another_configuration_for_one_site_voids_the_attempt_and_leaks_nothing(
    tap: type[Tap], victim: int
) -> None:
    def changed(self: Tap, message: Message) -> Message:
        del self
        if message.metadata.dst_node_id == victim and "config" in message.content:
            content = Records(dict(message.content.items()))
            content["config"] = ConfigRecord({"server-round": 1, "lr": 1e-9})
            return Message(content, victim, message.metadata.message_type)
        return message

    tap.changed = changed  # type: ignore[method-assign]
    seen = Seen()
    main = starting(lambda: FedAvg(fraction_evaluate=0.0), START, 1)
    ran(main, client(seen, fitted), sites=5, secure=SETTINGS, seen=seen)
    voids = [event for event in seen.events if isinstance(event, AttemptVoid)]
    assert [void.sites for void in voids] == [(f"site-{victim - 1}",)]
    assert "told of different" in voids[0].cause
    (opened,) = [event for event in seen.events if isinstance(event, SumOpened)]
    assert (opened.sites, opened.attempts) == (4, 2)
    first_reveal = [r.metadata.message_type for r in tap.replies].index("query.comity_reveal")
    assert first_reveal >= 5 + 5 + 4, "no reveal answers the void attempt"


def test_a_policy_that_the_coordinator_sends_is_ignored(tap: type[Tap]) -> None:
    offered: dict[str, Any] = {
        "train.rules.train.arrays": "plain",
        "train.secure-sums.min-cohort": 1,
        "site-policy": '[train.rules.train]\narrays = "plain"',
    }

    def main(grid: Grid, context: Context) -> None:
        del context
        content = records(START, **offered)
        grid.send_and_receive([Message(content, n, "train") for n in grid.get_node_ids()])

    with pytest.raises(PolicyRefused):
        ran(main, client(Seen(), fitted), sites=demanding())
    assert tap.replies == []


def lowered(body: bytes, **changes: Any) -> bytes:
    invitation = decode(Invitation, body)
    spec = replace(decode(RoundSpec, invitation.spec), **changes)
    return encode(replace(invitation, spec=encode(spec)))


@pytest.mark.parametrize(
    "changes",
    [
        {"threshold": 2},
        {"cohort": ("site-1", "site-2")},
        {"cohort": ("site-1",), "threshold": 1},
        {"max_weight": 2**40},
        {"ring_bits": 64},
        {"weight_key": "loss"},
        {"attempt": 6},
        {"tensors": (("w", 12, 90), ("b", 2, 90))},
    ],
)
def test_a_plan_below_the_site_s_own_terms_is_refused_before_the_app(
    changes: dict[str, Any],
) -> None:
    def tamper(stage: str, name: str, body: Any) -> Any:
        return lowered(body, **changes) if (stage, name) == ("invite", "site-1") else body

    four = federation(tamper=tamper)
    assert "site-1" not in four.sum().result.survivors
    assert four.sites["site-1"].calls == 0
    assert four.carrier.refused("invite")[0][0] == "site-1"


def test_an_old_invitation_is_not_taken_again() -> None:
    kept: list[bytes] = []

    def tamper(stage: str, name: str, body: Any) -> Any:
        if (stage, name) == ("invite", "site-1"):
            kept.append(body)
        return body

    four = federation(tamper=tamper)
    four.sum()
    four.sum()
    site = four.sites["site-1"]
    calls, before = site.calls, len(list(site.journal.records()))
    for body in kept:
        with pytest.raises((Replay, WrongStage)):
            site.sums.open(four.carrier.exchange(), body, RECEIVED)
    assert (site.calls, len(list(site.journal.records()))) == (calls, before)


# --- crash, restart, and disks put back -------------------------------------------------------


def begun(folder: Path, start: int = 1) -> SumSite:
    site = lasting(folder, start=start)
    site.start(root_of(4))
    if not site.gate._custody.books.ledger.accounts:
        site.gate.reserve(PATIENTS, plan(8), purpose="study")
    return site


def test_a_site_restarted_between_upload_and_reveal_answers_it_and_then_keeps_nothing(
    tmp_path: Path,
) -> None:
    def tamper(stage: str, name: str, body: Any) -> Any:
        if (stage, name) == ("reveal", "site-1"):
            closed(four.sites["site-1"])
            four.carrier.sites["site-1"] = four.sites["site-1"] = begun(tmp_path, 5000)  # type: ignore[index]
        return body

    first = begun(tmp_path)
    four = federation(sites=[first], tamper=tamper)
    found = four.sum()
    assert list(found.result.survivors) == list(four.sites)
    assert ("reveal", "site-1") in {(stage, name) for stage, name, _ in four.carrier.left}
    site = four.sites["site-1"]
    assert site is not first
    kept = site.store.load(RUN)
    assert kept is not None
    assert (kept.contribution, kept.upload) == (None, None)
    assert decode(SiteState, kept.state).chains
    with pytest.raises(WrongStage, match="no contribution"):
        site.sums.repeat(four.carrier.exchange(), None)
    assert site.gate.budget(PATIENTS).epsilon_spent == 0.5
    closed(site)


def test_a_site_restarted_after_its_upload_repeats_the_same_bytes_at_no_cost(
    tmp_path: Path,
) -> None:
    seen: dict[str, Any] = {}

    def tamper(stage: str, name: str, body: Any) -> Any:
        if (stage, name) == ("invite", "site-1"):
            seen["body"] = body
        if (stage, name) == ("invited", "site-1"):
            closed(four.sites["site-1"])
            four.carrier.sites["site-1"] = begun(tmp_path, 5000)  # type: ignore[index]
            seen["again"] = four.carrier.ask("invite", "site-1", seen["body"])
            seen["first"] = body
        return body

    four = federation(sites=[begun(tmp_path)], tamper=tamper)
    four.sum()
    first, again = seen["first"], seen["again"]
    assert isinstance(first, SealedUpload)
    assert first.header == again.header
    np.testing.assert_array_equal(first.vector, again.vector)
    site = four.carrier.sites["site-1"]
    assert (site.calls, site.gate.budget(PATIENTS).epsilon_spent) == (0, 0.5)
    closed(site)


@pytest.mark.parametrize("moment", ["announced", "invited", "removed"])
def test_places_put_back_behind_the_journal_take_no_part_until_new_keys(
    tmp_path: Path, moment: str
) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"

    def tamper(stage: str, name: str, body: Any) -> Any:
        if (stage, name) == (moment, "site-1") and not copy.exists():
            shutil.copytree(state / "sums", copy)
        return body

    four = federation(sites=[begun(state)], tamper=tamper)
    four.sum()
    closed(four.sites["site-1"])
    shutil.rmtree(state / "sums")
    if moment != "removed":
        shutil.copytree(copy, state / "sums")
    four.carrier.sites["site-1"] = four.sites["site-1"] = begun(state, 5000)  # type: ignore[index]
    found = four.sum()
    assert list(found.result.survivors) == ["site-2", "site-3", "site-4"]
    assert four.carrier.refused("invite") == [("site-1", "WrongStage")]
    assert four.sites["site-1"].calls == 0

    old = AnnounceRequest("hospitals", RUN, 1, 1, 1)
    with pytest.raises(Replay):
        four.carrier.ask("announce", "site-1", encode(old))
    old = AnnounceRequest("hospitals", RUN, 2, 1, 1)
    with pytest.raises(Replay):
        four.carrier.ask("announce", "site-1", encode(old))
    place = (2, four.run._round + 1)
    four.run._epoch = Epoch.begin(four.run.coordinator, RUN, place, four.carrier, hybrid=False)
    assert list(four.sum().result.survivors) == list(four.sites)
    closed(four.sites["site-1"])


def test_a_journal_put_back_lets_nothing_leave_not_even_keys(tmp_path: Path) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    four = federation(sites=[begun(state)])
    four.sum()
    closed(four.sites["site-1"])
    shutil.copytree(state, copy)
    four.carrier.sites["site-1"] = four.sites["site-1"] = begun(state, 5000)  # type: ignore[index]
    four.sum()
    closed(four.sites["site-1"])
    for file in copy.iterdir():
        if file.is_file() and file.name.startswith("journal"):
            shutil.copy(file, state / file.name)
    for file in state.iterdir():
        if file.name.startswith("journal") and not (copy / file.name).exists():
            file.unlink()
    site = lasting(state, start=9000).start(root_of(4))
    four.carrier.sites["site-1"] = four.sites["site-1"] = site  # type: ignore[index]
    assert list(four.sum().result.survivors) == ["site-2", "site-3", "site-4"]
    assert four.carrier.refused() == [("site-1", "JournalBehind")]
    request = AnnounceRequest("hospitals", RUN, 2, 9, 1)
    with pytest.raises(JournalBehind):
        four.carrier.ask("announce", "site-1", encode(request))
    closed(site)


def test_keys_of_an_epoch_are_never_the_same_after_a_restart(tmp_path: Path) -> None:
    four = federation(sites=[begun(tmp_path)])
    four.sum()
    first = decode(Announcement, next(b for s, n, b in four.carrier.left if n == "site-1"))
    closed(four.sites["site-1"])
    site = begun(tmp_path, 5000)
    four.carrier.sites["site-1"] = site  # type: ignore[index]
    later = AnnounceRequest("hospitals", RUN, 2, 2, 1)
    second = decode(Announcement, four.carrier.ask("announce", "site-1", encode(later)))
    assert first.x25519 != second.x25519
    assert ANNOUNCE in PROTOCOL_TYPES
    closed(site)
