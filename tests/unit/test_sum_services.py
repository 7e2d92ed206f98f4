"""Secure sums over sites behind real gates: epochs, attempts, drop-outs, places, plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.fakes.gate_site import UnsafeCountingRng
from tests.fakes.sum_sites import (
    RECEIVED,
    REFERENCE,
    RUN,
    Federation,
    SumSite,
    federation,
    given,
    mean_of,
)

from comity.core.policy.rule import PartKind, Rule, SitePolicy, SumPolicy, TrainPolicy
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.messages import (
    Announcement,
    AnnounceRequest,
    Invitation,
    Link,
    Reveal,
    RevealRequest,
    RoundSpec,
    Upload,
)
from comity.core.secagg.site_state import SiteState, Stage
from comity.errors import CohortTooSmall, DataError, Replay, UnavailableError, WrongStage
from comity.events import AttemptVoid, SumOpened
from comity.ports import Exchange, SealedUpload
from comity.services import sum_site
from comity.services.gate import Part
from comity.services.sum_plan import (
    Scales,
    SumSettings,
    first_scales,
    outlook,
    shifted,
)


def checked(found: Any, names: Sequence[str]) -> None:
    shift, loss, weight = mean_of(names)
    for name, array in REFERENCE.items():
        np.testing.assert_allclose(found.arrays[name], array + shift, atol=1e-4)
    assert found.metrics == {"loss": pytest.approx(loss)}
    assert found.weight == weight
    assert list(found.result.survivors) == list(names)


def lose(*lost: tuple[str, str]) -> Any:
    def tamper(stage: str, name: str, body: Any) -> Any:
        return None if (stage, name) in lost else body

    return tamper


def causes(found: Federation) -> list[str]:
    return [event.cause for event in found.events if isinstance(event, AttemptVoid)]


NAMES = [f"site-{number}" for number in range(1, 9)]


# --- drop-outs --------------------------------------------------------------------------------


def test_a_sum_is_the_weighted_mean_and_each_site_trains_once() -> None:
    four = federation()
    checked(four.sum(), NAMES[:4])
    assert [site.calls for site in four.sites.values()] == [1] * 4
    assert four.sum("evaluate").metrics == {"loss": 3.0}
    assert four.carrier.refusals == []


@pytest.mark.parametrize("stage", ["announce", "invite", "invited"])
def test_sites_that_are_lost_before_their_upload_are_left_out(stage: str) -> None:
    eight = federation(8, tamper=lose((stage, "site-2"), (stage, "site-5")))
    checked(eight.sum(), [name for name in NAMES if name not in {"site-2", "site-5"}])
    assert causes(eight) == []


def test_sites_that_are_lost_before_their_reveal_are_in_the_sum() -> None:
    eight = federation(8, tamper=lose(("reveal", "site-2"), ("revealed", "site-5")))
    checked(eight.sum(), NAMES)


def test_a_mix_of_dropouts_voids_the_attempt_by_name_and_the_next_round_trains_afresh() -> None:
    first = {"on": True}

    def tamper(stage: str, name: str, body: Any) -> Any:
        lost = first["on"] and (stage, name) in {("invite", "site-1"), ("reveal", "site-2")}
        if stage == "revealed" and name == "site-8":
            first["on"] = False
        return None if lost else body

    eight = federation(8, tamper=tamper)
    found = eight.sum()
    assert causes(eight) == [
        "sites dropped out before their upload, and others before their reveal"
    ]
    assert "site-2" not in found.result.survivors
    assert eight.sites["site-3"].calls == 2


def test_too_few_uploads_are_repeated_among_those_who_answered_without_training_again() -> None:
    lost = {("invite", name) for name in NAMES[:3]}
    eight = federation(8, tamper=lose(*lost))
    checked(eight.sum(), NAMES[3:])
    assert causes(eight) == ["too few sites uploaded"]
    assert [eight.sites[name].calls for name in NAMES] == [0, 0, 0, 1, 1, 1, 1, 1]


def test_a_sum_that_fails_in_every_round_ends_and_names_the_last_cause() -> None:
    def tamper(stage: str, name: str, body: Any) -> Any:
        rounds = len(causes(eight)) + 1
        return None if (stage, name) == ("reveal", f"site-{rounds}") else body

    eight = federation(8, SumSettings(strict=True, first_max_weight=1024), tamper=tamper)
    with pytest.raises(UnavailableError, match=r"3 rounds: too few sites answered .*\(site-3\)"):
        eight.sum()
    assert len(causes(eight)) == 3


def test_too_few_sites_for_any_threshold_are_refused() -> None:
    with pytest.raises(CohortTooSmall, match="2 sites"):
        federation(4, tamper=lose(("announce", "site-1"), ("announce", "site-3"))).sum()
    nothing = SumSettings(terms=SumPolicy(max_attempts=0))
    with pytest.raises(CohortTooSmall, match="no attempt"):
        federation(4, nothing).sum()


@pytest.mark.parametrize("stage", ["announced", "invited", "revealed"])
def test_an_answer_that_does_not_parse_is_no_answer(stage: str) -> None:
    def tamper(at: str, name: str, body: Any) -> Any:
        if (at, name) != (stage, "site-2"):
            return body
        return b"noise" if isinstance(body, bytes) else SealedUpload(b"noise", body.vector)

    eight = federation(8, tamper=tamper)
    found = eight.sum()
    assert ("site-2" in found.result.survivors) == (stage == "revealed")


def test_a_vector_of_another_length_is_no_upload() -> None:
    def tamper(at: str, name: str, body: Any) -> Any:
        if (at, name) == ("invited", "site-2"):
            return SealedUpload(body.header, body.vector[:-1])
        return body

    checked(federation(8, tamper=tamper).sum(), [name for name in NAMES if name != "site-2"])


def test_a_site_that_shared_another_secret_is_left_out_of_the_next_round_by_name() -> None:
    def tamper(at: str, name: str, body: Any) -> Any:
        if (at, name) == ("invited", "site-2"):
            upload = decode(Upload, body.header)
            return SealedUpload(encode(replace(upload, commitment=bytes(32))), body.vector)
        return body

    eight = federation(8, tamper=tamper)
    found = eight.sum()
    assert causes(eight) == ["a site shared another secret than it committed to"]
    assert "site-2" not in found.result.survivors


def test_a_share_that_does_not_open_is_complained_of_and_nothing_is_revealed() -> None:
    def tamper(at: str, name: str, body: Any) -> Any:
        if (at, name) == ("invited", "site-2"):
            upload = decode(Upload, body.header)
            rows = tuple((bytes(len(row[0])), *row[1:]) if row[0] else row for row in upload.rows)
            return SealedUpload(encode(replace(upload, rows=rows)), body.vector)
        return body

    eight = federation(8, tamper=tamper)
    found = eight.sum()
    assert causes(eight) == ["a share did not open"]
    assert "site-2" not in found.result.survivors
    stages = [body[4] for stage, _, body in eight.carrier.left[:40] if stage == "reveal"]
    assert stages.count(12) >= 7


# --- epochs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hybrid", [False, True])
def test_keys_are_announced_once_a_run_and_shown_once_to_each_site(*, hybrid: bool) -> None:
    shown: list[int] = []

    def tamper(stage: str, name: str, body: Any) -> Any:
        if stage == "invite" and name == "site-2":
            shown.append(len(decode(Invitation, body).announcements))
        return body

    settings = SumSettings(hybrid=hybrid, first_max_weight=1024)
    four = federation(settings=settings, tamper=tamper)
    for _ in range(3):
        checked(four.sum(), NAMES[:4])
    assert shown == [4, 0, 0]
    assert [stage for stage, _, _ in four.carrier.left].count("announce") == 4
    assert [stage for stage, _, _ in four.carrier.left].count("link") == (4 if hybrid else 0)


def foreign(said: Announcement) -> Announcement:
    return replace(said, site="site-3")


def unsigned(said: Announcement) -> Announcement:
    return replace(said, signature=bytes(64))


def of_another_run(said: Announcement) -> Announcement:
    return replace(said, run="18")


def without_secret(said: Announcement) -> Announcement:
    return replace(said, x25519=bytes(32))


@pytest.mark.parametrize("change", [foreign, unsigned, of_another_run, without_secret])
def test_an_announcement_that_does_not_hold_leaves_its_site_out_and_nobody_else(
    change: Any,
) -> None:
    def tamper(stage: str, name: str, body: Any) -> Any:
        if (stage, name) == ("announced", "site-2"):
            return encode(change(decode(Announcement, body)))
        return body

    four = federation(tamper=tamper)
    checked(four.sum(), ["site-1", "site-3", "site-4"])


def test_a_gateway_s_keys_are_no_site_s() -> None:
    four = federation()
    four.carrier.tamper = lambda stage, name, body: (
        encode(replace(decode(Announcement, body), site="coordinator"))
        if (stage, name) == ("announced", "site-1")
        else body
    )
    assert "site-1" not in four.sum().result.survivors


@pytest.mark.parametrize("answer", [b"noise", None, "empty"])
def test_a_site_that_does_not_link_is_left_out_of_a_hybrid_epoch(answer: Any) -> None:
    def tamper(stage: str, name: str, body: Any) -> Any:
        if (stage, name) != ("linked", "site-1"):
            return body
        return encode(Link(())) if answer == "empty" else answer

    settings = SumSettings(hybrid=True, first_max_weight=1024)
    four = federation(8, settings, tamper=tamper)
    found = four.sum()
    assert len(found.result.survivors) >= 6
    if answer != "empty":
        assert "site-1" not in found.result.survivors


# --- attempts ---------------------------------------------------------------------------------


def wide(site: SumSite, exchange: Exchange) -> list[Part]:
    parts = given(site, exchange)
    return [
        replace(part, value={name: array * 4096 for name, array in part.value.items()})
        if part.kind is PartKind.ARRAYS
        else part
        for part in parts
    ]


def test_values_that_do_not_fit_are_repeated_coarser_and_later_plans_stay_coarse() -> None:
    four = federation(sites=[SumSite(0, app=wide, rng=UnsafeCountingRng(5))])
    four.sum()
    opened = [event for event in four.events if isinstance(event, SumOpened)]
    assert opened[0].attempts > 1
    assert set(causes(four)) == {"the plan's range was too small for a contribution"}
    assert [site.calls for site in four.sites.values()] == [1] * 4
    unfit = [
        body for stage, _, body in four.carrier.left if isinstance(body, bytes) and body[4] == 9
    ]
    assert len(unfit) == opened[0].attempts - 1


def test_a_site_says_only_so_often_that_it_does_not_fit() -> None:
    policy = SitePolicy(TrainPolicy(sums=SumPolicy(max_unfits=0)))
    four = federation(sites=[SumSite(0, policy, wide, rng=UnsafeCountingRng(5))])
    assert "site-1" not in four.sum().result.survivors
    assert ("site-1", "PolicyRefused") in four.carrier.refused("invite")


def test_weights_that_were_cut_in_every_round_end_the_sum() -> None:
    def heavy(site: SumSite, exchange: Exchange) -> list[Part]:
        parts = given(site, exchange)
        parts[-1] = replace(parts[-1], value={"num-examples": 2**35, "loss": 1.0})
        return parts

    def sites(most: int) -> list[SumSite]:
        policy = SitePolicy(TrainPolicy(sums=SumPolicy(max_weight=most)))
        return [SumSite(i, policy, heavy, rng=UnsafeCountingRng(i * 50)) for i in range(4)]

    settings = SumSettings(first_max_weight=2)
    with pytest.raises(UnavailableError, match="weights were cut"):
        federation(4, settings, sites(2**32)).sum()
    settings = SumSettings(first_max_weight=2, terms=SumPolicy(max_weight=2))
    assert federation(4, settings, sites(2)).sum().result.capped == 4


def test_a_sum_over_sizes_needs_no_reference() -> None:
    def counts(site: SumSite, exchange: Exchange) -> list[Part]:
        del exchange
        return [Part(PartKind.ARRAYS, "counts", {"n": np.full(3, 1.0 + site.index)})]

    sites = [SumSite(i, app=counts, rng=UnsafeCountingRng(i * 50)) for i in range(4)]
    four = federation(sites=sites)
    found = four.sum(reference={}, sizes={"n": 3})
    np.testing.assert_allclose(found.arrays["n"], np.full(3, 2.5), atol=1e-3)
    assert (found.weight, found.metrics) == (4.0, {})


# --- a site's place ---------------------------------------------------------------------------


def invited(four: Federation) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    four.carrier.tamper = lambda stage, name, body: (
        found.setdefault(f"{stage} {name}", body) if isinstance(body, bytes) else body
    )
    four.sum()
    return found


def test_a_repeated_request_gets_the_same_bytes_without_training_until_it_was_revealed() -> None:
    kept: dict[str, Any] = {}

    def tamper(stage: str, name: str, body: Any) -> Any:
        if stage == "invite" and name == "site-1":
            kept["body"] = body
        if stage == "invited" and name == "site-1":
            kept["first"] = body
            kept["again"] = four.carrier.ask("invite", "site-1", kept["body"])
        return body

    four = federation(tamper=tamper)
    checked(four.sum(), NAMES[:4])
    assert kept["again"].header == kept["first"].header
    np.testing.assert_array_equal(kept["again"].vector, kept["first"].vector)
    assert four.sites["site-1"].calls == 1
    with pytest.raises(WrongStage, match="revealed before"):
        four.carrier.ask("invite", "site-1", kept["body"])


def test_a_reveal_is_repeated_to_the_same_request_alone() -> None:
    four = federation()
    seen = invited(four)
    body, answer = seen["reveal site-1"], seen["revealed site-1"]
    assert four.carrier.ask("reveal", "site-1", body) == answer
    request = decode(RevealRequest, body)
    other = replace(request, survivors=request.survivors[:3], shares=request.shares[:2])
    with pytest.raises(Replay, match="other survivors"):
        four.carrier.ask("reveal", "site-1", encode(other))


def test_nothing_is_answered_before_keys_were_announced() -> None:
    four = federation()
    site = four.sites["site-1"].sums
    with pytest.raises(WrongStage, match="takes no part"):
        site.contribute(four.carrier.exchange(), [])
    with pytest.raises(WrongStage, match="takes no part"):
        site.repeat(four.carrier.exchange(), None)
    site.end(RUN)
    seen = invited(federation())
    with pytest.raises(WrongStage, match="announced no keys"):
        site.open(four.carrier.exchange(), seen["invite site-1"], RECEIVED)
    with pytest.raises(WrongStage):
        site.reveal(four.carrier.exchange(), seen["reveal site-1"])


def test_after_the_reveal_there_is_nothing_to_repeat_and_nothing_kept() -> None:
    four = federation()
    four.sum()
    site = four.sites["site-1"]
    with pytest.raises(WrongStage, match="no contribution"):
        site.sums.repeat(four.carrier.exchange(), None)
    kept = site.store.load(RUN)
    assert kept is not None
    assert (kept.contribution, kept.upload) == (None, None)
    assert decode(SiteState, kept.state).stage == Stage.CLOSED


def test_a_run_that_ended_leaves_no_keys_and_is_not_taken_up_again() -> None:
    four = federation()
    seen = invited(four)
    site = four.sites["site-1"]
    site.sums.end(RUN)
    kept = site.store.load(RUN)
    assert kept is not None
    state = decode(SiteState, kept.state)
    assert (state.stage, state.chains, state.answer, state.revealed) == (Stage.NEW, (), b"", 1)
    with pytest.raises(Replay):
        four.carrier.ask("announce", "site-1", seen["announce site-1"])
    later = AnnounceRequest("hospitals", RUN, 2, 2, 1)
    said = decode(Announcement, four.carrier.ask("announce", "site-1", encode(later)))
    assert said.epoch == 2


def test_places_in_memory_are_bounded_and_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sum_site, "MAX_RUNS", 2)
    four = federation()
    seen = invited(four)
    site = four.sites["site-1"]
    for number in range(4):
        request = AnnounceRequest("hospitals", f"other-{number}", 1, 1, 1)
        four.carrier.ask("announce", "site-1", encode(request))
    assert list(site.sums._places) == ["other-2", "other-3"]
    assert four.carrier.ask("reveal", "site-1", seen["reveal site-1"]) == seen["revealed site-1"]


def test_another_message_of_the_same_round_is_trained_on_and_not_answered_from_what_is_kept() -> (
    None
):
    four = federation(sites=[SumSite(1, app=wide, rng=UnsafeCountingRng(5))])
    four.carrier.tamper = lambda stage, name, body: _other(four, stage, name, body)
    four.sum()
    assert four.sites["site-1"].calls > 1


def _other(found: Federation, stage: str, name: str, body: Any) -> Any:
    if stage == "invite" and name == "site-1":
        spec = decode(RoundSpec, decode(Invitation, body).spec)
        found.carrier.received = RECEIVED if spec.attempt == 1 else bytes(32)
    elif stage == "invite":
        found.carrier.received = RECEIVED
    return body


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (lambda: [Part(PartKind.METRICS, "m", {"loss": 1.0})], "num-examples"),
        (
            lambda: [
                Part(PartKind.METRICS, name, {"num-examples": 1}) for name in ("first", "second")
            ],
            "2 records of metrics",
        ),
        (lambda: [Part(PartKind.METRICS, "m", {"num-examples": float("nan")})], "NaN"),
        (lambda: [Part(PartKind.METRICS, "m", {"num-examples": -1.0})], "weight"),
    ],
)
def test_a_reply_that_cannot_be_summed_stays_and_that_is_recorded(parts: Any, words: str) -> None:
    four = federation(sites=[SumSite(0, app=lambda *_: parts(), rng=UnsafeCountingRng(5))])
    before = len(list(four.sites["site-1"].journal.records()))
    found = four.sum("evaluate")
    assert list(found.result.survivors) == NAMES[1:4]
    (error,) = [e for s, n, e in four.carrier.refusals if n == "site-1"]
    assert isinstance(error, DataError)
    assert words in f"{error.message} {error.hint}"
    after = list(four.sites["site-1"].journal.records())
    assert len(after) == before + 3, "the ledger's opening, the announcement, the refusal"


def test_a_policy_that_withholds_protocol_answers_is_a_refusal_not_a_crash() -> None:
    rules = {("train", kind): Rule.WITHHOLD for kind in (PartKind.ARRAYS, PartKind.METRICS)}
    policy = SitePolicy(TrainPolicy(rules=rules))
    four = federation(sites=[SumSite(0, policy, rng=UnsafeCountingRng(5))])
    assert list(four.sum().result.survivors) == NAMES[1:4]
    assert four.carrier.refused("invite") == [("site-1", "PolicyRefused")]


# --- plans ------------------------------------------------------------------------------------


def test_the_largest_weight_follows_the_mean_and_never_passes_the_terms() -> None:
    settings = SumSettings(first_max_weight=2**16, terms=SumPolicy(max_weight=1500))
    scales = first_scales([1.0], settings)
    assert (scales.max_weight, scales.most_weight) == (1024, 1024)
    scales.widen()
    assert scales.max_weight == 1024
    free = first_scales([1.0], SumSettings())
    free.widen()
    free.widen()
    free.widen()
    assert free.max_weight == 2**32
    four = federation(settings=SumSettings(terms=SumPolicy(max_weight=600)))
    for _ in range(2):
        four.sum()
    (kept,) = four.run._scales.values()
    assert kept.max_weight == 512


def test_scales_follow_what_was_summed_and_stand_where_nothing_changed() -> None:
    four = federation()
    four.sum()
    (scales,) = four.run._scales.values()
    assert scales.names == ("arrays", "metrics", "loss")
    assert scales.magnitudes == pytest.approx([0.375, 0.375], abs=1e-3)

    def still(site: SumSite, exchange: Exchange) -> list[Part]:
        parts = given(site, exchange)
        parts[0] = replace(parts[0], value=REFERENCE)
        return parts

    sites = [SumSite(i, app=still, rng=UnsafeCountingRng(i * 50)) for i in range(4)]
    quiet = federation(sites=sites)
    quiet.sum()
    (scales,) = quiet.run._scales.values()
    assert scales.magnitudes == [1.0, 0.0]


def test_coarser_plans_step_by_the_ring() -> None:
    assert shifted([3, -2], 32) == [-1, -6]
    assert shifted([3, -2], 16) == [2, -3]
    fine, coarse = Scales([1.0], 8), Scales([1.0], 8, coarser=4)
    assert coarse.exponents(32, 4)[0] == fine.exponents(32, 4)[0] - 4


def test_the_outlook_is_what_the_page_says() -> None:
    found = {sites: outlook(SumSettings(), sites, 10**6) for sites in (3, 4, 8, 16, 100)}
    assert [found[sites].tolerated for sites in found] == [0, 1, 2, 5, 36]
    assert found[16].upload_bytes < 4.02e6
    assert found[16].plain_bytes == 4 * 10**6
    assert found[16].smallest == 5
    small = outlook(SumSettings(ring_bits=16), 16, 10**6)
    assert small.upload_bytes < 2.02e6
    assert small.margin_bits < found[16].margin_bits
    assert outlook(SumSettings(strict=True), 8, 10).tolerated == 0
    with pytest.raises(CohortTooSmall):
        outlook(SumSettings(), 2, 10)


def test_a_strict_run_needs_every_reveal() -> None:
    settings = SumSettings(strict=True, first_max_weight=1024)
    checked(federation(8, settings).sum(), NAMES)
    eight = federation(8, settings, tamper=lose(("reveal", "site-2")))
    checked(eight.sum(), [name for name in NAMES if name != "site-2"])
    assert causes(eight) == ["too few sites answered the reveal"]


def test_reveals_are_for_survivors_and_hold_each_a_share_or_a_seed_never_both() -> None:
    eight = federation(8, tamper=lose(("invite", "site-2")))
    eight.sum()
    reveals = [decode(Reveal, body) for stage, _, body in eight.carrier.left if stage == "reveal"]
    assert len(reveals) == 7
    for reveal in reveals:
        shares, seeds = ({name for name, _ in rows} for rows in (reveal.shares, reveal.seeds))
        assert shares == set(NAMES) - {"site-2"}
        assert seeds == {"site-2"}
