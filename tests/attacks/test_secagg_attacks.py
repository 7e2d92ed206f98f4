"""A lying coordinator and lying sites in a secure sum: each is refused by name, nothing changes.

A row of a table: what is tried, the steps that lead there (they return the last one, which must be
refused), the error, and what its message must say. After the refusal every state is as it was, and
the honest rest of the run still opens the right sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.fakes.secagg_run import (
    MODEL,
    NAMES,
    SecaggRun,
    assert_sums,
    identity,
    signed_announcement,
    signed_encapsulation,
    signed_request,
    sum_terms,
)

from comity.core.secagg import site, site_keys, site_upload
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.messages import (
    Announcement,
    Complaint,
    Encapsulation,
    Invitation,
    LinkRequest,
    Reveal,
    RevealRequest,
    RoundSpec,
    Unfit,
    Upload,
)
from comity.core.secagg.sum_state import Cause, Void
from comity.errors import (
    CohortTooSmall,
    ComityError,
    DataError,
    Malformed,
    NotAMember,
    PolicyRefused,
    Replay,
    Verification,
    VersionMismatch,
    WrongStage,
)

VICTIM, COLLUDER, LAST = "s02", "s01", "s04"
HONEST = ("s00", "s02", "s03", "s04")
Try = Callable[[], object]
Steps = Callable[[SecaggRun], Try]
Row = tuple[Steps, type[ComityError], str]
CHOSEN = identity("coordinator")


# Keys: announcements and encapsulations.


def requested(**changes: Any) -> Steps:
    def steps(run: SecaggRun) -> Try:
        run.announce()
        fresh = run.random.take(site_keys.ANNOUNCE_RANDOM_BYTES)
        return lambda: run.to_site(VICTIM, run.request(**changes), fresh)

    return steps


def announced(alter: Callable[[SecaggRun, dict[str, bytes]], Any]) -> Steps:
    """The victim is invited with announcements that `alter` altered, or gave as a list."""

    def steps(run: SecaggRun) -> Try:
        if not run.announcements:
            run.announce()
        run.open()
        said = dict(run.announcements)
        given = alter(run, said) or [said[name] for name in sorted(said)]
        message = (
            LinkRequest(tuple(given))
            if run.hybrid
            else replace(run.invitation(VICTIM), announcements=tuple(given))
        )
        return lambda: run.to_site(VICTIM, message)

    return steps


def resaid(name: str, signer: str, **changes: Any) -> Steps:
    """An announcement altered, and signed by `signer`; by nobody where that is empty."""

    def alter(_: SecaggRun, said: dict[str, bytes]) -> None:
        plain = replace(decode(Announcement, said[name]), **changes)
        said[name] = signed_announcement(plain, identity(signer)) if signer else encode(plain)

    return announced(alter)


def of_another_run(**changes: Any) -> Steps:
    """An announcement that its site made and signed, but for another run or epoch."""

    def alter(run: SecaggRun, said: dict[str, bytes]) -> None:
        other = SecaggRun(seed=9)
        answer = other.to_site(
            COLLUDER, run.request(**changes), bytes(site_keys.ANNOUNCE_RANDOM_BYTES)
        )
        said[COLLUDER] = encode(answer)

    return announced(alter)


def old_epoch(run: SecaggRun) -> Try:
    old = run.announce().announcements[COLLUDER]
    run.announce()
    return announced(lambda _, said: said.update({COLLUDER: old}))(run)


def invented(signer: str) -> Steps:
    def alter(_: SecaggRun, said: dict[str, bytes]) -> None:
        plain = replace(decode(Announcement, said[COLLUDER]), site="s03x")
        said["s03x"] = signed_announcement(plain, identity(signer))

    return announced(alter)


def without_victim(_: SecaggRun, said: dict[str, bytes]) -> None:
    del said[VICTIM]


def twice(_: SecaggRun, said: dict[str, bytes]) -> list[bytes]:
    return [said[name] for name in sorted([*said, COLLUDER])]


def out_of_order(_: SecaggRun, said: dict[str, bytes]) -> list[bytes]:
    return [said[name] for name in sorted(said, reverse=True)]


def keys_asked_again_in_use(run: SecaggRun) -> Try:
    run.announce().open().invite(VICTIM)
    fresh = run.random.take(site_keys.ANNOUNCE_RANDOM_BYTES)
    return lambda: run.to_site(VICTIM, run.request(), fresh)


def epoch_from(first_round: int, *, revealed: bool) -> Steps:
    """After round 2, which was revealed or given up, keys from an old round on."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open(round_number=2)
        if revealed:
            run.complete()
            run.open(round_number=3)
        else:
            run.upload()
            run.open(round_number=3)
        fresh = run.random.take(site_keys.ANNOUNCE_RANDOM_BYTES)
        return lambda: run.to_site(VICTIM, run.request(epoch=2, first_round=first_round), fresh)

    return steps


def linked_unasked(run: SecaggRun) -> Try:
    run.announce()
    return lambda: run.to_site(VICTIM, LinkRequest(run.said))


KEYS: dict[str, Row] = {
    "keys for another federation": (requested(federation="f2", epoch=2), Verification, "'f2'"),
    "keys over an old roster": (requested(roster_version=0, epoch=2), Verification, "version 0"),
    "keys for a run without a name": (requested(run="", epoch=2), Malformed, "names no run"),
    "keys of a third kind": (requested(hybrid=2, epoch=2), Malformed, "neither kind"),
    "the epoch that was, with the other kind of keys": (
        requested(hybrid=1),
        Replay,
        "epoch 1 of run 'run-1'",
    ),
    "the epoch that was, once its keys are in use": (keys_asked_again_in_use, Replay, "epoch 1"),
    "an epoch below the last": (requested(epoch=0), Replay, "epoch 0"),
    "keys from round 0 on": (requested(epoch=2, first_round=0), Malformed, "no first round"),
    "the epoch that was, from another round on": (requested(first_round=2), Replay, "epoch 1"),
    "keys of another run in the place of these": (
        requested(run="run-0", epoch=2),
        Verification,
        "keys for run 'run-0' in the place of run 'run-1'",
    ),
    "a new epoch from a round that was revealed": (
        epoch_from(2, revealed=True),
        Replay,
        "an epoch from round 2 on; this site is at round 3",
    ),
    "a new epoch from a round below one that was given up": (
        epoch_from(1, revealed=False),
        Replay,
        "an epoch from round 1 on; this site is at round 2",
    ),
    "a key whose chains start at another round": (
        resaid(COLLUDER, COLLUDER, first_round=2),
        Verification,
        "announcement of s01 is of",
    ),
    "a key of an older roster": (
        resaid(COLLUDER, COLLUDER, roster_version=0),
        Verification,
        "announcement of s01 is of",
    ),
    "a substituted key": (resaid(COLLUDER, "", x25519=b"k" * 32), Verification, "s01 did not sign"),
    "a key that the coordinator signed": (
        resaid(COLLUDER, "coordinator", x25519=b"k" * 32),
        Verification,
        "s01 did not sign",
    ),
    "a key that another site signed": (resaid(COLLUDER, "s03"), Verification, "s01 did not sign"),
    "a key of an old run": (of_another_run(run="run-0"), Verification, "announcement of s01 is of"),
    "a key of another epoch": (of_another_run(epoch=7), Verification, "announcement of s01 is of"),
    "a key of the epoch before": (old_epoch, Verification, "announcement of s01 is of"),
    "an invented site": (invented("s03x"), NotAMember, "'s03x'"),
    "an invented site that a colluder signed for": (invented(COLLUDER), NotAMember, "'s03x'"),
    "a site that stands twice": (announced(twice), Malformed, "s01 stands twice"),
    "announcements in another order": (announced(out_of_order), Malformed, "out of order"),
    "the victim's own key altered": (
        resaid(VICTIM, "", x25519=b"k" * 32),
        Verification,
        "s02 did not sign",
    ),
    "the victim's own key of another epoch's making": (
        resaid(VICTIM, VICTIM, x25519=b"k" * 32),
        Verification,
        "own announcement was altered",
    ),
    "the victim's own key left out": (announced(without_victim), Verification, "left out"),
    "a colluder's key of small order": (
        resaid(COLLUDER, COLLUDER, x25519=bytes(32)),
        Verification,
        "the X25519 key of s01 gives no secret",
    ),
    "a colluder's hybrid key in a plain epoch": (
        resaid(COLLUDER, COLLUDER, mlkem=bytes(1184)),
        Verification,
        "s01 has the wrong kind",
    ),
    "an announcement with a byte behind it": (
        announced(lambda _, said: said.update({COLLUDER: said[COLLUDER] + b"\0"})),
        Malformed,
        "1 bytes behind the last field of a Announcement",
    ),
    "an encapsulation that nobody asked for": (
        linked_unasked,
        WrongStage,
        "no hybrid keys",
    ),
}


def downgraded(run: SecaggRun) -> Try:
    """A plain epoch asked of a site whose policy demands hybrid keys."""
    run.members[VICTIM] = replace(run.members[VICTIM], terms=sum_terms(hybrid=True))
    fresh = bytes(site_keys.ANNOUNCE_RANDOM_BYTES)
    return lambda: run.to_site(VICTIM, run.request(epoch=1, hybrid=0), fresh)


def too_soon(run: SecaggRun) -> Try:
    run.announce().open()
    return lambda: run.to_site(VICTIM, run.invitation(VICTIM))


def linked_twice(run: SecaggRun) -> Try:
    run.announce().link()
    return lambda: run.to_site(VICTIM, LinkRequest(run.said[1:]))


def encapsulated(alter: Callable[[list[bytes]], Any]) -> Steps:
    """The victim is invited with encapsulations that `alter` altered."""

    def steps(run: SecaggRun) -> Try:
        run.announce().link().open()
        honest = run.invitation(VICTIM)
        bodies = list(honest.encapsulations)
        alter(bodies)
        message = replace(honest, encapsulations=tuple(bodies))
        return lambda: run.to_site(VICTIM, message)

    return steps


def flipped(body: bytes, place: int) -> bytes:
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


def rekeyed(signer: str, **changes: Any) -> Steps:
    def alter(bodies: list[bytes]) -> None:
        row = replace(decode(Encapsulation, bodies[0]), **changes)
        bodies[0] = signed_encapsulation(row, identity(signer))

    return encapsulated(alter)


HYBRID: dict[str, Row] = {
    "plain keys where policy demands hybrid ones": (downgraded, PolicyRefused, "hybrid keys only"),
    "the epoch again with plain keys": (requested(hybrid=0), Replay, "epoch 1"),
    "a plain key among hybrid ones": (
        resaid(COLLUDER, COLLUDER, mlkem=b""),
        Verification,
        "s01 has the wrong kind",
    ),
    "a colluder's ML-KEM key that is none": (
        resaid(LAST, LAST, mlkem=b"\xff" * 1184),
        Verification,
        "the ML-KEM key of s04 does not hold",
    ),
    "a key of small order beside a good ML-KEM key": (
        resaid(COLLUDER, COLLUDER, x25519=bytes(32)),
        Verification,
        "the X25519 key of s01 gives no secret",
    ),
    "an attempt before the sites are linked": (too_soon, WrongStage, "announce a new epoch"),
    "other announcements after the first": (linked_twice, WrongStage, "wait for others"),
    "a ciphertext altered on the way": (
        encapsulated(lambda bodies: bodies.append(flipped(bodies.pop(), 300))),
        Verification,
        "signature",
    ),
    "a ciphertext of the coordinator's": (
        rekeyed("coordinator", ciphertext=b"c" * 1088),
        Verification,
        "signature",
    ),
    "a ciphertext for another site": (rekeyed("s00", receiver="s03"), Verification, "'s00'"),
    "a ciphertext of another epoch": (rekeyed("s00", binding=bytes(32)), Verification, "'s00'"),
    "a ciphertext of an invented site": (rekeyed("s00x", sender="s00x"), Verification, "'s00x'"),
    "a ciphertext from the higher site": (rekeyed("s03", sender="s03"), Verification, "'s03'"),
    "two ciphertexts of one site": (
        encapsulated(lambda bodies: bodies.append(bodies[0])),
        Malformed,
        "s00 encapsulated twice",
    ),
    "a ciphertext withheld": (encapsulated(lambda bodies: bodies.pop(0)), NotAMember, "'s00'"),
}


# Plans.


def planned(**changes: Any) -> Steps:
    """One site is given a plan of its own."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open()
        message = run.invitation(VICTIM, **changes)
        return lambda: run.to_site(VICTIM, message)

    return steps


def one_round(run: SecaggRun, **changes: Any) -> SecaggRun:
    """A whole round, so that the next ones can be lied about."""
    run.announce().open(**changes).complete()
    return run


def after_a_round_given_up(**changes: Any) -> Steps:
    """Round 2 is given up after the uploads; round 3 is accepted; an older plan comes."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open(round_number=2).upload()
        run.open(round_number=3).invite()
        message = run.invitation(VICTIM, **changes)
        return lambda: run.to_site(VICTIM, message)

    return steps


def after_a_round(**changes: Any) -> Steps:
    """Round 2 is summed honestly; then the victim is given a plan, and round 3 goes on."""

    def steps(run: SecaggRun) -> Try:
        one_round(run, round_number=2).open(round_number=3)
        message = run.invitation(VICTIM, **changes)
        return lambda: run.to_site(VICTIM, message)

    return steps


def plan_with(*, open_first: bool, **changes: Any) -> Steps:
    """An attempt 2 is open at the victim, perhaps uploaded; another plan comes for it."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open(attempt=2)
        if open_first:
            run.invite(VICTIM)
        else:
            run.upload(VICTIM)
        message = run.invitation(VICTIM, **changes)
        return lambda: run.to_site(VICTIM, message)

    return steps


def answered_round_in_a_new_epoch(run: SecaggRun) -> Try:
    """Two sums over nearly the same stored contributions could be subtracted."""
    one_round(run).announce().open(round_number=1, attempt=2)
    message = run.invitation(VICTIM)
    run.open(round_number=2)
    return lambda: run.to_site(VICTIM, message)


def answered_round_two_epochs_later(run: SecaggRun) -> Try:
    one_round(run).announce().announce().open(round_number=1, attempt=2)
    message = run.invitation(VICTIM)
    run.open(round_number=2)
    return lambda: run.to_site(VICTIM, message)


def without_keys(run: SecaggRun) -> Try:
    message = Invitation(
        encode(RoundSpec("fed", "", 0, 1, 1, "train", (VICTIM,), 1, 32, (), 0, "num-examples", 1))
    )
    return lambda: run.to_site(VICTIM, message)


def site_that_never_announced(run: SecaggRun) -> Try:
    run.announce(leave_out=("s03",)).open()
    message = run.invitation(VICTIM, cohort=run.names)
    return lambda: run.to_site(VICTIM, message)


def spec_bytes(alter: Callable[[bytes], bytes]) -> Steps:
    def steps(run: SecaggRun) -> Try:
        run.announce().open()
        honest = run.invitation(VICTIM)
        return lambda: run.to_site(VICTIM, replace(honest, spec=alter(honest.spec)))

    return steps


TENSORS = (("w", 6, 20), ("b", 4, 20))
PLANS: dict[str, Row] = {
    "a cohort of one": (planned(cohort=(VICTIM,), threshold=1), CohortTooSmall, "of 1 sites"),
    "a cohort below policy": (
        planned(cohort=(COLLUDER, VICTIM), threshold=2),
        CohortTooSmall,
        "of 2 sites",
    ),
    "a threshold below the bound": (planned(threshold=3), PolicyRefused, "threshold 3 of 5"),
    "a threshold above the cohort": (planned(threshold=6), PolicyRefused, "threshold 6 of 5"),
    "a cohort with an invented site": (
        planned(cohort=("s00", "s01", "s02", "s03", "s03x")),
        NotAMember,
        "'s03x'",
    ),
    "a cohort with a site that announced nothing": (
        site_that_never_announced,
        NotAMember,
        "'s03'",
    ),
    "a cohort with a site twice": (
        planned(cohort=("s00", "s01", "s01", "s02", "s03")),
        Malformed,
        "cohort must be sorted",
    ),
    "a cohort out of order": (
        planned(cohort=("s01", "s00", "s02", "s03", "s04")),
        Malformed,
        "cohort must be sorted",
    ),
    "a cohort without the victim": (
        planned(cohort=("s00", "s01", "s03", "s04")),
        Verification,
        "does not hold this site",
    ),
    "another run": (planned(run="run-2"), Verification, "'run-2'"),
    "another epoch": (planned(epoch=2), Verification, "another run or epoch"),
    "another federation": (planned(federation="f2"), Verification, "another run or epoch"),
    "round 0": (planned(round_number=0), WrongStage, "round 0"),
    "attempt 0": (planned(attempt=0), Malformed, "count from 1"),
    "a replayed round": (
        after_a_round(round_number=2, attempt=1),
        WrongStage,
        "round 2 was revealed before",
    ),
    "a lower round": (
        after_a_round(round_number=1, attempt=9),
        WrongStage,
        "round 1 was revealed before",
    ),
    "a round that was given up": (
        after_a_round_given_up(round_number=2, attempt=2),
        Replay,
        "round 2, attempt 2, is not above round 3, attempt 1",
    ),
    "a round below one that was given up": (
        after_a_round_given_up(round_number=1, attempt=9),
        Replay,
        "round 1, attempt 9",
    ),
    "a further attempt of a round that was answered": (
        after_a_round(round_number=2, attempt=2),
        WrongStage,
        "round 2 was revealed before",
    ),
    "a round that was answered, in a new epoch": (
        answered_round_in_a_new_epoch,
        WrongStage,
        "round 1 was revealed before",
    ),
    "a round that was answered, two epochs later": (
        answered_round_two_epochs_later,
        WrongStage,
        "round 1 was revealed before",
    ),
    "a stale attempt": (plan_with(open_first=True, attempt=1), Replay, "attempt 1, is not above"),
    "another plan for the open attempt": (
        plan_with(open_first=True, threshold=5),
        Replay,
        "attempt 2, is not above",
    ),
    "the same attempt after the upload": (
        plan_with(open_first=False),
        Replay,
        "attempt 2, is not above",
    ),
    "too many attempts": (planned(attempt=4), PolicyRefused, "attempt 4; this site allows 3"),
    "rounds skipped without bound": (planned(round_number=6), PolicyRefused, "skips more than 4"),
    "all rounds skipped": (planned(round_number=2**64 - 1), PolicyRefused, "skips more than 4"),
    "a plan before any keys": (without_keys, WrongStage, "announced no keys"),
    "a ring that is none": (planned(ring_bits=8), Malformed, "ring of 8 bits"),
    "a ring of no bits": (planned(ring_bits=0), Malformed, "ring of 0 bits"),
    "a tensor twice": (planned(tensors=TENSORS + TENSORS[:1]), Malformed, "stands twice"),
    "a scale beyond float32": (planned(tensors=(("w", 6, 101),)), Malformed, "out of bounds"),
    "a scale far below float32": (planned(tensors=(("w", 6, -101),)), Malformed, "out of bounds"),
    "a range so small that it is an oracle": (
        planned(tensors=(TENSORS[0], ("b", 4, 40))),
        PolicyRefused,
        "tensor 'b' is given a range of",
    ),
    "a clip norm that lets a sum wrap": (
        planned(clip_norm=1e6),
        PolicyRefused,
        "tensor 'w' has a range of",
    ),
    "a negative clip norm": (planned(clip_norm=-1.0), Malformed, "clip_norm is -1.0"),
    "another weight key": (planned(weight_key="one"), PolicyRefused, "'one'; this site weighs"),
    "a largest weight above policy": (planned(max_weight=2048), PolicyRefused, "weight of 2048"),
    "a largest weight of nothing": (planned(max_weight=0), PolicyRefused, "weight of 0"),
    "metrics without bound": (planned(metric_slots=65), Malformed, "metrics have a bound"),
    "a byte behind the plan": (spec_bytes(lambda body: body + b"\0"), Malformed, "1 bytes behind"),
    "a plan cut off": (spec_bytes(lambda body: body[:-1]), Malformed, "names is cut off"),
    "a plan of the next version": (
        spec_bytes(lambda body: body[:3] + b"\2" + body[4:]),
        VersionMismatch,
        "version 2; this release speaks 1",
    ),
    "a message of another kind as plan": (
        spec_bytes(lambda body: body[:4] + b"\1" + body[5:]),
        Malformed,
        "message 1 where a RoundSpec (6) is due",
    ),
    "bytes that are no message as plan": (spec_bytes(lambda _: b"{}"), Malformed, "no message"),
    "a plan that says it has a million sites": (
        spec_bytes(lambda body: body.replace(b"\0\0\0\5\0\0\0\3s00", b"\0\x10\0\0\0\0\0\3s00")),
        Malformed,
        "cohort has 1048576 rows; at most 1024",
    ),
    "a clip norm that is no number": (
        spec_bytes(lambda body: body[:-12] + b"\x7f\xf8" + bytes(10)),
        Malformed,
        "clip_norm is nan",
    ),
}


def next_attempt(*, unfit: bool = True, **changes: Any) -> Steps:
    """An attempt did not fit at the victim, or was uploaded; the next one is not a coarser one."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open(cohort=("s00", "s01", "s02", "s03"))
        run.invite(VICTIM)
        run.contribute(VICTIM, **({"arrays": TOO_LARGE} if unfit else {}))
        message = run.invitation(VICTIM, **({"attempt": 2} | changes))
        run.open(round_number=2)
        return lambda: run.to_site(VICTIM, message)

    return steps


def round_before_the_epoch(run: SecaggRun) -> Try:
    """It was not revealed, but the chains would be those of a later round."""
    one_round(run).announce(first_round=4).open()
    message = run.invitation(VICTIM, round_number=3)
    return lambda: run.to_site(VICTIM, message)


def finer_in_a_new_epoch(run: SecaggRun) -> Try:
    run.announce().open().invite(VICTIM)
    assert isinstance(run.contribute(VICTIM, arrays=TOO_LARGE), Unfit)
    run.announce().open(round_number=1, attempt=2)
    message = run.invitation(VICTIM, tensors=FINER)
    return lambda: run.to_site(VICTIM, message)


FINER = (("w", 6, 21), ("b", 4, 21))
LOCATE = "is not the plan of the attempt before, or a coarser one throughout"
PLANS |= {
    "a largest weight that is no power of two, to find a count": (
        planned(max_weight=100),
        Malformed,
        "a largest weight of 100, which is no power of two",
    ),
    "the attempt that did not fit, again": (next_attempt(attempt=1), Replay, "attempt 1, is not"),
    "a finer attempt after one that did not fit": (
        next_attempt(tensors=FINER),
        PolicyRefused,
        LOCATE,
    ),
    "a finer attempt of the same round in a new epoch": (
        finer_in_a_new_epoch,
        PolicyRefused,
        LOCATE,
    ),
    "a round before the first of the epoch": (
        round_before_the_epoch,
        WrongStage,
        "round 3 was revealed before, or is of an older epoch",
    ),
    "a finer attempt after an upload": (
        next_attempt(unfit=False, tensors=FINER),
        PolicyRefused,
        LOCATE,
    ),
    "an attempt that is coarser in one tensor": (
        next_attempt(tensors=(("w", 6, 19), ("b", 4, 20))),
        PolicyRefused,
        LOCATE,
    ),
    "an attempt that is coarser here and finer there": (
        next_attempt(tensors=(("w", 6, 19), ("b", 4, 21))),
        PolicyRefused,
        LOCATE,
    ),
    "an attempt over fewer tensors": (next_attempt(tensors=TENSORS[:1]), PolicyRefused, LOCATE),
    "an attempt over other tensors": (
        next_attempt(tensors=(("w", 6, 20), ("c", 4, 20))),
        PolicyRefused,
        LOCATE,
    ),
    "an attempt in the small ring, whose range is finer": (
        next_attempt(tensors=(("w", 6, 8), ("b", 4, 8)), ring_bits=16),
        PolicyRefused,
        LOCATE,
    ),
    "an attempt in a larger cohort, whose range is finer": (
        next_attempt(cohort=("s00", "s01", "s02", "s03", "s04")),
        PolicyRefused,
        LOCATE,
    ),
    "an attempt under another largest weight": (
        next_attempt(max_weight=64),
        PolicyRefused,
        "changes weight or clip norm",
    ),
    "an attempt under another clip norm": (
        next_attempt(clip_norm=1.0),
        PolicyRefused,
        "changes weight or clip norm",
    ),
}


def policy_that_came_to_demand_hybrid_keys(run: SecaggRun) -> Try:
    run.announce().open()
    message = run.invitation(VICTIM)
    strict = replace(run.members[VICTIM], terms=sum_terms(hybrid=True))
    return lambda: site.step(strict, run.states[VICTIM], message, b"")


PLANS["plain keys of before the policy demanded hybrid ones"] = (
    policy_that_came_to_demand_hybrid_keys,
    PolicyRefused,
    "hybrid keys only",
)


def sixteen_bits(run: SecaggRun) -> Try:
    run.members[VICTIM] = replace(run.members[VICTIM], terms=sum_terms(rings=frozenset({32})))
    return planned(ring_bits=16, tensors=(("w", 6, 8), ("b", 4, 8)))(run)


def weights_that_wrap(run: SecaggRun) -> Try:
    run.members[VICTIM] = replace(run.members[VICTIM], terms=sum_terms(max_weight=2**60))
    return planned(max_weight=2**46)(run)


PLANS |= {
    "a ring that this site does not allow": (sixteen_bits, PolicyRefused, "does not allow"),
    "weights whose sum wraps": (weights_that_wrap, PolicyRefused, "the sum of weights could wrap"),
}


# Contributions: from the site's own side, where an app may return anything.


def contributed(**changes: Any) -> Steps:
    def steps(run: SecaggRun) -> Try:
        run.announce().open().invite(VICTIM)
        return lambda: run.contribute(VICTIM, **changes)

    return steps


def with_array(name: str, array: Any) -> dict[str, Any]:
    return {**MODEL, name: np.asarray(array)}


def again_after_unfit(run: SecaggRun) -> Try:
    run.announce().open().invite(VICTIM)
    assert isinstance(run.contribute(VICTIM, arrays=TOO_LARGE), Unfit)
    run.open(round_number=2)
    return lambda: run.contribute(VICTIM)


def again_after_upload(run: SecaggRun) -> Try:
    run.announce().open().invite(VICTIM)
    run.upload(VICTIM)
    return lambda: run.contribute(VICTIM)


def other_names_than_the_plan(run: SecaggRun) -> Try:
    run.announce().open(names=NAMES).invite(VICTIM)
    return lambda: run.contribute(VICTIM, names=("arrays", "metrics", "accuracy", "loss"))


def before_an_attempt(run: SecaggRun) -> Try:
    run.announce().open()
    return lambda: run.contribute(VICTIM)


def short_of_chance(run: SecaggRun) -> Try:
    run.announce().open().invite(VICTIM)
    return lambda: run.to_site(VICTIM, run.contribution(VICTIM), bytes(32))


TOO_LARGE = {name: np.full_like(array, 1e9) for name, array in MODEL.items()}
CONTRIBUTIONS: dict[str, Row] = {
    "a NaN": (
        contributed(arrays=with_array("b", [0, np.nan, 0, 0])),
        DataError,
        "array b holds a NaN",
    ),
    "an infinity": (
        contributed(arrays=with_array("w", [[0, -np.inf, 0]] * 2)),
        DataError,
        "array w holds",
    ),
    "a wrong length": (
        contributed(arrays=with_array("b", [0.0, 1.0])),
        DataError,
        "array b of shape (2,) is not what the plan sums",
    ),
    "a missing array": (contributed(arrays={"w": MODEL["w"]}), DataError, "does not name"),
    "changes of what did not come in": (
        contributed(reference={"w": MODEL["w"]}),
        DataError,
        "array b of shape (4,) is not what the plan sums",
    ),
    "a reference of another length": (
        contributed(reference=with_array("w", [1.0])),
        DataError,
        "array w of shape (2, 3) is not what the plan sums",
    ),
    "a negative weight": (contributed(weight=-1.0), DataError, "no sensible weight"),
    "a weight that is no number": (
        contributed(weight=float("nan")),
        DataError,
        "no sensible weight",
    ),
    "a weight without end": (contributed(weight=float("inf")), DataError, "no sensible weight"),
    "a metric that is no number": (
        contributed(metrics=(0.0, float("nan"))),
        DataError,
        "a metric is not finite",
    ),
    "a metric beyond what the tail holds": (
        contributed(metrics=(2.0**62, 0.0)),
        DataError,
        "or too large",
    ),
    "more metrics than the plan has room for": (
        contributed(metrics=(1.0, 2.0, 3.0)),
        DataError,
        "3 metrics under 4 names; the plan has room for 2",
    ),
    "fewer names than metrics": (
        contributed(names=NAMES[:3]),
        DataError,
        "2 metrics under 3 names",
    ),
    "a name that does not print": (
        contributed(names=(*NAMES[:3], "\x1b[2J")),
        DataError,
        "is no name, or too long",
    ),
    "a name without end": (
        contributed(names=(*NAMES[:3], "é" * 129)),
        DataError,
        "is no name, or too long",
    ),
    "other names than the plan's, known from the rounds before": (
        other_names_than_the_plan,
        DataError,
        "names other records or metrics",
    ),
    "words in the place of numbers": (
        contributed(arrays=with_array("b", ["a", "b", "c", "d"])),
        DataError,
        "array b of dtype <U1 cannot be summed",
    ),
    "complex numbers": (
        contributed(arrays=with_array("b", [1j, 0, 0, 0])),
        DataError,
        "array b of dtype complex128",
    ),
    "changes of what came in as words": (
        contributed(reference=with_array("b", ["a", "b", "c", "d"])),
        DataError,
        "array b of dtype float32 cannot be summed",
    ),
    "a digest of nothing": (contributed(received=b""), Malformed, "is not 32 bytes"),
    "another try after it did not fit": (again_after_unfit, WrongStage, "no attempt waits"),
    "another try after the upload": (again_after_upload, WrongStage, "no attempt waits"),
    "no attempt open": (before_an_attempt, WrongStage, "no attempt waits"),
    "too few random bytes": (short_of_chance, Malformed, "32 random bytes"),
}


# Reveals, at the site.


def asked(
    alter: Callable[[SecaggRun, RevealRequest], RevealRequest], signer: str = "coordinator"
) -> Steps:
    """All upload; the victim is asked something else, signed by `signer`."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open().upload()
        run.close()
        altered = alter(run, run.requests()[VICTIM])
        message = signed_request(altered, identity(signer)) if signer else altered
        return lambda: run.to_site(VICTIM, message)

    return steps


def survivors(*names: str) -> Callable[[SecaggRun, RevealRequest], RevealRequest]:
    """Other survivors; the shares are those of the names that uploaded."""

    def alter(_: SecaggRun, request: RevealRequest) -> RevealRequest:
        shares = tuple(row for row in request.shares if row[0] in names)
        return replace(request, survivors=names, shares=shares)

    return alter


def share_of(name: str, sealed: bytes | str) -> Callable[[SecaggRun, RevealRequest], RevealRequest]:
    """Another sealed share for a name: bytes, or those of another site."""

    def alter(_: SecaggRun, request: RevealRequest) -> RevealRequest:
        by_name = {row[0]: row for row in request.shares}
        bytes_ = by_name[sealed][1] if isinstance(sealed, str) else sealed
        by_name[name] = (name, bytes_, by_name[name][2])
        return replace(request, shares=tuple(by_name.values()))

    return alter


def unchanged(_: SecaggRun, request: RevealRequest) -> RevealRequest:
    return request


def recommitted(_: SecaggRun, request: RevealRequest) -> RevealRequest:
    first, *others = request.shares
    return replace(request, shares=((*first[:2], bytes(32)), *others))


def second_reveal(run: SecaggRun) -> Try:
    """After its answer the victim is told that a site dropped: both halves would open that site."""
    run.announce().open().upload()
    run.close()
    run.reveal(VICTIM)
    altered = survivors("s00", "s01", "s02", "s03")(run, run.requests()[VICTIM])
    return lambda: run.to_site(VICTIM, signed_request(altered, CHOSEN))


def other_order_of_reveals(run: SecaggRun) -> Try:
    """First with a site as dropped, then with all."""
    run.announce().open().upload("s00", "s01", "s02", "s03")
    late = run.invite(LAST).contribute(LAST)
    assert isinstance(late, site_upload.MaskedUpload)
    run.close()
    run.reveal(VICTIM)
    row = late.upload.rows[2]
    honest = run.requests()[VICTIM]
    altered = replace(honest, survivors=run.names, shares=(*honest.shares, (LAST, row[0], row[1])))
    return lambda: run.to_site(VICTIM, signed_request(altered, CHOSEN))


def another_reveal_after_the_answer(run: SecaggRun) -> Try:
    run.announce().open().upload()
    run.close()
    run.reveal(VICTIM)
    other = replace(run.requests()[VICTIM], context=bytes(32))
    return lambda: run.to_site(VICTIM, signed_request(other, CHOSEN))


def reveal_before_upload(run: SecaggRun) -> Try:
    run.announce().open().invite(VICTIM)
    request = RevealRequest(bytes(32), VICTIM, run.names, ())
    return lambda: run.to_site(VICTIM, signed_request(request, CHOSEN))


def reveal_of_a_stale_attempt(run: SecaggRun) -> Try:
    """Attempt 1 is given up by the coordinator, who asks for it while attempt 2 runs."""
    run.announce().open().upload()
    run.close()
    stale = run.requests()[VICTIM]
    run.open(attempt=2).upload(VICTIM)
    return lambda: run.to_site(VICTIM, stale)


def told_of(**changes: Any) -> Steps:
    """The colluder is told something else than all others, and its share is sent on."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open().upload("s00", "s02", "s03", "s04")
        run.close()
        plan = {name: changes[name] for name in ("cohort", "threshold") if name in changes}
        run.to_site(COLLUDER, run.invitation(COLLUDER, **plan))
        other = run.contribute(
            COLLUDER, **{name: value for name, value in changes.items() if name not in plan}
        )
        assert isinstance(other, site_upload.MaskedUpload)
        honest = run.requests()[VICTIM]
        row = (COLLUDER, *other.upload.rows[run.names.index(VICTIM)][:2])
        shares = tuple(sorted((*honest.shares, row)))
        altered = replace(honest, survivors=run.names, shares=shares)
        return lambda: run.to_site(VICTIM, signed_request(altered, CHOSEN))

    return steps


REVEALS: dict[str, Row] = {
    "the victim is told that it dropped": (
        asked(survivors("s00", "s01", "s03", "s04")),
        Verification,
        "told that it dropped out",
    ),
    "survivors outside of the cohort": (
        asked(survivors("s00", "s01", "s02", "s03", "s04", "s05")),
        Verification,
        "not all of the cohort",
    ),
    "too few survivors": (
        asked(survivors("s01", "s02", "s03")),
        Verification,
        "3 survivors, fewer than the threshold of 4",
    ),
    "a survivor twice, to reach the threshold": (
        asked(survivors("s01", "s02", "s02", "s03")),
        Malformed,
        "survivors must be sorted",
    ),
    "a survivor whose share is left out: both alive and dropped": (
        asked(lambda _, request: replace(request, shares=request.shares[:-1])),
        Malformed,
        "the share of each survivor",
    ),
    "a share of a site that dropped: overlap of survivors and dropped": (
        asked(lambda _, request: replace(request, survivors=request.survivors[:-1])),
        Malformed,
        "the share of each survivor",
    ),
    "the reveal of another site": (
        asked(lambda run, _: run.requests()[COLLUDER]),
        Verification,
        "a reveal for 's01'",
    ),
    "an unsigned reveal": (
        asked(lambda _, request: replace(request, signature=bytes(64)), ""),
        Verification,
        "signature",
    ),
    "a reveal that another site signed": (asked(unchanged, COLLUDER), Verification, "signature"),
    "a reveal altered after its signature": (
        asked(survivors("s00", "s01", "s02", "s03"), ""),
        Verification,
        "signature",
    ),
    "another context": (
        asked(lambda _, request: replace(request, context=bytes(32))),
        WrongStage,
        "no upload of this site",
    ),
    "a second reveal with fewer survivors": (second_reveal, Replay, "for other survivors"),
    "a second reveal with more survivors": (other_order_of_reveals, Replay, "other survivors"),
    "another context after the answer": (
        another_reveal_after_the_answer,
        WrongStage,
        "no upload of this site",
    ),
    "a reveal before the upload": (reveal_before_upload, WrongStage, "no upload of this site"),
    "a reveal of a stale attempt": (reveal_of_a_stale_attempt, WrongStage, "no upload of this"),
}

COMPLAINTS: dict[str, tuple[Steps, str]] = {
    "two shares swapped": (asked(share_of("s01", "s03")), "s01"),
    "a corrupt share": (asked(share_of("s03", bytes(48))), "s03"),
    "another commitment to a share": (asked(recommitted), "s00"),
    "another model for one site": (told_of(received=bytes(32)), "s01"),
    "other metric names at one site": (
        told_of(names=("arrays", "metrics", "accuracy", "loss")),
        "s01",
    ),
    "another cohort for one site": (
        told_of(cohort=("s00", "s01", "s02", "s03"), threshold=4),
        "s01",
    ),
    "another threshold for one site": (told_of(threshold=5), "s01"),
}


# Lying sites, at the coordinator.


def uploaded(alter: Callable[[SecaggRun, Upload], Upload], *first: str) -> Steps:
    """The colluder's upload is altered by itself; `first` have uploaded before."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open()
        if first:
            run.upload(*first)
        run.invite(COLLUDER).contribute(COLLUDER)
        masked = run.masked[COLLUDER]
        return lambda: run.to_coordinator(COLLUDER, alter(run, masked.upload), masked.vector)

    return steps


def with_vector(vector: Any) -> Steps:
    def steps(run: SecaggRun) -> Try:
        run.announce().open().invite(COLLUDER).contribute(COLLUDER)
        return lambda: run.to_coordinator(COLLUDER, run.masked[COLLUDER].upload, vector)

    return steps


def at_place(name: str, **cells: bytes) -> Callable[[SecaggRun, Upload], Upload]:
    """Another row for a site."""

    def alter(run: SecaggRun, upload: Upload) -> Upload:
        rows = list(upload.rows)
        place = run.names.index(name)
        old = dict(zip(("sealed", "share", "pair"), rows[place], strict=True)) | cells
        rows[place] = (old["sealed"], old["share"], old["pair"])
        return replace(upload, rows=tuple(rows))

    return alter


def again(run: SecaggRun) -> Try:
    run.announce().open().upload(COLLUDER)
    return lambda: run.upload(COLLUDER)


def too_late(run: SecaggRun) -> Try:
    run.announce().open().upload("s00", "s02", "s03", "s04").close()
    run.invite(COLLUDER).contribute(COLLUDER)
    return lambda: run.upload(COLLUDER)


def not_of_the_cohort(run: SecaggRun) -> Try:
    run.announce().open(cohort=("s00", "s02", "s03", "s04"))
    return lambda: run.to_coordinator(COLLUDER, Unfit("fed", "run-1", 1, 1, 1))


def unfitted(*, after: bool = False, closed: bool = False, **changes: Any) -> Steps:
    def steps(run: SecaggRun) -> Try:
        run.announce().open()
        if after:
            run.upload(COLLUDER)
        if closed:
            run.upload("s00", "s02", "s03", "s04").close()
        message = replace(Unfit("fed", "run-1", 1, 1, 1), **changes)
        return lambda: run.to_coordinator(COLLUDER, message)

    return steps


def answered(
    alter: Callable[[Reveal], Reveal], *, dropped: bool = False, sender: str = COLLUDER
) -> Steps:
    """The colluder's answer is altered; `dropped` leaves s00 without an upload."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open().upload(*(run.names[1:] if dropped else run.names))
        run.close()
        # A copy of the state answers, so that the site can answer honestly later.
        reply = site.step(
            run.members[COLLUDER], run.states[COLLUDER], run.requests()[COLLUDER], b""
        )[1]
        assert isinstance(reply, Reveal)
        altered = alter(reply)
        return lambda: run.to_coordinator(sender, altered)

    return steps


def with_share(name: str, share: bytes) -> Callable[[Reveal], Reveal]:
    def alter(reveal: Reveal) -> Reveal:
        return replace(reveal, shares=tuple({**dict(reveal.shares), name: share}.items()))

    return alter


def complained(
    dealer: str = VICTIM,
    *,
    sender: str = COLLUDER,
    early: bool = False,
    after: bool = False,
    **changes: Any,
) -> Steps:
    """A site complains of a share; s04 never uploads."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open().upload("s00", "s01", "s02", "s03")
        if not early:
            run.close()
        if after:
            run.reveal(sender)
        message = replace(Complaint(run.context, dealer), **changes)
        return lambda: run.to_coordinator(sender, message)

    return steps


def complained_before(then: type[Complaint | Reveal]) -> Steps:
    """Four others answer, so the sum is opened for all that."""

    def steps(run: SecaggRun) -> Try:
        run.announce().open().upload().close()
        reply = site.step(
            run.members[COLLUDER], run.states[COLLUDER], run.requests()[COLLUDER], b""
        )[1]
        assert isinstance(reply, Reveal)
        complaint = Complaint(run.context, VICTIM)
        run.to_coordinator(COLLUDER, complaint)
        run.reveal(*HONEST)
        message = reply if then is Reveal else complaint
        return lambda: run.to_coordinator(COLLUDER, message)

    return steps


def before_close(run: SecaggRun) -> Try:
    run.announce().open().upload()
    return run.requests


def answer_before_close(run: SecaggRun) -> Try:
    run.announce().open().upload()
    reveal = Reveal(run.context, (), (), NAMES)
    return lambda: run.to_coordinator(COLLUDER, reveal)


def reveal_again(run: SecaggRun) -> Try:
    run.announce().open().upload()
    run.close()
    run.reveal(COLLUDER)
    return lambda: run.reveal(COLLUDER)


def answer_of_the_dropped(run: SecaggRun) -> Try:
    run.announce().open().upload("s00", "s02", "s03", "s04")
    run.close()
    reveal = Reveal(run.context, (), (), NAMES)
    return lambda: run.to_coordinator(COLLUDER, reveal)


def open_too_soon(run: SecaggRun) -> Try:
    run.announce().open().upload()
    run.close()
    run.reveal("s00", "s01", "s02")
    return run.finish


def close_twice(run: SecaggRun) -> Try:
    run.announce().open().upload()
    run.close()
    return run.close


SITES: dict[str, Row] = {
    "an upload without its vector": (with_vector(None), Malformed, "without its vector"),
    "a vector of another length": (with_vector(np.zeros(9, np.uint32)), Malformed, "vector of s01"),
    "a vector of another ring": (with_vector(np.zeros(10, np.uint16)), Malformed, "vector of s01"),
    "a vector of floats": (with_vector(np.zeros(10, np.float32)), Malformed, "vector of s01"),
    "a tail of another length": (
        uploaded(lambda _, upload: replace(upload, tail=bytes(64))),
        Malformed,
        "tail of s01 has 64 bytes",
    ),
    "a share left out": (
        uploaded(lambda _, upload: replace(upload, rows=upload.rows[:-1])),
        Malformed,
        "s01 does not bring one share",
    ),
    "a share of no bytes": (
        uploaded(at_place(VICTIM, sealed=b"")),
        Malformed,
        "one share for each",
    ),
    "a share for itself": (uploaded(at_place(COLLUDER, sealed=bytes(48))), Malformed, "one share"),
    "a pair without a commitment": (uploaded(at_place(VICTIM, pair=b"")), Malformed, "one share"),
    "two uploads of one site": (again, Replay, "s01 answered this attempt before"),
    "an upload after the end": (too_late, WrongStage, "answer of s01 comes after"),
    "a message of a site outside of the cohort": (not_of_the_cohort, NotAMember, "'s01'"),
    "a refusal after the upload": (unfitted(after=True), Replay, "s01 answered this attempt"),
    "a refusal after the end": (unfitted(closed=True), WrongStage, "answer of s01 comes after"),
    "a refusal of another attempt": (unfitted(attempt=2), Verification, "s01 answers another"),
    "a refusal of another run": (unfitted(run="run-2"), Verification, "s01 answers another"),
    "a refusal of another epoch": (unfitted(epoch=2), Verification, "s01 answers another"),
    "a request before the uploads are closed": (before_close, WrongStage, "still collects"),
    "an answer before the uploads are closed": (answer_before_close, WrongStage, "due from s01"),
    "an answer of a site that dropped": (answer_of_the_dropped, WrongStage, "due from s01"),
    "two answers of one site": (reveal_again, Replay, "s01 answered the reveal before"),
    "an answer for another attempt": (
        answered(lambda reveal: replace(reveal, context=bytes(32))),
        Verification,
        "s01 answers the reveal of another attempt",
    ),
    "other names than were summed": (
        answered(lambda reveal: replace(reveal, names=("a", "m", "x", "y"))),
        Verification,
        "s01 says other names",
    ),
    "an answer that another site gave": (
        answered(lambda reveal: reveal, sender="s03"),
        Verification,
        "s03 reveals another share of s00",
    ),
    "another share than was dealt": (
        answered(with_share(VICTIM, bytes(32))),
        Verification,
        "s01 reveals another share of s02",
    ),
    "a share that is no number of the field": (
        answered(with_share(VICTIM, b"\xff" * 32)),
        Verification,
        "s01 reveals another share of s02",
    ),
    "a share left out of the answer": (
        answered(lambda reveal: replace(reveal, shares=reveal.shares[1:])),
        Malformed,
        "s01 does not reveal one share of each survivor",
    ),
    "a seed with a survivor: both halves of a site": (
        answered(lambda reveal: replace(reveal, seeds=((VICTIM, bytes(32)),))),
        Malformed,
        "s01 does not reveal one seed for each site that dropped",
    ),
    "a seed left out": (
        answered(lambda reveal: replace(reveal, seeds=()), dropped=True),
        Malformed,
        "s01 does not reveal one seed",
    ),
    "another seed than was used": (
        answered(lambda reveal: replace(reveal, seeds=(("s00", bytes(32)),)), dropped=True),
        Verification,
        "s01 reveals another seed with s00",
    ),
    "a complaint before the uploads are closed": (
        complained(early=True),
        WrongStage,
        "no reveal is due from s01",
    ),
    "a complaint of its own share": (complained(COLLUDER), Malformed, "that it was not sent"),
    "a complaint of a stranger's share": (complained("s09"), Malformed, "that it was not sent"),
    "a complaint of another attempt": (
        complained(context=bytes(32)),
        Verification,
        "s01 answers the reveal of another attempt",
    ),
    "two complaints of one site": (
        complained_before(Complaint),
        Replay,
        "s01 answered the reveal before",
    ),
    "an answer after its complaint": (
        complained_before(Reveal),
        Replay,
        "s01 answered the reveal before",
    ),
    "a complaint after its answer": (
        complained(after=True),
        Replay,
        "s01 answered the reveal before",
    ),
    "a complaint of a site that dropped": (
        complained(sender="s04"),
        WrongStage,
        "no reveal is due from s04",
    ),
    "a sum opened too soon": (open_too_soon, WrongStage, "too few reveals"),
    "the uploads closed twice": (close_twice, WrongStage, "closed already"),
}

TABLES = {"keys": KEYS, "plan": PLANS, "app": CONTRIBUTIONS, "reveal": REVEALS, "site": SITES}
ROWS = [(f"{at}: {what}", 0, row) for at, rows in TABLES.items() for what, row in rows.items()]
ROWS += [(f"hybrid: {what}", 1, row) for what, row in HYBRID.items()]


@pytest.mark.parametrize(
    ("hybrid", "row"), [row[1:] for row in ROWS], ids=[sentence for sentence, *_ in ROWS]
)
def test_an_attack_is_refused_by_name_and_the_honest_run_goes_on(hybrid: int, row: Row) -> None:
    steps, error, says = row
    run = SecaggRun(hybrid=hybrid)
    attempt = steps(run)
    before = run.snapshot()
    with pytest.raises(error, match=re.escape(says)) as caught:
        attempt()
    assert type(caught.value) is error
    assert run.snapshot() == before
    assert_sums(run, run.complete())


@pytest.mark.parametrize(("steps", "dealer"), COMPLAINTS.values(), ids=COMPLAINTS)
def test_a_share_that_does_not_open_is_complained_of_and_nothing_is_revealed(
    steps: Steps, dealer: str
) -> None:
    run = SecaggRun()
    attempt = steps(run)
    before = run.snapshot()
    assert attempt() == Complaint(run.context, dealer)
    assert run.snapshot() == before
    assert_sums(run, run.complete())


# Lies that are taken, and void the attempt once it is closed.


def another_context(_: SecaggRun, upload: Upload) -> Upload:
    return replace(upload, context=bytes(32))


def other_keys(*peers: str) -> Callable[[SecaggRun, Upload], Upload]:
    """Commitments to other seeds with these peers than the peers derived."""

    def alter(run: SecaggRun, upload: Upload) -> Upload:
        for peer in peers:
            upload = at_place(peer, pair=bytes(32))(run, upload)
        return upload

    return alter


LIES: dict[str, tuple[Callable[[SecaggRun, Upload], Upload], tuple[str, ...]]] = {
    "another context than the others": (another_context, (COLLUDER,)),
    "another key of a pair": (other_keys(VICTIM), (COLLUDER, VICTIM)),
    "another key of two pairs": (other_keys(VICTIM, "s00"), (COLLUDER,)),
    "another key of every pair": (other_keys(*HONEST), (COLLUDER,)),
}


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(("alter", "named"), LIES.values(), ids=LIES)
def test_a_lie_voids_the_attempt_by_name_whoever_uploads_first(
    alter: Callable[[SecaggRun, Upload], Upload], named: tuple[str, ...], place: int
) -> None:
    """A malicious first uploader evicts no honest site but the one that it contradicts alone."""
    run = SecaggRun(terms=sum_terms(min_honest=1)).announce().open()
    order = [*HONEST[:place], COLLUDER, *HONEST[place:]]
    for name in order:
        run.invite(name).contribute(name)
        if name == COLLUDER:
            masked = run.masked[name]
            run.masked[name] = replace(masked, upload=alter(run, masked.upload))
        run.upload(name)
    assert run.close() == Void(Cause.DISAGREE, named)
    left = tuple(name for name in run.names if name not in named)
    assert_sums(run, run.open(attempt=2, cohort=left).complete())


def test_who_is_told_other_things_does_not_hide_who_contradicts_another() -> None:
    run = SecaggRun().announce().open()
    for name in run.names:
        changes = {"received": bytes(32)} if name == LAST else {}
        run.invite(name).contribute(name, **changes)
    masked = run.masked[COLLUDER]
    upload = other_keys(VICTIM)(run, masked.upload)
    run.masked[COLLUDER] = replace(masked, upload=upload)
    run.upload()
    assert run.close() == Void(Cause.DISAGREE, (COLLUDER, VICTIM, LAST))


def test_where_as_many_say_one_thing_as_another_nobody_is_named() -> None:
    run = SecaggRun(sites=4).announce().open()
    for name in run.names:
        run.invite(name).contribute(name, received=bytes([name < "s02"]) * 32)
        run.upload(name)
    assert run.close() == Void(Cause.DISAGREE)


def test_where_nobody_uploads_all_are_named() -> None:
    run = SecaggRun(sites=4).announce().open()
    assert run.close() == Void(Cause.TOO_FEW, run.names)
