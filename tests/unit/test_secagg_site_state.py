from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from tests.fakes.secagg_run import MODEL, SecaggRun, assert_sums, sum_terms

from comity.core.secagg import coordinator
from comity.core.secagg.codec import code_of, decode, encode
from comity.core.secagg.keys import expand, next_chain, pair_seed, share_key, vector_key
from comity.core.secagg.messages import Unfit
from comity.core.secagg.site import ended, invited
from comity.core.secagg.site_keys import ANNOUNCE_RANDOM_BYTES
from comity.core.secagg.site_state import SiteState, Stage
from comity.core.secagg.terms import check_threshold, colluders, honest, least_threshold
from comity.errors import CohortTooSmall, Malformed, PolicyRefused, Verification, WrongStage


def too_large() -> dict[str, Any]:
    return {name: np.full_like(array, 1e9) for name, array in MODEL.items()}


def test_a_state_is_read_back_as_it_was_at_every_stage() -> None:
    run = SecaggRun(sites=4, hybrid=1)
    seen = {}

    def look() -> None:
        for state in run.states.values():
            assert decode(SiteState, encode(state)) == state
            seen[Stage(state.stage)] = state

    look()
    run.announce()
    look()
    run.link()
    look()
    run.open().invite()
    look()
    run.upload()
    look()
    run.close()
    run.reveal()
    look()
    assert_sums(run, run.finish())
    run.open(round_number=2).invite().contribute("s01", arrays=too_large())
    look()
    assert set(seen) == set(Stage) - {Stage.LINKED}


def test_a_state_with_a_byte_behind_it_is_none() -> None:
    state = SecaggRun().announce().states["s00"]
    with pytest.raises(Malformed):
        decode(SiteState, encode(state) + b"\0")


@pytest.mark.parametrize("hybrid", [0, 1])
def test_several_rounds_attempts_cohorts_and_epochs_of_one_run(hybrid: int) -> None:
    run = SecaggRun(sites=6, hybrid=hybrid, terms=sum_terms(max_skipped_rounds=2))
    assert_sums(run, run.complete())
    # s05 is not sampled in rounds 2 and 3, and steps over them in round 4.
    for number in (2, 3):
        assert_sums(run, run.open(round_number=number, cohort=run.names[:5]).complete())
    assert_sums(run, run.open(round_number=4).complete())
    # Round 5 is given up after all uploaded; its second attempt sums.
    run.open(round_number=5).upload()
    assert_sums(run, run.open(round_number=5, attempt=2).complete())
    # Round 6 is given up for good: the next one goes on.
    run.open(round_number=6).upload()
    assert_sums(run, run.open(round_number=7).complete())
    # A new epoch goes on counting; the rounds before it were not skipped.
    run.announce()
    if hybrid:
        run.link()
    assert_sums(run, run.open(round_number=8).complete())
    # A state is for one run: another run starts at round 1 with another.
    with pytest.raises(Verification, match="keys for run 'run-2' in the place of run 'run-1'"):
        run.to_site("s00", run.request(run="run-2", epoch=9), bytes(128))
    assert_sums(run, SecaggRun(run="run-2", hybrid=hybrid).complete())


def test_drop_outs_down_to_the_threshold_before_or_after_the_upload() -> None:
    for dropped in ((), ("s00",), ("s07",), ("s02", "s05")):
        run = SecaggRun(sites=8).announce().open()
        assert run.plan.threshold == 6
        run.upload(*(name for name in run.names if name not in dropped))
        run.close()
        answering = run.sum_state.survivors if dropped else run.names[2:]
        outcome = run.reveal(*answering).finish()
        assert_sums(run, outcome)
        assert run.sum_state.dropped == dropped


def test_skipped_rounds_step_the_chain_as_taken_rounds_do() -> None:
    run = SecaggRun().announce().open()
    run.complete()
    start = run.states["s01"].chain("s02")
    for number in (2, 3):
        run.open(round_number=number, cohort=("s00", "s01", "s03", "s04")).complete()
    run.open(round_number=4).invite()
    assert run.states["s01"].chain("s02") == run.states["s02"].chain("s01")
    assert run.states["s01"].chain("s02") == next_chain(next_chain(start, 2), 3)
    assert {state.chain_round for state in run.states.values()} == {4}


def test_after_the_reveal_the_state_holds_nothing_that_the_round_came_from() -> None:
    run = SecaggRun().announce()
    private = run.states["s02"].private
    run.open().upload("s00", "s01", "s02", "s03")
    at_upload = run.states["s02"]
    context = at_upload.context
    gone = {private, at_upload.own_share}
    for name in ("s00", "s01", "s03"):
        chain = at_upload.chain(name)
        seed = pair_seed(chain, context)
        committed = run.masked["s02"].upload.rows[run.names.index(name)][1]
        key = share_key(chain, ("s02", name), context, committed)
        gone |= {chain, seed, key, vector_key(seed, context)}
    run.close()
    answer = run.to_site("s02", run.requests()["s02"])
    after = run.states["s02"]
    # Its own share is in the answer, which is kept until a later round; nothing else is.
    kept = encode(replace(after, answer=b""))
    assert [secret for secret in gone if secret in kept] == []
    said = {share for _, share in answer.shares} | {seed for _, seed in answer.seeds}
    assert [one for one in gone if one in after.answer and one not in said] == []
    # What is held leads to later rounds only.
    for name in ("s00", "s01", "s03"):
        assert after.chain(name) == expand(at_upload.chain(name), "ratchet", 1)
    run.open(round_number=2).invite("s02")
    assert [secret for secret in gone | said if secret in encode(run.states["s02"])] == []


@pytest.mark.parametrize("hybrid", [0, 1])
def test_private_keys_are_forgotten_once_a_site_is_linked(hybrid: int) -> None:
    run = SecaggRun(hybrid=hybrid).announce()
    if hybrid:
        run.link()
    run.open().invite()
    for state in run.states.values():
        assert (state.private, state.kem_seed, state.secrets) == (b"", b"", ())


def test_a_state_and_a_pair_that_are_not_there() -> None:
    state = SiteState()
    assert state.chain("s00") == b""
    assert repr(state) == "SiteState(run='', epoch=0, stage=NEW, <keys>)"
    assert [one.name for one in fields(SiteState)] == [name for name, _ in SiteState.LAYOUT]


@pytest.mark.parametrize("size", [0, 32, ANNOUNCE_RANDOM_BYTES - 1, ANNOUNCE_RANDOM_BYTES + 1])
def test_keys_from_too_few_random_bytes_are_not_made(size: int) -> None:
    run = SecaggRun()
    with pytest.raises(Malformed, match=f"{size} random bytes"):
        run.to_site("s00", run.request(epoch=1), bytes(size))


def test_a_mixed_drop_out_leaves_who_did_not_answer_free_for_the_next_attempt() -> None:
    run = SecaggRun(sites=8, terms=sum_terms(max_colluders=0, min_honest=2)).announce().open()
    run.upload(*run.names[:7])
    run.close()
    run.reveal(*run.names[:4])
    assert coordinator.unanswered(run.sum_state, 0).sites == ("s04", "s05", "s06")
    assert_sums(run, run.open(attempt=2, cohort=run.names[4:]).complete())
    with pytest.raises(WrongStage, match="round 1 was revealed before"):
        run.open(attempt=3, cohort=run.names[:4]).invite("s00")


@pytest.mark.parametrize(
    ("sites", "tolerated"), [(3, 0), (4, 1), (5, 1), (8, 2), (16, 5), (100, 36)]
)
def test_the_defaults_tolerate_what_the_documentation_says(sites: int, tolerated: int) -> None:
    terms = sum_terms()
    least = least_threshold(sites, colluders(terms, sites), honest(terms, sites))
    assert sites - least == tolerated
    check_threshold(terms, sites, sites, least)
    check_threshold(terms, sites, sites, sites)
    with pytest.raises(PolicyRefused, match=f"demands {least} to {sites}"):
        check_threshold(terms, sites, sites, least - 1)


def test_terms_that_no_threshold_can_keep_are_refused() -> None:
    with pytest.raises(CohortTooSmall, match="of which 3 may collude and 2 must be honest"):
        check_threshold(sum_terms(max_colluders=3, min_honest=2), 4, 4, 4)


def test_the_coordinator_that_picks_a_small_cohort_does_not_pick_fewer_colluders() -> None:
    """Of a roster of 17 four may collude; all of them may be in a cohort of six."""
    with pytest.raises(PolicyRefused, match="threshold 5 of 6 sites; this site demands 6 to 6"):
        check_threshold(sum_terms(), 17, 6, 5)
    with pytest.raises(CohortTooSmall, match="of which 4 may collude"):
        check_threshold(sum_terms(), 17, 5, 5)
    check_threshold(sum_terms(), 17, 6, 6)


@pytest.mark.parametrize("stage", [8, 255])
def test_a_state_of_no_stage_is_none(stage: int) -> None:
    with pytest.raises(Malformed, match=f"a site's state of stage {stage}"):
        SiteState(stage=stage)


@pytest.mark.parametrize("hybrid", [0, 1])
def test_the_chains_of_an_epoch_start_at_its_first_round(hybrid: int) -> None:
    run = SecaggRun(hybrid=hybrid, terms=sum_terms(max_skipped_rounds=2))
    run.first_round = 1000
    for state in run.states.items():
        run.states[state[0]] = replace(state[1], revealed=999)
    assert_sums(run, run.complete())
    assert {state.chain_round for state in run.states.values()} == {1001}
    assert {state.revealed for state in run.states.values()} == {1000}


@pytest.mark.parametrize("hybrid", [0, 1])
def test_a_roster_that_changed_after_the_keys_ends_the_epoch(hybrid: int) -> None:
    """Somebody may have been revoked: before the link, at an invitation, in a later round."""
    says = "keys of roster version 1; this site holds version 2"
    run = SecaggRun(hybrid=hybrid).announce()
    old, new = run.members["s02"], replace(run.members["s02"], roster_version=2)
    if hybrid:
        run.members["s02"] = new
        with pytest.raises(Verification, match=says):
            run.link("s02")
        run.members["s02"] = old
        run.link()
    for number in (1, 2):
        run.open(round_number=number)
        run.members["s02"] = new
        before = run.snapshot()
        with pytest.raises(Verification, match=says):
            run.invite("s02")
        assert run.snapshot() == before
        run.members["s02"] = old
        assert_sums(run, run.complete())


def test_a_run_that_is_over_leaves_no_key_at_any_stage() -> None:
    run = SecaggRun(sites=4, hybrid=1)
    held = [run.announce().states["s01"]]
    held.append(run.link().states["s01"])
    held.append(run.open().invite().states["s01"])
    held.append(run.upload().states["s01"])
    run.close()
    held.append(run.reveal().states["s01"])
    for state in held:
        secrets = {state.private, state.kem_seed, state.own_share, state.answer}
        secrets |= {*state.secrets, *state.chains}
        over = encode(ended(state))
        assert not [secret for secret in secrets if secret and secret in over]
        assert decode(SiteState, over).revealed == state.revealed
        with pytest.raises(WrongStage, match="announced no keys"):
            invited(run.members["s01"], ended(state), run.invitation("s01"))


def test_a_site_takes_no_message_that_is_not_for_it() -> None:
    run = SecaggRun()
    with pytest.raises(Malformed, match="a Unfit is no message to a site"):
        run.to_site("s00", Unfit("fed", "run-1", 1, 1, 1))


def test_a_claim_of_what_a_message_is() -> None:
    assert code_of(encode(Unfit("fed", "run-1", 1, 1, 1))) == Unfit.CODE
    assert code_of(b"CSA\1") == 0
