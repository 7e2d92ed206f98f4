"""What travels between coordinator and sites in a secure sum; each message is one frozen type.

announce   coordinator -> AnnounceRequest        site -> Announcement          once an epoch
link       coordinator -> LinkRequest            site -> Link                  hybrid only
sum        coordinator -> Invitation (+ model)   site -> Upload (+ vector), or Unfit
reveal     coordinator -> RevealRequest          site -> Reveal
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from comity.core.secagg.codec import Layout, Number, Octets, Real, Rows, Text, encode
from comity.core.secagg.keys import KEY_BYTES, MLKEM_CIPHERTEXT_BYTES, MLKEM_PUBLIC_BYTES
from comity.core.secagg.quantize import Tensor
from comity.core.secagg.shamir import SHARE_BYTES
from comity.core.secagg.tail import tail_words

MAX_SITES: Final = 1024
MAX_TENSORS: Final = 100_000
MAX_METRICS: Final = 64
MAX_LABEL_BYTES: Final = 256
DIGEST_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
NONCE_BYTES: Final = 32
SEALED_SHARE_BYTES: Final = SHARE_BYTES + 16

_NAME: Final = Text(63)
_RUN: Final = Text(128)
_LABEL: Final = Text(MAX_LABEL_BYTES)
_DIGEST: Final = Octets(DIGEST_BYTES, DIGEST_BYTES)
_KEY: Final = Octets(KEY_BYTES, KEY_BYTES)
_SIGNATURE: Final = Octets(SIGNATURE_BYTES, SIGNATURE_BYTES)
_NAMES: Final = Rows(MAX_SITES, (_NAME,))
_MAX_BODY: Final = 4096
_REVEAL_TAG: Final = b"comity/secagg/v1/reveal\0"
_BODIES: Final = Rows(MAX_SITES, (Octets(1, _MAX_BODY),))
_EPOCH: Final[Layout] = (
    ("federation", _NAME),
    ("run", _RUN),
    ("epoch", Number(4)),
)


@dataclass(frozen=True, slots=True)
class AnnounceRequest:
    """Asks for a site's keys of a run's epoch."""

    CODE: ClassVar[int] = 1
    LAYOUT: ClassVar[Layout] = (
        *_EPOCH,
        ("first_round", Number(8)),
        ("roster_version", Number(8)),
        ("hybrid", Number(1)),
    )
    federation: str
    run: str
    epoch: int
    first_round: int
    roster_version: int
    hybrid: int = 0


@dataclass(frozen=True, slots=True)
class Announcement:
    """A site's fresh public keys of one epoch, signed by its identity key.

    Attributes:
        first_round: The round that the epoch's chains start at; the same at every site.
    """

    CODE: ClassVar[int] = 2
    LAYOUT: ClassVar[Layout] = (
        *_EPOCH,
        ("first_round", Number(8)),
        ("roster_version", Number(8)),
        ("site", _NAME),
        ("x25519", _KEY),
        ("mlkem", Octets(0, MLKEM_PUBLIC_BYTES)),
        ("nonce", Octets(NONCE_BYTES, NONCE_BYTES)),
        ("signature", _SIGNATURE),
    )
    federation: str
    run: str
    epoch: int
    first_round: int
    roster_version: int
    site: str
    x25519: bytes
    mlkem: bytes
    nonce: bytes
    signature: bytes = bytes(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """All announcements of an epoch: whom a site encapsulates to."""

    CODE: ClassVar[int] = 3
    LAYOUT: ClassVar[Layout] = (("announcements", _BODIES),)
    announcements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """One ML-KEM ciphertext from the lower to the higher site of a pair, signed by the sender."""

    CODE: ClassVar[int] = 4
    LAYOUT: ClassVar[Layout] = (
        ("binding", _DIGEST),
        ("sender", _NAME),
        ("receiver", _NAME),
        ("ciphertext", Octets(MLKEM_CIPHERTEXT_BYTES, MLKEM_CIPHERTEXT_BYTES)),
        ("signature", _SIGNATURE),
    )
    binding: bytes
    sender: str
    receiver: str
    ciphertext: bytes
    signature: bytes = bytes(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class Link:
    """A site's encapsulations, one for each higher site."""

    CODE: ClassVar[int] = 5
    LAYOUT: ClassVar[Layout] = (("encapsulations", _BODIES),)
    encapsulations: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RoundSpec:
    """What one attempt of one round sums, and over whom; the same at every site.

    Attributes:
        round_number: Counts sums within the run; only grows.
        attempt: Counts from 1 within the round; only grows.
        message_type: What the app is asked, such as ``train``.
        cohort: The sites, sorted.
        threshold: How many must answer the reveal.
        ring_bits: 16 or 32.
        tensors: Rows of (name, size, exponent); see `quantize.Tensor`.
        metric_slots: Room for metrics in the tail.
        weight_key: The metric that weighs a contribution.
        max_weight: The public largest weight, a power of two.
        clip_norm: Bound on an update's L2 norm; 0 for none.
        names: The app's words for what is summed, once they are known; empty before.
    """

    CODE: ClassVar[int] = 6
    LAYOUT: ClassVar[Layout] = (
        *_EPOCH,
        ("round_number", Number(8)),
        ("attempt", Number(4)),
        ("message_type", _LABEL),
        ("cohort", _NAMES),
        ("threshold", Number(2)),
        ("ring_bits", Number(1)),
        ("tensors", Rows(MAX_TENSORS, (_LABEL, Number(8), Number(2, signed=True)))),
        ("metric_slots", Number(2)),
        ("weight_key", _LABEL),
        ("max_weight", Number(8)),
        ("clip_norm", Real()),
        ("names", Rows(MAX_METRICS + 2, (_LABEL,))),
    )
    federation: str
    run: str
    epoch: int
    round_number: int
    attempt: int
    message_type: str
    cohort: tuple[str, ...]
    threshold: int
    ring_bits: int
    tensors: tuple[tuple[str, int, int], ...]
    metric_slots: int
    weight_key: str
    max_weight: int
    clip_norm: float = 0.0
    names: tuple[str, ...] = ()

    def plan(self) -> tuple[Tensor, ...]:
        """The tensors, typed."""
        return tuple(Tensor(*row) for row in self.tensors)


@dataclass(frozen=True, slots=True)
class Invitation:
    """Asks a site to take part in one attempt.

    Attributes:
        spec: The encoded `RoundSpec`.
        announcements: All of the epoch; empty where the site is linked already.
        encapsulations: Those for this site; empty likewise, or where the run is not hybrid.
    """

    CODE: ClassVar[int] = 7
    LAYOUT: ClassVar[Layout] = (
        ("spec", Octets(1, 64 * 2**20)),
        ("announcements", _BODIES),
        ("encapsulations", _BODIES),
    )
    spec: bytes
    announcements: tuple[bytes, ...] = ()
    encapsulations: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Upload:
    """What leaves a site with its masked vector.

    Attributes:
        context: Digest of spec, keys, the model that the site received and the names it sums.
        tail: The masked tail, words of 64 bits, little-endian.
        rows: For each site of the cohort, in order: its sealed share of the self mask's secret
            (empty for the sender), a commitment to the share, a commitment to the pair's seed
            (empty for the sender).
        commitment: To the self mask's secret.
    """

    CODE: ClassVar[int] = 8
    LAYOUT: ClassVar[Layout] = (
        ("context", _DIGEST),
        ("tail", Octets(8 * tail_words(0), 8 * tail_words(MAX_METRICS))),
        (
            "rows",
            Rows(MAX_SITES, (Octets(0, SEALED_SHARE_BYTES), _DIGEST, Octets(0, DIGEST_BYTES))),
        ),
        ("commitment", _DIGEST),
    )
    context: bytes
    tail: bytes
    rows: tuple[tuple[bytes, bytes, bytes], ...]
    commitment: bytes


@dataclass(frozen=True, slots=True)
class Unfit:
    """One bit, in place of an upload: the range that this plan gives some tensor is too small."""

    CODE: ClassVar[int] = 9
    LAYOUT: ClassVar[Layout] = (
        *_EPOCH,
        ("round_number", Number(8)),
        ("attempt", Number(4)),
    )
    federation: str
    run: str
    epoch: int
    round_number: int
    attempt: int


@dataclass(frozen=True, slots=True)
class RevealRequest:
    """Says who uploaded, and asks for what unmasks their sum; signed by the coordinator.

    Attributes:
        context: The attempt.
        receiver: Who is asked.
        survivors: The sites whose uploads are summed, sorted.
        shares: For each survivor but the receiver, in order: its name, the sealed share that it
            has for the receiver, and its commitment to it.
    """

    CODE: ClassVar[int] = 10
    LAYOUT: ClassVar[Layout] = (
        ("context", _DIGEST),
        ("receiver", _NAME),
        ("survivors", _NAMES),
        (
            "shares",
            Rows(MAX_SITES, (_NAME, Octets(SEALED_SHARE_BYTES, SEALED_SHARE_BYTES), _DIGEST)),
        ),
        ("signature", _SIGNATURE),
    )
    context: bytes
    receiver: str
    survivors: tuple[str, ...]
    shares: tuple[tuple[str, bytes, bytes], ...]
    signature: bytes = bytes(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class Complaint:
    """In place of a reveal: a site's sealed share does not open, or is not what it committed to.

    Who is at fault, dealer, accuser or whoever carried the share, it does not decide.
    """

    CODE: ClassVar[int] = 12
    LAYOUT: ClassVar[Layout] = (("context", _DIGEST), ("dealer", _NAME))
    context: bytes
    dealer: str


@dataclass(frozen=True, slots=True, repr=False)
class Reveal:
    """A site's answer: for each peer a share of its self mask or the pair's seed, never both.

    Attributes:
        context: The attempt.
        shares: For each survivor, in order: name and share.
        seeds: For each site that dropped, in order: name and the pair's seed of this attempt.
        names: What was summed, in the app's words: the array record, the metric record, and the
            metrics in order; the same at every survivor, or no share would have opened.
    """

    CODE: ClassVar[int] = 11
    LAYOUT: ClassVar[Layout] = (
        ("context", _DIGEST),
        ("shares", Rows(MAX_SITES, (_NAME, Octets(SHARE_BYTES, SHARE_BYTES)))),
        ("seeds", Rows(MAX_SITES, (_NAME, _KEY))),
        ("names", Rows(MAX_METRICS + 2, (_LABEL,))),
    )
    context: bytes
    shares: tuple[tuple[str, bytes], ...]
    seeds: tuple[tuple[str, bytes], ...]
    names: tuple[str, ...]


def reveal_message(request: RevealRequest) -> bytes:
    """What the coordinator signs of a reveal request."""
    return _REVEAL_TAG + encode(request, without="signature")
