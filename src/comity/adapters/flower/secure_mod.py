"""Secure sums on stock Flower: a mod at the site, a wrapper around the strategy.

There both run inside the app's own processes, so they protect against the coordinator and the
network, not against the app: a researcher who ships other code ships other protection. On our own
engines the same machinery stands outside the app.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flwr.app import Context, Error, Message, RecordDict

from comity.adapters.flower.app import NO_DIGEST
from comity.adapters.flower.grid import ASKER
from comity.adapters.flower.private_names import APP_RAISED, with_metadata
from comity.adapters.flower.secure_carrier import type_of
from comity.adapters.flower.secure_site import admit, send_sum
from comity.adapters.flower.site_engine import SimulatedSite
from comity.core.policy.rule import PROTECTED, category_of
from comity.ids import ExchangeId, RunId
from comity.ports import Exchange

CallNext = Callable[[Message, Context], Message]
_REFUSED: Final = "PolicyRefused: replies leave this site only inside a secure sum"


def run_name(run_id: int) -> RunId:
    """What a run is called in secure sums, at both ends."""
    return RunId(f"{run_id:016x}")


def through_sums(
    site: SimulatedSite, message: Message, context: Context, call_next: CallNext
) -> Message:
    """One message to a site: protocol answered, invitations taken, replies masked.

    A train or evaluate message without an invitation is refused.
    """
    metadata = message.metadata
    exchange = Exchange(
        ExchangeId(f"{metadata.message_id}-{site.name}"),
        ASKER,
        metadata.message_type,
        run_name(metadata.run_id),
    )
    admitted = admit(site, exchange, message)
    if admitted.answer is not None:
        return _reply(admitted.answer.content, message)
    if admitted.content is None or not admitted.summed:
        if category_of(type_of(message)) in PROTECTED:
            return _reply(Error(APP_RAISED, _REFUSED), message)
        return call_next(message, context)
    inner = with_metadata(metadata, admitted.content)
    reply = call_next(inner, context)
    if reply.has_error():
        return reply
    sent = with_metadata(metadata, admitted.content)
    return _reply(send_sum(site, exchange, sent, reply.content, NO_DIGEST).content, message)


def _reply(content: RecordDict | Error, message: Message) -> Message:
    return Message(content, reply_to=message)
