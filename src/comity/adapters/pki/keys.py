"""Ed25519 identity keys (RFC 8032): in a file that only its owner reads, or in memory."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from comity.errors import ConfigError, DataError, UnavailableError, Verification

PRIVATE_KEY_BYTES: Final = 32
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Identity:
    """`KeyStore` over one private key held in memory."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte seed, the private key of RFC 8032.

        Raises:
            DataError: `seed` is not 32 bytes.
        """
        if len(seed) != PRIVATE_KEY_BYTES:
            raise DataError(f"an identity key of {len(seed)} bytes; it must be {PRIVATE_KEY_BYTES}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def public_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes."""
        return self._private.sign(message)

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        """Checks somebody's signature.

        Raises:
            Verification: `signature` is not `public_key`'s over `message`.
        """
        verify_signature(public_key, message, signature)

    def private_bytes(self) -> bytes:
        """The private key, 32 bytes: for `write_identity` alone."""
        return self._private.private_bytes_raw()

    def __repr__(self) -> str:
        return f"Identity({self.public_key().hex()})"


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Checks an Ed25519 signature.

    Raises:
        Verification: `signature` is not `public_key`'s over `message`, or the key is no key.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Verification("a signature does not hold") from error


def write_identity(path: Path, identity: Identity) -> None:
    """Writes an identity key to `path`, readable by its owner only; never over another.

    Raises:
        ConfigError: There is a key already.
        UnavailableError: The file cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(identity.private_bytes().hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise ConfigError(
            f"{path}: there is an identity key already",
            hint="keep it: peers know this member by it",
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"{path}: {error.strerror}", hint="choose a folder that can be written"
        ) from error


def load_identity(path: Path) -> Identity:
    """Reads an identity key.

    Raises:
        ConfigError: There is none, or others than its owner may read it.
        DataError: The file is no identity key.
        UnavailableError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & _OTHERS:
                raise ConfigError(
                    f"{path}: others than its owner may read this private key",
                    hint=f"chmod 600 {path}",
                )
            text = file.read(2 * PRIVATE_KEY_BYTES + 2)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no identity key", hint="enrol this site first"
        ) from error
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}") from error
    try:
        seed = bytes.fromhex(text.decode("ascii").strip())
    except ValueError as error:
        raise DataError(f"{path} is no identity key", hint="restore it from a backup") from error
    return Identity.from_seed(seed)
