"""The digest by which a site trusts a trainer: code, privacy path and figures."""

from __future__ import annotations

import hashlib
import inspect
from types import ModuleType

import comity.adapters.train.privacy
import comity.adapters.train.steps
import comity.core.privacy.clip
import comity.core.privacy.event
import comity.core.privacy.noise
import comity.core.privacy.plan
import comity.core.privacy.sampling
from comity.ids import AppDigest
from comity.ports import Trainer

_PRIVACY_PATH: tuple[ModuleType, ...] = (
    comity.adapters.train.privacy,
    comity.adapters.train.steps,
    comity.core.privacy.clip,
    comity.core.privacy.event,
    comity.core.privacy.noise,
    comity.core.privacy.plan,
    comity.core.privacy.sampling,
)


def trainer_digest(trainer: Trainer) -> AppDigest:
    """``sha256:`` over the source of the trainer's module and privacy path, and its settings.

    Any change to the clipping, sampling or noise, or to a figure such as the learning rate, gives
    another digest, which a site must trust anew.
    """
    digest = hashlib.sha256(b"comity/trainer/v1")
    trainers_own = inspect.getmodule(type(trainer))
    for module in (*([trainers_own] if trainers_own else []), *_PRIVACY_PATH):
        source = inspect.getsource(module).encode()
        digest.update(len(source).to_bytes(8, "big") + source)
    digest.update(repr(trainer).encode())
    return AppDigest(f"sha256:{digest.hexdigest()}")
