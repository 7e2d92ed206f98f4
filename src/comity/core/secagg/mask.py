"""Masks: AES-256-CTR streams added to a ring vector, block by block.

A stream's key is used for one vector only, so the counter starts at zero (a nonce would carry no
information). A block of the vector stays in the processor's cache while all streams pass over it;
over more processes the vector is cut into slices, and each starts its streams at its own offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from comity.errors import Malformed

BLOCK_BYTES: Final = 256 * 1024
_AES_BLOCK: Final = 16
_ZEROS: Final = bytes(BLOCK_BYTES)

RingVector: TypeAlias = NDArray[np.unsignedinteger[Any]]
"""Words of a ring: uint16 or uint32 of a vector, uint64 of a tail; little-endian."""


@dataclass(frozen=True, slots=True, repr=False)
class Stream:
    """One mask: its 32-byte key, and whether it is subtracted."""

    key: bytes
    negative: bool = False


def apply_streams(vector: RingVector, streams: Sequence[Stream], *, start: int = 0) -> None:
    """Adds or subtracts each stream to `vector`, in place, modulo its word size.

    Args:
        vector: Contiguous words; a slice of the whole from word `start` on.
        streams: The masks.
        start: Where in the whole vector this slice begins, a multiple of 16 bytes.

    Raises:
        Malformed: The slice does not begin on a block of the cipher.
    """
    offset = start * vector.itemsize
    if offset % _AES_BLOCK:
        raise Malformed(f"a slice that starts at byte {offset} cuts a block of the cipher")
    ciphers = [_cipher(stream.key, offset // _AES_BLOCK) for stream in streams]
    per_block = min(vector.size, BLOCK_BYTES // vector.itemsize) or 1
    buffer = bytearray(per_block * vector.itemsize + _AES_BLOCK - 1)
    words = np.frombuffer(buffer, dtype=vector.dtype, count=per_block)
    for begin in range(0, vector.size, per_block):
        block = vector[begin : begin + per_block]
        zeros = memoryview(_ZEROS)[: block.size * vector.itemsize]
        mask = words[: block.size]
        for stream, cipher in zip(streams, ciphers, strict=True):
            cipher.update_into(zeros, buffer)
            (np.subtract if stream.negative else np.add)(block, mask, out=block)


def _cipher(key: bytes, block: int) -> Any:  # noqa: ANN401 - the library's context has no public type
    return Cipher(algorithms.AES(key), modes.CTR(block.to_bytes(_AES_BLOCK, "big"))).encryptor()
