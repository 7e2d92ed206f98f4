"""Digests, key derivation and the keys of a pair: every use has a label of its own.

H is SHA-256 over length-prefixed parts, KDF is HKDF-SHA-256 (RFC 5869), the exchange is X25519
(RFC 7748), with ML-KEM-768 (FIPS 203) beside it where the run is hybrid. A pair's chain starts from
both members' announcements and steps once a round, so that who learns it later learns nothing of
the rounds before.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from comity.errors import Verification

KEY_BYTES: Final = 32
MLKEM_SEED_BYTES: Final = 64
MLKEM_PUBLIC_BYTES: Final = 1184
MLKEM_CIPHERTEXT_BYTES: Final = 1088
_TAG: Final = b"comity/secagg/v1/"


def joined(*parts: bytes | str | int) -> bytes:
    """Parts without ambiguity: each with its length before it; a number as eight bytes."""
    pieces = []
    for part in parts:
        piece = part.encode() if isinstance(part, str) else part
        piece = piece.to_bytes(8, "big") if isinstance(piece, int) else piece
        pieces += [len(piece).to_bytes(8, "big"), piece]
    return b"".join(pieces)


def digest(label: str, *parts: bytes | str | int) -> bytes:
    """SHA-256 of `parts` under `label`, 32 bytes."""
    return hashlib.sha256(joined(_TAG + label.encode(), *parts)).digest()


def expand(key: bytes, label: str, *parts: bytes | str | int) -> bytes:
    """HKDF-Expand to 32 bytes (RFC 5869 section 2.3), `parts` as info under `label`."""
    return hmac.digest(key, joined(_TAG + label.encode(), *parts) + b"\x01", "sha256")


def extract(salt: bytes, secret: bytes) -> bytes:
    """HKDF-Extract (RFC 5869 section 2.2), 32 bytes."""
    return hmac.digest(salt, secret, "sha256")


def public_of(private: bytes) -> bytes:
    """The X25519 public key of a private one, both 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def shared_secret(private: bytes, public: bytes) -> bytes:
    """The X25519 secret of a pair, 32 bytes.

    Raises:
        Verification: The peer's key is of small order, which would make the secret public.
    """
    try:
        peer = X25519PublicKey.from_public_bytes(public)
        return X25519PrivateKey.from_private_bytes(private).exchange(peer)
    except ValueError as error:
        raise Verification("a public key gives no secret") from error


def mlkem_public(seed: bytes) -> bytes:
    """The ML-KEM-768 encapsulation key of a 64-byte seed, 1,184 bytes."""
    return MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def encapsulated(public: bytes) -> tuple[bytes, bytes]:
    """A fresh secret for the holder of an ML-KEM-768 key, and the ciphertext that carries it.

    The one place where this room draws randomness of its own: the library offers no other way.

    Raises:
        Verification: `public` is no encapsulation key (FIPS 203 section 7.2).
    """
    try:
        secret, ciphertext = MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    except ValueError as error:
        raise Verification("an ML-KEM key does not hold") from error
    return secret, ciphertext


def decapsulated(seed: bytes, ciphertext: bytes) -> bytes:
    """The secret that a ciphertext carries; a wrong one gives another secret (FIPS 203)."""
    return MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)


def first_chain(binding: bytes, secret: bytes, kem_secret: bytes, pair: tuple[str, str]) -> bytes:
    """Where the chain of a pair starts, 32 bytes.

    Args:
        binding: Digest of all announcements.
        secret: The pair's X25519 secret.
        kem_secret: The pair's ML-KEM secret; empty where the run is not hybrid.
        pair: Both names, the lower one first.
    """
    return expand(extract(binding, joined(secret, kem_secret)), "chain", *pair)


def next_chain(chain: bytes, round_number: int) -> bytes:
    """The chain after round `round_number`; nothing leads back."""
    return expand(chain, "ratchet", round_number)


def pair_seed(chain: bytes, context: bytes) -> bytes:
    """What both masks of a pair come from, in one attempt of one round."""
    return expand(chain, "pair", context)


def share_key(chain: bytes, pair: tuple[str, str], context: bytes, committed: bytes) -> bytes:
    """The AES key of one share.

    It depends on the commitment to the share, so that a site which was put back to an older state
    and deals another share never uses a key twice.

    Args:
        chain: Of the pair.
        pair: Sender and receiver.
        context: Of the attempt.
        committed: The commitment that travels with the share.
    """
    return expand(chain, "share", *pair, context, committed)


def vector_key(seed: bytes, context: bytes) -> bytes:
    """The AES key of a mask over the vector; `seed` is a pair's or a site's own."""
    return expand(seed, "vector", context)


def tail_key(seed: bytes, context: bytes) -> bytes:
    """The AES key of a mask over the tail: a stream of its own, or its first words would show."""
    return expand(seed, "tail", context)


def context_of(spec: bytes, binding: bytes, received: bytes, names: Sequence[str]) -> bytes:
    """What all keys of an attempt come from.

    Args:
        spec: The encoded plan.
        binding: Digest of the epoch's announcements.
        received: Digest of the message that the site received, made by the site.
        names: The app's words for what the site sums.
    """
    return digest("context", spec, binding, received, digest("names", *names))


def commitment(label: str, context: bytes, *parts: bytes | str) -> bytes:
    """A commitment to a uniform value of at least 248 bits: its digest, under its place."""
    return digest(f"commit {label}", context, *parts)


def pair_commitment(context: bytes, pair: tuple[str, str], seed: bytes) -> bytes:
    """A commitment to a pair's seed, the same from both sides."""
    lower, higher = sorted(pair)
    return commitment("pair", context, lower, higher, seed)
