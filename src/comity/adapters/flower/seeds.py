"""Seeds for app calls: HKDF over the site's secret, so that the coordinator cannot recompute them.

    seed = HKDF-SHA256(ikm=site secret, salt=run seed, info=(site, exchange, type, index))

RFC 5869. What is seeded is what apps draw from without asking: `random`, NumPy's global generator
and torch where it is imported. Generators that an app makes from the operating system's entropy
stay outside.
"""

from __future__ import annotations

import hmac
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import numpy as np

Modules = Mapping[str, ModuleType]
_SALT: Final = b"comity/app-seed/v1/"
_ACCELERATORS: Final = ("cuda", "hip", "xpu")
_SIMULATED: Final = b"comity/simulated-site/v1/"


def simulated_secret(run_seed: int, site: str) -> bytes:
    """The secret of a simulated site, equal in each run with the same seed: no secret at all."""
    return hmac.digest(_SIMULATED + str(run_seed).encode(), site.encode(), "sha256")


def call_seed(secret: bytes, run_seed: int, *info: str | int) -> bytes:
    """The 32-byte seed of one app call; `info` is encoded without ambiguity.

    Args:
        secret: The site's secret, 32 bytes or more.
        run_seed: The run's seed, known to all members.
        info: What tells this call from all others of the run.
    """
    key = hmac.digest(_SALT + str(run_seed).encode(), secret, "sha256")
    text = b"".join(len(part).to_bytes(4, "big") + part for part in (str(i).encode() for i in info))
    return hmac.digest(key, text + b"\x01", "sha256")


def seed_generators(seed: bytes, modules: Modules = sys.modules) -> None:
    """Seeds `random`, NumPy's global generator and an imported torch from 32 bytes."""
    random.seed(int.from_bytes(seed, "big"))
    np.random.seed(np.frombuffer(seed, dtype=">u4").astype(np.uint32))  # noqa: NPY002 - what apps use
    torch = _torch(modules)
    if torch is not None:
        number = int.from_bytes(seed[:8], "big", signed=True)
        if any(getattr(torch.version, name, None) for name in _ACCELERATORS):
            torch.manual_seed(number)
        else:
            # The same on a build for CPUs; `manual_seed` takes a millisecond to note who called.
            torch.default_generator.manual_seed(number)


@dataclass(frozen=True, slots=True)
class GeneratorStates:
    """Where the process's global generators stood."""

    python: Any
    numpy: Any
    torch: Any

    @classmethod
    def now(cls, modules: Modules = sys.modules) -> GeneratorStates:
        """The states at this moment."""
        torch = _torch(modules)
        kept = None if torch is None else torch.get_rng_state()
        return cls(random.getstate(), np.random.get_state(), kept)  # noqa: NPY002 - likewise

    def restore(self, modules: Modules = sys.modules) -> None:
        """Puts the generators back."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002 - likewise
        torch = _torch(modules)
        if torch is not None and self.torch is not None:
            torch.set_rng_state(self.torch)


def _torch(modules: Modules) -> ModuleType | None:
    torch = modules.get("torch")
    return torch if torch is not None and hasattr(torch, "manual_seed") else None
