"""A `Released` cannot be forged, changed, copied or derived from."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from tests.fakes.gate_site import Site, arrays, exchange

from comity import release
from comity.errors import RefusedError
from comity.release import Released, Seal, Withheld, claim_seal
from comity.services import gate


def released() -> Released[Any]:
    (outcome,) = Site().gate().release(exchange(), [arrays()])
    assert isinstance(outcome, Released)
    return outcome


def test_the_gate_holds_the_seal_and_nobody_gets_it_again() -> None:
    assert gate.__name__ == "comity.services.gate"
    with pytest.raises(RefusedError, match=r"the seal belongs to comity\.services\.gate"):
        claim_seal("somebody")


@pytest.mark.parametrize("seal", [Seal(), None, object()])
def test_no_other_seal_makes_a_released(seal: Any) -> None:
    with pytest.raises(RefusedError, match="only a site's gate"):
        Released("secret", 1, seal=seal)
    with pytest.raises(TypeError):
        Released("secret", 1)  # type: ignore[call-arg]


def test_a_released_is_frozen_and_is_not_copied_or_pickled() -> None:
    one = released()
    for name in ("value", "_value", "sequence", "other"):
        with pytest.raises(AttributeError):
            setattr(one, name, "other")
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not pickled or copied"):
            copied(one)


def test_a_released_has_no_heirs() -> None:
    with pytest.raises(TypeError, match="sealed"):
        type("Forged", (Released,), {})


def test_a_released_does_not_tell_its_value_when_printed() -> None:
    assert repr(released()) == "Released(<dict>, sequence=3)"


def test_withheld_compares_by_policy_and_reason() -> None:
    one = Withheld("train.arrays = sum", "not in the clear")
    assert one == Withheld("train.arrays = sum", "not in the clear")
    assert hash(one) == hash(Withheld("train.arrays = sum", "not in the clear"))
    assert one != Withheld("train.arrays = sum", "other")
    assert one != "Withheld"
    assert repr(one) == "Withheld('train.arrays = sum', 'not in the clear')"


def test_the_first_caller_alone_gets_the_seal() -> None:
    held = list(release._claimed_by)
    release._claimed_by.clear()
    try:
        assert isinstance(claim_seal("first"), Seal)
        with pytest.raises(RefusedError, match="first"):
            claim_seal("second")
    finally:
        release._claimed_by[:] = held
