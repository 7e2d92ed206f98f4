"""Who runs app calls: in worker processes or in this one; a grid sees no difference."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Message

from comity.adapters.flower.calls import Outcome

NodeConfig = Mapping[str, bool | float | int | str]


@dataclass(frozen=True, slots=True)
class Call:
    """One message on its way to one site's app.

    Attributes:
        number: Counts all calls of a run from 1.
        node_id: The site's node.
        node_config: What the app sees as ``context.node_config``.
        message: What it is sent; nobody changes it any more.
        seed: 32 bytes for the global generators.
    """

    number: int
    node_id: int
    node_config: NodeConfig
    message: Message
    seed: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a call."""

    number: int
    outcome: Outcome


class Crew(Protocol):
    """Runs calls; `Context.state` of each node persists from call to call."""

    def submit(self, calls: Sequence[Call]) -> None:
        """Takes calls; begins with them now or in the next `wait`."""

    def wait(self, timeout_s: float | None) -> list[Finished]:
        """Works until a call finished or time is up; what finished, in any order."""

    def abandon(self, numbers: Collection[int]) -> None:
        """Gives calls up that nobody waits for any more: they leave no reply and no state."""

    def close(self) -> None:
        """Ends everything that the crew started."""
