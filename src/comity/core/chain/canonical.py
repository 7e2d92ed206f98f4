"""Canonical JSON: one byte string for one value, so that hashes and signatures mean the value.

Sorted keys, no spaces, UTF-8, no floats (figures travel as decimal strings) and integers within 63
bits, after RFC 8785 where both apply.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from comity.errors import Malformed

MAX_BYTES: Final = 2**24
"""The longest document that is written or read, 16 MiB."""

_LARGEST: Final = 2**63 - 1


def encode(document: Mapping[str, object]) -> bytes:
    """The canonical bytes of `document`.

    Raises:
        Malformed: It holds a float, a key that is not text, or another type that JSON lacks; or
            it is longer than `MAX_BYTES`, so that nothing is written that cannot be read.
    """
    _check(document, "document")
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        body = text.encode()
    except UnicodeEncodeError as error:
        raise Malformed(f"document holds text that UTF-8 cannot carry: {error.reason}") from error
    if len(body) > MAX_BYTES:
        raise Malformed(f"document of {len(body)} bytes; at most {MAX_BYTES} are written")
    return body


def decode(body: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, object]:
    """Reads what `encode` wrote, and nothing else.

    Raises:
        Malformed: `body` is longer than `max_bytes`, is no JSON object, or is not canonical.
    """
    if len(body) > max_bytes:
        raise Malformed(f"document of {len(body)} bytes; at most {max_bytes} are read")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"document is not JSON: {type(error).__name__}") from error
    if not isinstance(document, dict):
        raise Malformed("document is not a JSON object")
    if encode(document) != body:
        raise Malformed("document is not in canonical form")
    return document


def _check(value: object, path: str) -> None:
    match value:
        case None | bool() | str():
            return
        case int() if abs(value) <= _LARGEST:
            return
        case Mapping() if all(isinstance(key, str) for key in value):
            for key, item in value.items():
                _check(item, f"{path}.{key}")
        case list() | tuple():
            for index, item in enumerate(value):
                _check(item, f"{path}.{index}")
        case _:
            raise Malformed(
                f"{path} is a {type(value).__name__} that canonical JSON lacks",
                hint="write figures as text, keys as text, integers within 63 bits",
            )
