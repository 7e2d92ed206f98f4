"""Typed names: a name of one kind is never passed where another is meant."""

from __future__ import annotations

import re
from typing import NewType

from comity.errors import ConfigError, Fault

SiteName = NewType("SiteName", str)
MemberName = NewType("MemberName", str)
FederationName = NewType("FederationName", str)
RunId = NewType("RunId", str)
ExchangeId = NewType("ExchangeId", str)
ReservationId = NewType("ReservationId", str)
DatasetName = NewType("DatasetName", str)
CollectionName = NewType("CollectionName", str)
DocumentId = NewType("DocumentId", str)
PassageId = NewType("PassageId", str)
AppDigest = NewType("AppDigest", str)
"""``sha256:`` and 64 hexadecimal digits over the bytes of an app or trainer."""

NAME_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""A DNS label (RFC 1123 section 2.1): fits certificates, bus subjects and Kubernetes names."""

_NAME = re.compile(NAME_PATTERN)


def checked_name(text: str, *, path: str) -> str:
    """Returns `text` when it is a valid name of a member, site, data set or collection.

    Args:
        text: The candidate.
        path: Where it stands, for the message; for example ``sites.0.name``.

    Raises:
        ConfigError: `text` is not a DNS label.
    """
    if _NAME.fullmatch(text):
        return text
    fault = Fault(
        path,
        f"{text[:80]!r} is not a name",
        "use 1 to 63 lower-case letters, digits and hyphens, with no hyphen at either end",
    )
    raise ConfigError(f"{path}: {fault.problem}", hint=fault.hint, faults=[fault])
