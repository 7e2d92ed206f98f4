"""Identity keys, and roots for federations of one machine."""

from comity.adapters.pki.keys import Identity, create_identity, load_identity, verify_signature
from comity.adapters.pki.throwaway import ThrowawayRoot, throwaway_root

__all__ = [
    "Identity",
    "ThrowawayRoot",
    "create_identity",
    "load_identity",
    "throwaway_root",
    "verify_signature",
]
