"""The wall around a call into an app: whatever happens inside, the site goes on.

An app may raise anything and may call `sys.exit`. Only the error's class name comes out; the
traceback stays at the site, on its standard error.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from comity.adapters.flower.seeds import seed_generators


@dataclass(frozen=True, slots=True)
class AppFailure:
    """An app call that gave no reply.

    Attributes:
        error: The class name of what was raised, or what became of the process.
        crashed: Whether the app's process died.
    """

    error: str
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class AppError:
    """An error reply that the app itself made, with its own text."""

    code: int
    reason: str


Outcome = RecordDict | AppError | AppFailure


def call_app(app: ClientApp, message: Message, context: Context, seed: bytes | None) -> Outcome:
    """Runs one app call; never raises what the app raised.

    Args:
        app: The site's app.
        message: What it was sent.
        context: The site's own context; the app may change its state.
        seed: 32 bytes for the global generators; None leaves them as they are.
    """
    try:
        if seed is not None:
            seed_generators(seed)
        reply: object = app(message, context)
        if not isinstance(reply, Message):
            return AppFailure("TypeError")
        if reply.has_error():
            return AppError(reply.error.code, reply.error.reason or "")
        return reply.content  # noqa: TRY300 - inside, because a property of the app's may raise
    except BaseException as error:  # noqa: BLE001 - the wall: an app may call sys.exit
        print_app_traceback(error)
        return AppFailure(type(error).__name__)


def print_app_traceback(error: BaseException) -> None:
    """Prints the traceback from the first frame of the app on, to standard error."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_OURS)
    ]
    lines = ["Traceback of the app (most recent call last):\n", *traceback.format_list(frames)]
    lines += traceback.format_exception_only(type(error), error)
    sys.stderr.write("".join(lines))
    sys.stderr.flush()


_OURS = (__file__.rpartition("/")[0], sys.modules["flwr"].__path__[0])
