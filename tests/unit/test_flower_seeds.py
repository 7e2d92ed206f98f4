from __future__ import annotations

import random
from types import ModuleType, SimpleNamespace
from typing import Any

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


@pytest.mark.parametrize("cuda", [None, "12.4"])
def test_torch_is_seeded_where_it_is_imported(cuda: str | None) -> None:
    seen: list[object] = []
    torch: Any = ModuleType("torch")
    torch.version = SimpleNamespace(cuda=cuda)
    torch.manual_seed = lambda seed: seen.append(("everywhere", seed))
    torch.default_generator = SimpleNamespace(manual_seed=lambda seed: seen.append(("cpu", seed)))
    torch.get_rng_state = lambda: "state"
    torch.set_rng_state = seen.append
    modules = {"torch": torch}
    states = GeneratorStates.now(modules)
    seed_generators(b"\x00" * 7 + b"\x09" + b"\x00" * 24, modules)
    states.restore(modules)
    assert seen == [("everywhere" if cuda else "cpu", 9), "state"]


def test_states_taken_before_torch_was_imported_leave_it_alone() -> None:
    states = GeneratorStates.now({})
    torch: Any = ModuleType("torch")
    torch.manual_seed = torch.set_rng_state = pytest.fail
    states.restore({"torch": torch})
