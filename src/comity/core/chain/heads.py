"""Heads as signed messages, and how a kept head stands to a chain."""

from __future__ import annotations

from typing import Final

from comity.core.chain.record import Head

_TAG: Final = b"comity/head/v1"


def head_message(site: str, head: Head) -> bytes:
    """The bytes that a site signs: tag, site name, sequence, hash, each with its length."""
    parts = (_TAG, site.encode(), head.sequence.to_bytes(8, "big"), head.hash)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
