"""What the services need from the world: Protocols that adapters implement.

Each port has one contract suite (`tests/contracts`) that every adapter passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from comity.core.chain.record import Head, Record
from comity.core.policy.rule import Budget
from comity.core.privacy.event import Plan, Spend
from comity.core.retrieval.statistics import TermStatistics
from comity.ids import CollectionName, DocumentId, ExchangeId, MemberName, PassageId, SiteName
from comity.release import Released

Arrays = Mapping[str, NDArray[Any]]
"""A model's arrays by name, in the model's order; read-only to whoever gets them."""

Metrics = Mapping[str, float]


class Clock(Protocol):
    """Time. `wall` may jump; `monotonic` may not."""

    def wall_s(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never goes backwards."""


class Rng(Protocol):
    """Random bytes. The safe one reads the operating system's generator."""

    def token(self, size: int) -> bytes:
        """`size` bytes, uniform and unpredictable."""


# --- journal and identity ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A record before it is linked: its kind and its canonical JSON body."""

    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head with the site's Ed25519 signature over (site, sequence, hash)."""

    site: SiteName
    head: Head
    signature: bytes


class Journal(Protocol):
    """One site's ledger and audit chain: append-only, hash-linked, durable.

    Guarantees: when `commit` returns, all entries are on disk, linked in order, in one transaction;
    when it raises, none is. One writer at a time.
    """

    def head(self) -> Head:
        """The last committed head."""

    def commit(self, entries: Sequence[Entry], *, notes: Sequence[bytes] = ()) -> Head:
        """Appends all entries in one durable transaction and returns the new head.

        Args:
            entries: What to append, in order.
            notes: Texts that a person typed; kept in a side table by salted digest, erasable
                without breaking the chain.

        Raises:
            UnavailableError: The disk is full or read-only, or another writer holds the journal.
        """

    def records(self, *, after: int = 0) -> Iterator[Record]:
        """The committed records whose sequence is above `after`, in order, unverified."""


class HeadKeeper(Protocol):
    """Keeps the newest signed head outside the journal's file."""

    def load(self) -> SignedHead | None:
        """The head that was kept last, or None before the first."""

    def keep(self, signed: SignedHead) -> None:
        """Durably replaces the kept head."""


class KeyStore(Protocol):
    """A member's identity key; the private half never leaves it."""

    def public_key(self) -> bytes:
        """The Ed25519 public key, 32 bytes (RFC 8032)."""

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature of `message`, 64 bytes."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        """Checks somebody's signature.

        Raises:
            Verification: `signature` is not `public_key`'s over `message`.
        """


# --- privacy ----------------------------------------------------------------------------------


class Accountant(Protocol):
    """Turns described releases into epsilon; knows no ledger and keeps no state."""

    def epsilon(self, plan: Plan, delta: float) -> float:
        """The epsilon of a multiset fixed before its outputs (privacy loss distributions).

        An upper bound; infinite where the mechanism has none.
        """

    def filter_epsilon(self, plan: Plan, delta: float, order: float) -> float:
        """The epsilon of the Renyi filter at one order fixed beforehand.

        Valid also where parameters are chosen after outputs (Feldman and Zrnic 2021).
        """

    def version(self) -> str:
        """Name and version of the accountant, with its grid; recorded with each spend."""


# --- training ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """Tabular records: float64 features (n, d), int64 class labels (n,)."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    feature_names: tuple[str, ...]
    label_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one site's training gives: arrays, a weight, metrics, and what it cost.

    Attributes:
        arrays: The trained arrays, names and shapes as received.
        weight: How much it counts in the mean; the number of examples, or a public constant.
        metrics: Scalars by name.
        spends: The privacy events that ran, empty where nothing is claimed.
    """

    arrays: Arrays
    weight: float
    metrics: Metrics = field(default_factory=lambda: MappingProxyType({}))
    spends: tuple[Spend, ...] = ()


class Trainer(Protocol):
    """One model's training at one site, without a word about federation."""

    def initial(self) -> Arrays:
        """The arrays that a run starts from; equal at every caller."""

    def fit(self, arrays: Arrays, data: Table, rng: Rng) -> Contribution:
        """Trains from `arrays` on `data`."""

    def evaluate(self, arrays: Arrays, data: Table) -> Metrics:
        """Scores `arrays` on `data`: at least ``accuracy``, and ``auc`` for two classes."""


# --- secure sums ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SealedUpload:
    """A masked upload: what travels in its header, and the vector beside it.

    Attributes:
        header: The encoded message.
        vector: Words of a ring, uint16 or uint32.
    """

    header: bytes
    vector: NDArray[Any]


@dataclass(frozen=True, slots=True)
class KeptContribution:
    """What a site gave to a round, noise included: given again to a later attempt, never anew.

    Attributes:
        round_number: The round.
        received: Digest of the message that it answers.
        arrays: What is summed.
        weight: How much it counts.
        metrics: Weighted metrics.
        names: The app's words for what is summed.
    """

    round_number: int
    received: bytes
    arrays: Arrays
    weight: float
    metrics: tuple[float, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptSum:
    """A site's place in the secure sums of one run.

    Attributes:
        state: The encoded state; it holds keys.
        contribution: What was given to the round that is open; None once it was revealed.
        upload: What left for the attempt that is open; None where none waits for its reveal.
    """

    state: bytes
    contribution: KeptContribution | None = None
    upload: SealedUpload | None = None


class SumStore(Protocol):
    """Keeps a site's places in secure sums: durably, so that a crash repeats nothing."""

    def load(self, run: str) -> KeptSum | None:
        """What was kept last for `run`; None where nothing was."""

    def keep(self, run: str, kept: KeptSum) -> None:
        """Replaces what is kept for `run`; on disk when this returns.

        Raises:
            UnavailableError: The disk is full or read-only; what was kept before still stands.
        """


# --- asking -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of one document: `text` is exactly ``document[start:end]`` in characters."""

    passage: PassageId
    document: DocumentId
    collection: CollectionName
    title: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it is stored: its passages, under the digest of what they were made from."""

    document: DocumentId
    collection: CollectionName
    digest: bytes
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found.

    Attributes:
        passage: Its id.
        collection: Where it lies.
        score: BM25 under the statistics of the search.
    """

    passage: PassageId
    collection: CollectionName
    score: float


class PassageStore(Protocol):
    """A site's documents and their index: durable, incremental, filtered inside the search."""

    def write(self, puts: Sequence[Document], removes: Sequence[DocumentId] = ()) -> None:
        """Adds or replaces documents whole and removes others, in one durable transaction.

        When this returns, all of it is on disk and searchable; when it raises, none of it is.

        Raises:
            UnavailableError: The disk is full or read-only, or another writer is at work.
        """

    def digests(self, collection: CollectionName) -> Mapping[DocumentId, bytes]:
        """Content digests of the documents of a collection."""

    def search(
        self,
        terms: Sequence[str],
        collections: frozenset[CollectionName],
        limit: int,
        statistics: TermStatistics | None = None,
    ) -> Sequence[Hit]:
        """The best `limit` passages by BM25 among `collections` only, best first.

        Ties are broken by passage id. Scores are under `statistics`, the whole federation's, else
        under those of `collections`: what is not asked for leaves no trace in a score.
        """

    def statistics(
        self, terms: Sequence[str], collections: frozenset[CollectionName]
    ) -> TermStatistics:
        """The statistics of `collections` for `terms`; exact, also after removals."""

    def fetch(self, passages: Iterable[PassageId]) -> Sequence[Passage]:
        """The passages that still exist, in the order asked."""

    def close(self) -> None:
        """Releases files and locks."""


class Embedder(Protocol):
    """Text to vectors, by one model that a fingerprint names."""

    def fingerprint(self) -> str:
        """Digest of the model; vectors of different fingerprints are never compared."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (len(texts), dimension)."""


class Generator(Protocol):
    """A language model: text in, text out, in pieces."""

    def generate(self, prompt: str, *, max_tokens: int) -> Iterator[str]:
        """Yields the answer as it is made."""


@dataclass(frozen=True, slots=True)
class FeedItem:
    """A document at its source, not read yet.

    Attributes:
        name: Its name there, unique within the feed; for a file its relative path.
        read: Gives its content; raises `DataError` where it is not fit to be taken in.
    """

    name: str
    read: Callable[[], bytes]


class Feed(Protocol):
    """Where documents come from."""

    def items(self) -> Iterator[FeedItem]:
        """The documents as they are now, in order of name.

        Raises:
            ConfigError: The source cannot be reached as it is configured.
        """


# --- transport --------------------------------------------------------------------------------


class Bus(Protocol):
    """Bytes between members, with deadlines; what leaves a site is `Released`."""

    def request(self, to: MemberName, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        """Sends one request and returns its reply.

        Raises:
            UnavailableError: No reply within `timeout_s` seconds.
        """

    def serve(self, subject: str, answer: Callable[[MemberName, bytes], Released[bytes]]) -> None:
        """Answers requests on `subject` until `close`."""

    def close(self) -> None:
        """Leaves the bus; requests under way end with `UnavailableError`."""


@dataclass(frozen=True, slots=True)
class LedgerTerms:
    """A data set's budget as a ledger needs it: its name's key and what the owner allows."""

    dataset: str
    budget: Budget


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is being asked of a site, by whom, once.

    Attributes:
        exchange: Unique id; also the idempotency key.
        asker: The member or role that asks.
        message_type: ``train``, ``evaluate``, ``query...``, ``search``, ``fetch``.
        run: Run id, empty for questions.
        round_number: Round within the run; 0 for questions.
        dataset: Data set or collection touched; empty when none.
    """

    exchange: ExchangeId
    asker: str
    message_type: str
    run: str = ""
    round_number: int = 0
    dataset: str = ""
