"""Identity keys, and roots for federations of one machine."""

from comity.adapters.pki.keys import Identity, load_identity, verify_signature, write_identity
from comity.adapters.pki.throwaway import ThrowawayRoot, throwaway_root

__all__ = [
    "Identity",
    "ThrowawayRoot",
    "load_identity",
    "throwaway_root",
    "verify_signature",
    "write_identity",
]
