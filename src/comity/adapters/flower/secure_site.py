"""A site's half of secure sums between Flower messages and the site's gate.

Messages of the protocol never reach the app. An invitation is checked before the app runs, and
taken out of what the app sees; its reply then leaves masked, or what is kept leaves again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from comity.adapters.flower.arrays import BufferArray, view_npy
from comity.adapters.flower.secure_messages import (
    PROTOCOL,
    PROTOCOL_TYPES,
    content_digest,
    protocol_body,
    protocol_record,
    upload_records,
    without_protocol,
)
from comity.adapters.flower.site_engine import Outgoing, SimulatedSite, policed_parts, refused_by
from comity.core.secagg.codec import code_of
from comity.core.secagg.messages import AnnounceRequest, Invitation, LinkRequest
from comity.errors import ComityError, Malformed, PolicyRefused, UnavailableError, WrongStage
from comity.ids import AppDigest
from comity.ports import Exchange, SealedUpload
from comity.release import Released
from comity.services.sum_site import SummingSite


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a site makes of a message before its app runs.

    Attributes:
        content: What the app sees; None where the site answers without it.
        answer: The answer, where there is one already.
        summed: The app's reply leaves inside a secure sum.
    """

    content: RecordDict | None
    answer: Outgoing | None = None
    summed: bool = False


def admit(site: SimulatedSite, exchange: Exchange, message: Message) -> Admitted:
    """Answers messages of the protocol, accepts invitations, passes on all else.

    Raises:
        UnavailableError: The site's journal or place cannot be written.
    """
    content = message.content
    reserved = message.metadata.message_type in PROTOCOL_TYPES
    if not (reserved or PROTOCOL in content):
        return Admitted(content)
    if site.sums is None and site.policy is None:
        return Admitted(content)  # the caller's own site: its app may bring the protocol itself
    try:
        return _admitted(site, exchange, content, reserved=reserved)
    except UnavailableError:
        raise
    except ComityError as error:
        return Admitted(None, refused_by(site, exchange, error))


def _admitted(
    site: SimulatedSite, exchange: Exchange, content: RecordDict, *, reserved: bool
) -> Admitted:
    body = protocol_body(content)
    if body is None:
        raise Malformed("a request of the secure sum without its message")
    if site.sums is None:
        raise PolicyRefused("this site takes no part in secure sums")
    if reserved or code_of(body) != Invitation.CODE:
        released = _answered(site.sums, exchange, body)
        reply = RecordDict({PROTOCOL: protocol_record(released.value)})
        return Admitted(None, Outgoing(reply, size_bytes=len(released.value)))
    plain = without_protocol(content)
    if site.sums.open(exchange, body, content_digest(plain)):
        return Admitted(plain, summed=True)
    kept = site.sums.repeat(exchange, received_arrays(plain))
    return Admitted(None, _outgoing(kept))


def send_sum(
    site: SimulatedSite,
    exchange: Exchange,
    request: Message,
    reply: RecordDict,
    app: AppDigest,
) -> Outgoing:
    """Takes an app's reply through the gate and into the open attempt.

    Raises:
        UnavailableError: The site's journal or place cannot be written.
    """
    try:
        if site.sums is None:
            raise WrongStage("this site takes no part in secure sums")
        parts = policed_parts(site, request, reply, app)
        released, stayed = site.sums.contribute(exchange, parts)
        return _outgoing(released, stayed)
    except UnavailableError:
        raise
    except ComityError as error:
        return refused_by(site, exchange, error)


def received_arrays(content: RecordDict) -> Mapping[str, NDArray[Any]] | None:
    """The arrays that a site was sent, as read-only views; None where it was sent none."""
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    if not records:
        return None
    if len(records) > 1:
        raise Malformed("a message of a secure sum holds one array record")
    return {name: _view(array) for name, array in records[0].items()}


def _view(array: Any) -> NDArray[Any]:  # noqa: ANN401 - an Array of flwr's or ours
    viewed = view_npy(array.buffer) if isinstance(array, BufferArray) else None
    return array.numpy() if viewed is None else np.asarray(viewed)


def _answered(sums: SummingSite, exchange: Exchange, body: bytes) -> Released[bytes]:
    code = code_of(body)
    if code == AnnounceRequest.CODE:
        return sums.announce(exchange, body)
    if code == LinkRequest.CODE:
        return sums.link(exchange, exchange.run, body)
    return sums.reveal(exchange, body)


def _outgoing(released: Released[SealedUpload | bytes], stayed: tuple[Any, ...] = ()) -> Outgoing:
    value = released.value
    size = len(value) if isinstance(value, bytes) else value.vector.nbytes + len(value.header)
    return Outgoing(upload_records(value), stayed, size_bytes=size)
