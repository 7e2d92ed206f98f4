"""A `Trainer` as the two halves of a standard Flower app."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from comity.adapters.store.system import SystemRng
from comity.ports import Table, Trainer

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import Strategy


def client_app(
    make_trainer: Callable[[Context], Trainer],
    load_data: Callable[[Context], Table],
    load_held_back: Callable[[Context], Table] | None = None,
) -> ClientApp:
    """A `ClientApp` that trains and scores with a `Trainer`; noise from the operating system.

    Args:
        make_trainer: The trainer for one call; settings come from ``context.run_config``.
        load_data: The site's records; where they lie comes from ``context.node_config``.
        load_held_back: The records that a model is scored on; those of `load_data` when None.
    """
    from comity.adapters.flower import parts  # noqa: PLC0415 - flwr is an extra

    return parts.client_app(make_trainer, load_data, SystemRng(), load_held_back)


def server_app(
    make_trainer: Callable[[Context], Trainer],
    rounds: Callable[[Context], int],
    make_strategy: Callable[[Context, int], Strategy] | None = None,
) -> ServerApp:
    """A `ServerApp` that averages what sites send, from the trainer's first arrays.

    Args:
        make_trainer: As in `client_app`; only `Trainer.initial` is called.
        rounds: How many rounds, from the context.
        make_strategy: The strategy, from the context and the number of sites; the mean over all
            sites when None.
    """
    from comity.adapters.flower import parts  # noqa: PLC0415 - flwr is an extra

    return parts.server_app(make_trainer, rounds, make_strategy)
