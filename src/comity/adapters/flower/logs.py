"""Flower's own log of each round, where results and events tell it already."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import flwr  # noqa: F401 - sets its logger's level when it is imported, so it must come first


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lets only warnings and errors of Flower through."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
