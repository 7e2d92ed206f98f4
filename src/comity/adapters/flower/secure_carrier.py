"""Carries the messages of a secure sum over any Flower `Grid`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from comity.adapters.flower.secure_messages import (
    ANNOUNCE,
    LINK,
    PROTOCOL,
    REVEAL,
    protocol_body,
    protocol_record,
    read_upload,
)
from comity.core.secagg.codec import decode
from comity.core.secagg.messages import Announcement
from comity.errors import Malformed, ProtocolError
from comity.ports import SealedUpload

_UPLOAD_PART: Final = 0.9
"""The part of a time limit that uploads may take; the reveal has the rest."""
_NO_LIMIT_S: Final = 7 * 86_400.0
_PAUSE_S: Final = 0.05


@dataclass(slots=True)
class MessageCarrier:
    """Carries one sum's messages over the inner grid; knows sites by what they announced.

    Attributes:
        grid: The inner grid.
        nodes: The node of each site, filled by `announce`.
        request: One of the app's messages.
        content: What the app's messages hold.
        timeout_s: For uploads and reveals together; None waits.
        in_band: Messages of the protocol travel as the app's own type.
        order: Nodes as the app asked them: calls are seeded in this order, so that an app draws
            the same with and without secure sums.
    """

    grid: Grid
    nodes: dict[str, int]
    request: Message
    content: RecordDict
    timeout_s: float | None
    in_band: bool = False
    order: tuple[int, ...] = ()
    _requests: dict[str, str] = field(default_factory=dict)
    _errors: dict[str, Message] = field(default_factory=dict)

    def announce(self, request: bytes) -> Mapping[str, bytes]:
        """Asks every node for keys, and learns the site behind each."""
        found: dict[str, bytes] = {}
        content = RecordDict({PROTOCOL: protocol_record(request)})
        targets = dict.fromkeys(self.grid.get_node_ids(), content)
        for node, reply in self._exchange(targets, self._kind(ANNOUNCE), 1.0):
            body = None if reply.has_error() else protocol_body(reply.content)
            with contextlib.suppress(ProtocolError):
                site = decode(Announcement, body or b"").site
                found[site], self.nodes[site] = body or b"", node
        return found

    def link(self, request: bytes) -> Mapping[str, bytes]:
        """Asks every site for its encapsulations."""
        content = RecordDict({PROTOCOL: protocol_record(request)})
        return dict(self._answers(dict.fromkeys(self.nodes, content), LINK, 1.0))

    def invite(
        self, invitations: Mapping[str, bytes]
    ) -> Iterator[tuple[str, SealedUpload | bytes]]:
        """Sends the app's message with an invitation; uploads as they arrive."""
        contents: dict[bytes, RecordDict] = {}
        for body in invitations.values():
            if body not in contents:
                contents[body] = RecordDict({**self.content, PROTOCOL: protocol_record(body)})
        names = {self.nodes[name]: name for name in invitations}
        targets = {
            node: contents[invitations[names[node]]]
            for node in dict.fromkeys((*self.order, *names))
            if node in names
        }
        kind = self.request.metadata.message_type
        for node, reply in self._exchange(targets, kind, _UPLOAD_PART):
            name = names[node]
            if reply.has_error():
                self._errors[name] = reply
                continue
            with contextlib.suppress(Malformed):
                upload = read_upload(reply.content)
                self._requests[name] = reply.metadata.reply_to_message_id
                yield name, upload

    def reveal(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """Asks survivors for what opens the sum."""
        contents = {
            name: RecordDict({PROTOCOL: protocol_record(body)}) for name, body in requests.items()
        }
        yield from self._answers(contents, REVEAL, 1 - _UPLOAD_PART)

    def request_id(self, site: str) -> str:
        """The id under which the app's message went to `site`."""
        return self._requests[site]

    def errors(self, answered: set[str]) -> list[Message]:
        """The error replies of sites that are not in the sum, in site order."""
        return [self._errors[name] for name in sorted(self._errors) if name not in answered]

    def _kind(self, reserved: str) -> str:
        return type_of(self.request) if self.in_band else reserved

    def _answers(
        self, contents: Mapping[str, RecordDict], kind: str, part: float
    ) -> Iterator[tuple[str, bytes]]:
        names = {self.nodes[name]: name for name in contents}
        targets = {self.nodes[name]: content for name, content in contents.items()}
        for node, reply in self._exchange(targets, self._kind(kind), part):
            body = None if reply.has_error() else protocol_body(reply.content)
            if body is not None:
                yield names[node], body

    def _exchange(
        self, targets: Mapping[int, RecordDict], kind: str, part: float
    ) -> Iterator[tuple[int, Message]]:
        """Sends one message a node; replies as they arrive, until the part of the limit is over."""
        limit_s = _NO_LIMIT_S if self.timeout_s is None else self.timeout_s * part
        deadline = time.monotonic() + max(limit_s, _PAUSE_S)
        template = self.request.metadata
        messages = [
            Message(content, node, kind, ttl=template.ttl, group_id=template.group_id)
            for node, content in targets.items()
        ]
        ids = list(self.grid.push_messages(messages))
        waiting = set(ids)
        try:
            while waiting and time.monotonic() < deadline:
                asked = time.monotonic()
                replies = list(self.grid.pull_messages(waiting))
                for reply in replies:
                    waiting.discard(reply.metadata.reply_to_message_id)
                    yield reply.metadata.src_node_id, reply
                if not replies and time.monotonic() - asked < _PAUSE_S:
                    time.sleep(_PAUSE_S)
        finally:
            abandon: Callable[[Iterable[str]], None] | None = getattr(self.grid, "abandon", None)
            if waiting and abandon is not None:
                abandon(waiting)


def type_of(message: Message) -> str:
    """The type of a message, such as ``train``."""
    return str(message.metadata.message_type)
