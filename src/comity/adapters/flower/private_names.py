"""Everything we use of flwr beyond its public names; one contract test guards each.

Public are `flwr.app`, `flwr.clientapp` and `flwr.serverapp`. A `Grid` needs a little more: an
app's own ``Message(...)`` reads the process-wide `TaskIdentity`, ids are read-only once set, and
`Grid.run` returns a `Run`.
"""

from __future__ import annotations

from typing import Final

from flwr.app import Error, Message, Metadata, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["Run"]

COORDINATOR_NODE: Final[int] = SUPERLINK_NODE_ID
"""The node id that messages of a ServerApp come from."""

APP_RAISED: Final[int] = ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def enter_run(run_id: int) -> None:
    """Lets this process's app make messages of run `run_id`; process-wide."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = COORDINATOR_NODE
    TaskIdentity.task_id = 1


def empty_run(run_id: int) -> Run:
    """The `Run` that a `Grid` must be able to show."""
    return Run.create_empty(run_id=run_id)


def name_message(message: Message, message_id: str) -> None:
    """Gives a pushed message its id, as Flower's own grids do."""
    message.metadata.__dict__["_message_id"] = message_id


def with_metadata(metadata: Metadata, content: RecordDict) -> Message:
    """A message with exactly this metadata."""
    return Message(content=content, metadata=metadata)  # type: ignore[call-overload, no-any-return]


def reply_to(request: Message, outcome: RecordDict | Error, message_id: str) -> Message:
    """A reply with its id set."""
    reply = Message(outcome, reply_to=request)
    name_message(reply, message_id)
    return reply
