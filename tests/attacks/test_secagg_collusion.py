"""What a lying coordinator and its colluders can compute from all that they were sent.

The attacker here is as good as we can make it. It tells every honest site another set of survivors,
keeps all answers and the colluders' states, takes every mask off that it can derive, and then looks
for sites whose remaining masks cancel. It checks itself: what it says that it opened must be the
true sum of what those sites gave.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray
from tests.fakes.secagg_run import (
    MODEL,
    NAMES,
    SecaggRun,
    UnsafeCountingBytes,
    assert_sums,
    identity,
    signed_request,
    sum_terms,
)

from comity.core.policy.rule import SumPolicy
from comity.core.secagg import coordinator, shamir, site, site_upload
from comity.core.secagg.codec import decode, encode
from comity.core.secagg.keys import pair_seed, share_key, vector_key
from comity.core.secagg.mask import Stream, apply_streams
from comity.core.secagg.messages import Complaint, Reveal, RevealRequest, Unfit
from comity.core.secagg.quantize import Rounding, quantize
from comity.core.secagg.ring import limit
from comity.core.secagg.site_state import SiteState
from comity.core.secagg.site_upload import MaskedUpload
from comity.core.secagg.sum_state import Cause, Void
from comity.core.secagg.unmask import unmasking
from comity.errors import ComityError, PolicyRefused, Replay, Verification, WrongStage

CHOSEN = identity("coordinator")
OTHERS = ("s00", "s01", "s03", "s04")
Words = NDArray[np.uint32]


@dataclass
class Attacker:
    """All messages of one attempt, and the states of the sites that collude.

    Attributes:
        run: The federation, from which only what was sent is read, and colluders' states.
        colluding: Who tells the coordinator all it knows.
        states: The colluders' states as they were when they uploaded.
    """

    run: SecaggRun
    colluding: tuple[str, ...]
    states: dict[str, SiteState] = field(default_factory=dict)
    shares: dict[str, dict[str, bytes]] = field(default_factory=dict)
    seeds: dict[frozenset[str], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        run, context = self.run, self.run.context
        for name in run.plan.cohort:
            self.shares[name] = {}
        for spy in self.colluding:
            self.states[spy] = state = run.states[spy]
            # A colluder knows its pairs, and opens what was dealt to it.
            for name in run.plan.cohort:
                if name != spy:
                    self.seeds[frozenset((spy, name))] = pair_seed(state.chain(name), context)
                    share = site._opened(
                        run.members[spy], state, (name, self.row(name, spy)[0]),
                        self.row(name, spy)[1],
                    )  # fmt: skip
                    assert share is not None
                    self.shares[name][spy] = share
            self.shares[spy][spy] = state.own_share

    @property
    def honest(self) -> tuple[str, ...]:
        return tuple(name for name in self.run.plan.cohort if name not in self.colluding)

    def row(self, dealer: str, receiver: str) -> tuple[bytes, bytes, bytes]:
        return self.run.masked[dealer].upload.rows[self.run.plan.cohort.index(receiver)]

    def ask(self, name: str, survivors: Sequence[str]) -> None:
        """Tells a site who survived, signed and with the shares that fit."""
        shares = tuple((other, *self.row(other, name)[:2]) for other in survivors if other != name)
        request = RevealRequest(self.run.context, name, tuple(survivors), shares)
        answer = self.run.to_site(name, signed_request(request, CHOSEN))
        assert isinstance(answer, Reveal)
        for other, share in answer.shares:
            self.shares[other][name] = share
        for other, seed in answer.seeds:
            self.seeds[frozenset((name, other))] = seed

    def opened_sums(self) -> dict[tuple[str, ...], Words]:
        """Each smallest set of honest sites whose sum falls out, with the sum."""
        found = {}
        for group in self._components():
            if all(len(self.shares[name]) >= self.run.plan.threshold for name in group):
                found[tuple(sorted(group))] = self._unmasked(group)
        return found

    def _components(self) -> Iterator[set[str]]:
        """Honest sites that hang together by pairs whose seed is not known."""
        left = set(self.honest)
        while left:
            group, edge = set(), {left.pop()}
            while edge:
                one = edge.pop()
                group.add(one)
                more = {name for name in left if frozenset((one, name)) not in self.seeds}
                left -= more
                edge |= more
            yield group

    def _unmasked(self, group: set[str]) -> Words:
        context = self.run.context
        total = np.zeros_like(self.run.total)
        streams = []
        for name in group:
            total += self.run.masked[name].vector
            points = {
                self.run.plan.cohort.index(holder) + 1: share
                for holder, share in list(self.shares[name].items())[: self.run.plan.threshold]
            }
            streams.append(Stream(vector_key(shamir.recovered(points), context), negative=True))
            for other in self.run.plan.cohort:
                seed = self.seeds.get(frozenset((name, other)))
                if other != name and other not in group:
                    assert seed is not None
                    streams.append(Stream(vector_key(seed, context), negative=other < name))
        apply_streams(total, streams)
        return total


def words_of(run: SecaggRun, name: str) -> Words:
    """What a site quantised, which nobody but itself may see."""
    given = run.contribution(name)
    vector = np.zeros_like(run.total)
    bound = limit(run.plan.ring_bits, len(run.plan.cohort))
    factor = given.weight / run.plan.max_weight
    quantize((given.arrays, MODEL), run.plan.plan(), factor, bound, Rounding(), vector)
    return vector


def at_uploads(sites: int, terms: SumPolicy, **changes: Any) -> SecaggRun:
    """All have uploaded; copied for each way of lying."""
    run = SecaggRun(sites=sites, terms=terms).announce().open(**changes)
    run.upload()
    return run


def lies(run: SecaggRun, honest: Sequence[str]) -> Iterator[Mapping[str, tuple[str, ...]]]:
    """Every way to tell each honest site who survived."""
    cohort, least = run.plan.cohort, run.plan.threshold
    choices = [
        [
            told
            for size in range(least, len(cohort) + 1)
            for told in itertools.combinations(cohort, size)
            if name in told
        ]
        for name in honest
    ]
    for told in itertools.product(*choices):
        yield dict(zip(honest, told, strict=True))


def smallest_opened(run: SecaggRun, colluding: tuple[str, ...], told: Mapping[str, Any]) -> int:
    """The fewest honest sites in a sum that opens; the cohort where none does."""
    copy = run.fork()
    attacker = Attacker(copy, colluding)
    for name, survivors in told.items():
        attacker.ask(name, survivors)
    opened = attacker.opened_sums()
    for group, total in opened.items():
        true = sum((words_of(copy, name) for name in group), np.zeros_like(total))
        np.testing.assert_array_equal(total, true)
    return min(map(len, opened), default=len(run.plan.cohort))


@pytest.mark.parametrize(
    ("sites", "colluders", "least"), [(3, 0, 2), (4, 0, 2), (4, 1, 2), (5, 1, 2), (5, 2, 1)]
)
def test_no_lie_to_whomever_opens_a_sum_of_fewer_than_the_policy_says(
    sites: int, colluders: int, least: int
) -> None:
    run = at_uploads(sites, sum_terms(max_colluders=colluders, min_honest=least))
    spies = run.names[1 : 1 + colluders]
    honest = tuple(name for name in run.names if name not in spies)
    every = list(lies(run, honest))
    chosen = every[:: max(1, len(every) // 300)]
    assert min(smallest_opened(run, spies, told) for told in chosen) >= least


def test_lies_at_chance_among_eight_sites_open_no_small_sum() -> None:
    run = at_uploads(8, sum_terms(max_colluders=2, min_honest=3))
    spies, dice = run.names[2:4], np.random.default_rng(4)
    for _ in range(60):
        told = {}
        for name in (name for name in run.names if name not in spies):
            size = int(dice.integers(run.plan.threshold, 9))
            others = [other for other in run.names if other != name]
            some = dice.choice(others, size - 1, replace=False)
            told[name] = tuple(sorted([name, *map(str, some)]))
        assert smallest_opened(run, spies, told) >= 3


def test_one_below_the_bound_the_same_attacker_isolates_a_site() -> None:
    """The attacker has teeth: where a policy demands less, it opens one site alone."""
    run = at_uploads(4, sum_terms(max_colluders=0, min_honest=0, min_cohort=2))
    assert run.plan.threshold == 2
    told = {"s00": ("s00", "s02"), "s01": ("s00", "s01"), "s02": ("s01", "s02")}
    assert smallest_opened(run, (), told) == 1


def test_of_a_site_that_is_said_to_have_dropped_nothing_can_be_computed() -> None:
    run = SecaggRun().announce().open()
    run.upload()
    attacker = Attacker(run, ("s01",))
    victim = "s02"
    told = tuple(name for name in run.names if name != victim)
    for name in told:
        attacker.ask(name, told)
    assert set(attacker.opened_sums()) == {("s00", "s03", "s04")}
    assert len(attacker.shares[victim]) < run.plan.threshold
    # All pair masks come off, and what is left still is uniform to them: the self mask holds.
    seeds = [
        Stream(vector_key(attacker.seeds[frozenset((victim, name))], run.context),
               negative=name < victim)
        for name in told
    ]  # fmt: skip
    left = run.masked[victim].vector.copy()
    apply_streams(left, seeds)
    distance = (left - words_of(run, victim)).view(np.int32)
    assert np.count_nonzero(np.abs(distance.astype(np.int64)) > 2**20) >= len(left) - 1
    with pytest.raises(Verification, match="told that it dropped out"):
        attacker.ask(victim, told)


def test_two_attempts_with_the_same_contributions_cannot_be_subtracted() -> None:
    """Who answered in the first never gives the same again, so the difference holds many sites."""
    run = SecaggRun(sites=6, terms=sum_terms(max_colluders=0, min_honest=2)).announce().open()
    assert run.plan.threshold == 4
    run.upload()
    first = Attacker(run, ())
    for name in ("s00", "s01", "s02", "s03"):
        first.ask(name, run.names)
    assert set(first.opened_sums()) == {run.names}
    for name in ("s00", "s01", "s02", "s03"):
        message = run.open(attempt=2).invitation(name)
        with pytest.raises(WrongStage, match="round 1 was revealed before"):
            run.to_site(name, message)


# What an upload's bytes hold.


def planted(run: SecaggRun, name: str) -> MaskedUpload:
    arrays = {"w": MODEL["w"] + np.float32(0.7310586), "b": MODEL["b"] + np.float32(0.3141593)}
    changes = {"arrays": arrays, "weight": 73.0, "metrics": (0.8765432, -12345.678)}
    answer = run.contribute(name, **changes)
    assert isinstance(answer, MaskedUpload)
    return answer


def patterns() -> dict[str, bytes]:
    """What must not be seen, in every width and order that it could have."""
    numbers = {"count": 73.0, "loss": 0.8765432, "metric": -12345.678}
    numbers |= {"change of w": 0.7310586, "change of b": 0.3141593}
    numbers |= {"element of w": -1 + 0.7310586, "element of b": 0.8141593}
    found = {}
    for what, number in numbers.items():
        for dtype in ("<f4", ">f4", "<f8", ">f8"):
            found[f"{what} as {dtype}"] = np.array(number, dtype).tobytes()
        found[f"{what} as text"] = f"{abs(number):.5g}".encode()
    for what, whole in (("count", 73), ("count in steps", 73 * 2**16)):
        for dtype in ("<u4", ">u4", "<u8", ">u8"):
            found[f"{what} as {dtype}"] = np.array(whole, dtype).tobytes()
    for what, value in (("w", 0.7310586), ("b", 0.3141593)):
        word = round(float(np.float32(value)) * 0.73 * 2**20)
        for near in range(word - 2, word + 3):
            found[f"word of {what}, {near}"] = np.array(near, "<u4").tobytes()
    return found | {f"name {name}": name.encode() for name in NAMES}


def test_the_bytes_of_an_upload_show_neither_count_nor_metrics_nor_update() -> None:
    run = SecaggRun().announce().open()
    run.invite("s02")
    masked = planted(run, "s02")
    sent = encode(masked.upload) + masked.vector.tobytes()
    assert [what for what, pattern in patterns().items() if pattern in sent] == []
    control = encode(masked.upload) + np.full(4, 0.7310586, np.float32).tobytes()
    assert [what for what, pattern in patterns().items() if pattern in control]


def test_two_uploads_of_the_same_contribution_share_no_words() -> None:
    run = SecaggRun(seed=3).announce()
    sent = []
    for round_number, attempt in ((1, 1), (1, 2), (2, 1)):
        run.open(round_number=round_number, attempt=attempt).invite("s02")
        masked = planted(run, "s02")
        tail = np.frombuffer(masked.upload.tail, "<u8")
        rows = {cell for row in masked.upload.rows for cell in row if cell}
        own = {masked.upload.context, masked.upload.commitment}
        sent.append(set(masked.vector.tolist()) | set(tail.tolist()) | rows | own)
    for one, other in itertools.combinations(sent, 2):
        assert not one & other


def test_an_upload_says_as_much_whatever_its_content() -> None:
    sizes = set()
    for weight, value in ((0.0, 0.0), (100.0, 3.5)):
        run = SecaggRun().announce().open()
        run.invite("s02")
        arrays = {name: array + np.float32(value) for name, array in MODEL.items()}
        answer = run.contribute("s02", arrays=arrays, weight=weight)
        assert isinstance(answer, MaskedUpload)
        sizes.add((len(encode(answer.upload)), answer.vector.nbytes))
    assert len(sizes) == 1


def test_who_does_not_fit_says_one_bit_and_nothing_of_how_far() -> None:
    said = set()
    for value in (1e5, 1e9, 3e38):
        run = SecaggRun().announce().open()
        run.invite("s02")
        huge = {name: np.full_like(array, value) for name, array in MODEL.items()}
        answer = run.contribute("s02", arrays=huge)
        assert answer == Unfit("fed", "run-1", 1, 1, 1)
        assert isinstance(answer, Unfit)
        said.add(encode(answer))
        with pytest.raises(WrongStage, match="no attempt waits"):
            run.contribute("s02")
    assert len(said) == 1


def test_a_largest_weight_gives_nothing_away_whatever_it_is_and_its_cuts_are_summed() -> None:
    """The old search for a count, bit by bit: every answer is now an upload of the same size."""
    run, seen = SecaggRun(terms=sum_terms(max_skipped_rounds=20)).announce(), set()
    for number, power in enumerate(range(11), start=1):
        run.open(round_number=number, max_weight=2**power).invite()
        for name in run.names:
            run.contribute(name, weight=737.0 if name == "s02" else 1.0)
            run.upload(name)
        masked = run.masked["s02"]
        seen.add((len(encode(masked.upload)), masked.vector.nbytes))
        for other in (2**power // 2, 2**power * 2):
            with pytest.raises(ComityError):
                run.to_site("s02", run.invitation("s02", attempt=2, max_weight=other))
        run.close()
        outcome = run.reveal().finish()
        assert not isinstance(outcome, Void)
        result = outcome[0]
        assert (result.capped, result.weight) == (int(power < 10), 4 + min(737, 2**power))
    assert len(seen) == 1


def test_a_site_says_only_so_often_in_a_run_that_a_plan_does_not_fit() -> None:
    run = SecaggRun(terms=sum_terms(max_unfits=3)).announce()
    huge = {name: np.full_like(array, 1e9) for name, array in MODEL.items()}
    places = ((1, 1, 20), (1, 2, 19), (2, 1, 20))
    for number, attempt, exponent in places:
        tensors = (("w", 6, exponent), ("b", 4, exponent))
        run.open(round_number=number, attempt=attempt, tensors=tensors).invite("s02")
        assert isinstance(run.contribute("s02", arrays=huge), Unfit)
    # Whatever it holds, it takes no further part: silence would say as much. A new epoch does not
    # begin to count anew.
    for number in (3, 4):
        run.open(round_number=number)
        before = run.snapshot()
        with pytest.raises(PolicyRefused, match="said 3 times in this run that a plan does not"):
            run.invite("s02")
        assert run.snapshot() == before
        assert_sums(run, run.open(round_number=number, cohort=OTHERS).complete())
        run.announce()


def test_who_went_back_to_before_its_upload_uses_no_key_twice() -> None:
    """A copy of a disk from between invitation and upload: other values, other shares."""
    run = SecaggRun().announce().open().invite("s02")
    back = run.fork()
    one, two = run.contribute("s02"), back.contribute("s02", weight=11.0)
    assert isinstance(one, MaskedUpload)
    assert isinstance(two, MaskedUpload)
    assert one.upload.context == two.upload.context
    shares = []
    for name, first, second in zip(run.names, one.upload.rows, two.upload.rows, strict=True):
        if name == "s02":
            continue
        opened = [
            site._opened(run.members[name], at.states[name], ("s02", row[0]), row[1])
            for at, row in ((linked(run, name), first), (linked(back, name), second))
        ]
        assert None not in opened
        shares.append(opened)
        # Under one key and nonce the ciphertexts would differ as the shares do.
        assert xored(first[0][:32], second[0][:32]) != xored(*opened)
    assert all(one != two for one, two in shares)
    assert np.count_nonzero(one.vector == two.vector) == 0


def linked(run: SecaggRun, name: str) -> SecaggRun:
    """A copy in which a site uploaded too, so that it can open what it is dealt."""
    copy = run.fork()
    copy.invite(name).contribute(name)
    return copy


def xored(one: bytes | None, two: bytes | None) -> bytes:
    assert one is not None
    assert two is not None
    return bytes(a ^ b for a, b in zip(one, two, strict=True))


# Logs.


def secrets_of(run: SecaggRun) -> set[bytes]:
    """Every key, seed and share that the sites hold or say."""
    found = set()
    for state in run.states.values():
        found |= {state.private, state.kem_seed, state.own_share, *state.secrets, *state.chains}
    return {secret for secret in found if secret}


def assert_hidden(shown: str, secrets: set[bytes]) -> None:
    for secret in secrets:
        # Any eight bytes of a key would be too many, written as Python or as hexadecimals.
        for start in range(len(secret) - 7):
            piece = secret[start : start + 8]
            assert repr(piece)[2:-1] not in shown
            assert piece.hex() not in shown


@pytest.mark.parametrize("hybrid", [0, 1])
def test_what_is_logged_of_states_and_messages_shows_no_key(hybrid: int) -> None:
    run = SecaggRun(sites=4, hybrid=hybrid).announce()
    secrets, shown = secrets_of(run), [repr(run.states)]
    if hybrid:
        shown.append(repr(run.link().links))
        secrets |= secrets_of(run)
        shown.append(repr(run.states))
    run.open().upload("s00", "s01", "s03")
    secrets |= secrets_of(run)
    shown += [repr(run.states), repr(run.members), repr(run.masked), repr(run.sum)]
    run.close()
    shown.append(repr(run.requests()))
    for name in run.sum_state.survivors:
        answer = run.to_site(name, run.requests()[name])
        assert isinstance(answer, Reveal)
        secrets |= {secret for _, secret in (*answer.shares, *answer.seeds)}
        shown.append(repr(answer))
        run.to_coordinator(name, answer)
    streams = unmasking(run.sum_state)
    assert not isinstance(streams, Void)
    secrets |= {stream.key for part in streams for stream in part}
    shown += [repr(run.states), repr(run.sum), repr(streams), repr(Rounding(bytes(range(32))))]
    assert len(secrets) > 20
    assert_hidden("\n".join(shown), secrets | {bytes(range(32))})


def test_what_is_logged_of_a_contribution_shows_no_figure() -> None:
    given = SecaggRun().contribution("s02", weight=73.0)
    assert repr(given) == object.__repr__(given)


# Dealers who lie, and attempts that end void.


def dealt(run: SecaggRun, dealer: str, shares: Mapping[str, bytes]) -> None:
    """The dealer deals other shares, sealed and committed as they should be."""
    spec, state = run.plan, run.states[dealer]
    masked = run.masked[dealer]
    rows = list(masked.upload.rows)
    for name, share in shares.items():
        rows[spec.cohort.index(name)] = site_upload._row(run.members[dealer], state, name, share)
    run.masked[dealer] = replace(masked, upload=replace(masked.upload, rows=tuple(rows)))


def with_dealer(shares: Mapping[str, bytes], **terms: Any) -> SecaggRun:
    run = SecaggRun(terms=sum_terms(**terms)).announce().open().invite("s01")
    run.contribute("s01")
    dealt(run, "s01", shares)
    run.upload()
    run.close()
    return run


def opened_by(run: SecaggRun, receiver: str, dealer: str) -> bytes:
    state = run.states[receiver]
    if dealer == receiver:
        return state.own_share
    sealed, committed, _ = run.masked[dealer].upload.rows[run.names.index(receiver)]
    share = site._opened(run.members[receiver], state, (dealer, sealed), committed)
    return b"\xff" * 32 if share is None else share


def test_a_dealer_of_what_is_no_share_is_complained_of_and_the_others_open_the_sum() -> None:
    run = with_dealer({"s02": b"\xff" * 32})
    # A receiver that did not look is refused, and its dealer named.
    shares = tuple((name, opened_by(run, "s02", name)) for name in run.sum_state.survivors)
    careless = Reveal(run.context, shares, (), NAMES)
    with pytest.raises(Verification, match="s01 dealt what is no share to s02"):
        run.to_coordinator("s02", careless)
    run.reveal("s02")
    assert run.sum_state.complaints == {"s02": "s01"}
    run.reveal("s00", "s01", "s03", "s04")
    assert_sums(run, run.finish())


def test_while_no_more_accuse_than_may_lie_the_accusers_are_named_else_the_dealer() -> None:
    """Accusers so few may be liars, all of them; who is honest among them is left out as well."""
    run = with_dealer({"s02": b"\xff" * 32, "s03": b"\xff" * 32}, max_colluders=1)
    run.reveal()
    assert not coordinator.is_enough(run.sum_state)
    found = coordinator.unanswered(run.sum_state, 2)
    assert found == Void(Cause.COMPLAINTS, ("s02", "s03"))
    assert coordinator.unanswered(run.sum_state, 1) == Void(Cause.COMPLAINTS, ("s01",))


def test_a_lying_accuser_is_named_and_its_honest_dealer_is_not() -> None:
    run = SecaggRun(terms=sum_terms(max_colluders=1)).announce().open()
    run.upload("s00", "s01", "s02", "s03")
    run.close()
    run.to_coordinator("s01", Complaint(run.context, "s00"))
    run.reveal("s00", "s02", "s03")
    assert not coordinator.is_enough(run.sum_state)
    assert coordinator.unanswered(run.sum_state, 1) == Void(Cause.COMPLAINTS, ("s01",))


def test_of_a_dealer_that_more_accuse_than_may_lie_only_the_dealer_is_named() -> None:
    run = SecaggRun(sites=6).announce().open().upload()
    run.close()
    for accuser, dealer in (("s01", "s00"), ("s02", "s00"), ("s03", "s04")):
        run.to_coordinator(accuser, Complaint(run.context, dealer))
    assert coordinator.unanswered(run.sum_state, 1) == Void(Cause.COMPLAINTS, ("s00", "s03"))


def test_a_complaint_opens_nothing_and_the_round_goes_on_without_the_accused() -> None:
    run = with_dealer(dict.fromkeys(("s02", "s03", "s04"), b"\xff" * 32))
    run.reveal()
    assert coordinator.unanswered(run.sum_state, 1) == Void(Cause.COMPLAINTS, ("s01",))
    assert {run.states[name].revealed for name in ("s02", "s03", "s04")} == {0}
    run.open(round_number=2, cohort=("s00", "s02", "s03", "s04"))
    assert_sums(run, run.complete())


def test_a_dealer_that_seals_another_share_than_it_committed_to_is_complained_of() -> None:
    run = SecaggRun().announce().open().invite("s01")
    run.contribute("s01")
    masked, state, context = run.masked["s01"], run.states["s01"], run.states["s01"].context
    rows = list(masked.upload.rows)
    key = share_key(state.chain("s02"), ("s01", "s02"), context, rows[2][1])
    rows[2] = (AESGCM(key).encrypt(bytes(12), bytes(32), context), *rows[2][1:])
    run.masked["s01"] = replace(masked, upload=replace(masked.upload, rows=tuple(rows)))
    run.upload().close()
    request = run.requests()["s02"]
    assert run.to_site("s02", request) == Complaint(context, "s01")
    assert_sums(run, run.reveal("s00", "s01", "s03", "s04").finish())


def test_a_dealer_of_shares_that_are_not_of_one_secret_is_named() -> None:
    run = with_dealer({"s02": bytes(32)}).reveal()
    assert run.finish() == Void(Cause.DEALER, ("s01",))


def test_a_dealer_of_another_secret_than_it_committed_to_is_named() -> None:
    points = range(1, 6)
    other = shamir.split(bytes(31), 4, points, bytes(32))
    run = with_dealer({f"s{point - 1:02}": other[point - 1] for point in points if point != 2})
    run.reveal("s00", "s02", "s03", "s04")
    assert run.finish() == Void(Cause.DEALER, ("s01",))


def test_a_void_names_who_it_is_for_and_the_next_attempt_sums() -> None:
    run = SecaggRun().announce().open()
    run.upload("s00", "s01", "s02")
    assert run.close() == Void(Cause.TOO_FEW, ("s03", "s04"))
    run.open(attempt=2).upload("s00", "s01", "s03", "s04")
    assert run.close() is None
    assert_sums(run, run.reveal().finish())


def test_a_mix_of_drop_outs_voids_the_attempt_and_names_who_did_not_answer() -> None:
    run = SecaggRun().announce().open()
    run.upload("s00", "s01", "s02", "s03").close()
    run.reveal("s00", "s01", "s02")
    assert not coordinator.is_enough(run.sum_state)
    assert coordinator.unanswered(run.sum_state, 1) == Void(Cause.MIXED, ("s03",))
    assert run.open(round_number=2).complete()


def test_too_few_answers_void_the_attempt_and_name_who_is_missing() -> None:
    run = SecaggRun().announce().open()
    run.upload().close()
    run.reveal("s00", "s01", "s02")
    assert coordinator.unanswered(run.sum_state, 1) == Void(Cause.TOO_FEW_REVEALS, ("s03", "s04"))
    run.reveal("s04")
    assert coordinator.is_enough(run.sum_state)
    assert_sums(run, run.finish())


def test_a_site_that_does_not_fit_voids_the_attempt_and_a_coarser_one_sums() -> None:
    run = SecaggRun(terms=sum_terms(smallest_range=0.01)).announce()
    run.open(tensors=(("w", 6, 31), ("b", 4, 24)))
    unfit = run.invite("s04").contribute("s04")
    assert isinstance(unfit, Unfit)
    run.to_coordinator("s04", unfit)
    with pytest.raises(Replay, match="s04 answered this attempt before"):
        run.to_coordinator("s04", unfit)
    assert run.close() == Void(Cause.UNFIT, ("s04",))
    assert_sums(run, run.open(attempt=2, tensors=(("w", 6, 27), ("b", 4, 20))).complete())


def test_a_vector_altered_on_the_way_fails_its_checksum() -> None:
    run = SecaggRun().announce().open()
    run.upload()
    run.total[3] += 1
    run.close()
    assert run.reveal().finish() == Void(Cause.CHECKSUM)


@pytest.mark.parametrize("word", range(3))
def test_a_tail_that_no_honest_sites_could_have_is_not_read(word: int) -> None:
    run = SecaggRun().announce().open()
    run.invite("s01").contribute("s01")
    masked = run.masked["s01"]
    tail = np.frombuffer(masked.upload.tail, "<u8").copy()
    tail[word] += np.uint64(2**40)
    run.masked["s01"] = replace(masked, upload=replace(masked.upload, tail=tail.tobytes()))
    run.upload().close()
    assert run.reveal().finish() == Void(Cause.CHECKSUM)


@pytest.mark.parametrize("lie", [2**60, 2**45])
def test_a_metric_beyond_all_limbs_is_not_read(lie: int) -> None:
    run = SecaggRun().announce().open()
    run.invite("s01").contribute("s01")
    masked = run.masked["s01"]
    tail = np.frombuffer(masked.upload.tail, "<u8").copy()
    tail[-1] += np.uint64(lie)
    run.masked["s01"] = replace(masked, upload=replace(masked.upload, tail=tail.tobytes()))
    run.upload().close()
    assert run.reveal().finish() == Void(Cause.CHECKSUM)


def test_a_sum_without_weight_is_void() -> None:
    run = SecaggRun().announce().open()
    run.invite()
    for name in run.names:
        run.contribute(name, weight=0.0)
        run.upload(name)
    run.close()
    assert run.reveal().finish() == Void(Cause.NO_WEIGHT, run.names)


def test_what_was_asked_may_be_asked_again_and_gets_the_same_answer() -> None:
    run = SecaggRun().announce().open()
    fresh = UnsafeCountingBytes(7).take(128)
    assert encode(run.to_site("s02", run.request(), fresh)) == run.announcements["s02"]
    run.upload()
    run.close()
    request = run.requests()["s02"]
    first = run.to_site("s02", request)
    assert run.to_site("s02", request) == first
    assert decode(Reveal, run.states["s02"].answer) == first
    run.open(round_number=2).invite("s02").invite("s02")
    assert run.states["s02"].answer == b""
    with pytest.raises(WrongStage):
        run.to_site("s02", request)
