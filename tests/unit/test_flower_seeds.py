from __future__ import annotations

import random
import sys
from types import ModuleType

import numpy as np
import pytest

from comity.adapters.flower.seeds import (
    GeneratorStates,
    call_seed,
    seed_generators,
    simulated_secret,
)


def test_a_seed_depends_on_secret_run_and_call() -> None:
    seeds = {
        call_seed(b"secret", 1, "site", 1),
        call_seed(b"other", 1, "site", 1),
        call_seed(b"secret", 2, "site", 1),
        call_seed(b"secret", 1, "site", 2),
        call_seed(b"secret", 1, "site-", 1),
        call_seed(b"secret", 1, "site1"),
    }
    assert len(seeds) == 6
    assert {len(seed) for seed in seeds} == {32}


def test_the_seed_of_a_simulated_site_is_known_and_stays() -> None:
    secret = simulated_secret(0, "site-1")
    assert secret == simulated_secret(0, "site-1")
    assert call_seed(secret, 0, "site-1", 1).hex().startswith("abfe28cf70b02e70")


def test_equal_seeds_give_equal_draws() -> None:
    draws = []
    for seed in (b"a" * 32, b"a" * 32, b"b" * 32):
        seed_generators(seed)
        draws.append((random.random(), float(np.random.rand())))  # noqa: NPY002 - what is seeded
    assert draws[0] == draws[1] != draws[2]


def test_states_are_put_back() -> None:
    before = GeneratorStates.now()
    first = (random.random(), float(np.random.rand()))  # noqa: NPY002 - what is put back
    seed_generators(b"c" * 32)
    before.restore()
    assert (random.random(), float(np.random.rand())) == first  # noqa: NPY002 - likewise


def test_torch_is_seeded_where_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    torch = ModuleType("torch")
    torch.manual_seed = seen.append  # type: ignore[attr-defined]  # stands for torch
    torch.get_rng_state = lambda: "state"  # type: ignore[attr-defined]  # likewise
    torch.set_rng_state = seen.append  # type: ignore[attr-defined]  # likewise
    monkeypatch.setitem(sys.modules, "torch", torch)
    states = GeneratorStates.now()
    seed_generators(b"\x00" * 31 + b"\x01")
    states.restore()
    assert seen == [0, "state"]
