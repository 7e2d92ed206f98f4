"""Sites that answer questions: real stores and gates over fakes in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.gate_site import (
    IDENTITY,
    AddingAccountant,
    MemoryHeads,
    MemoryJournal,
    SetClock,
    UnsafeCountingRng,
)

from comity.adapters.store.passages import TantivyPassageStore
from comity.core.policy.rule import CollectionPolicy, ReleaseLevel, SitePolicy
from comity.ids import CollectionName, DocumentId, ExchangeId, FederationName, PassageId, SiteName
from comity.ports import Document, Passage, PassageStore
from comity.services.ask import AskedSite as Reached
from comity.services.ask import AskSettings, Gateway, LocalSite
from comity.services.gate import Gate, GateParts, SiteIdentity
from comity.services.search import (
    Masks,
    Question,
    SearchParts,
    SearchSettings,
    SiteSearch,
    no_masks,
)

OPEN, SECRET, SHORT = (CollectionName(name) for name in ("guides", "minutes", "notes"))

TERMS = (
    CollectionPolicy(OPEN, ReleaseLevel.PASSAGES, frozenset({"*"}), 3, 6),
    CollectionPolicy(SHORT, ReleaseLevel.SENTENCES, frozenset({"*"}), max_sentences_per_passage=1),
    CollectionPolicy(
        SECRET, ReleaseLevel.PASSAGES, frozenset({"board"}), reason="Minutes are for the board."
    ),
)


def document(name: str, text: str, collection: CollectionName = OPEN) -> Document:
    """A document of one passage."""
    whole = DocumentId(f"{collection}/{name}")
    passage = Passage(PassageId(f"id-of-{whole}"), whole, collection, name, 0, len(text), text)
    return Document(whole, collection, hashlib.sha256(text.encode()).digest(), (passage,))


NORTH = SiteName("north")


@dataclass
class AskedSite:
    """One site with documents of its own."""

    folder: Path
    name: SiteName = NORTH
    terms: Sequence[CollectionPolicy] = TERMS
    settings: SearchSettings = field(default_factory=SearchSettings)
    masks: Masks = no_masks
    clock: SetClock = field(default_factory=SetClock)
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    store: PassageStore = field(init=False)
    search: SiteSearch = field(init=False)

    def __post_init__(self) -> None:
        rng = UnsafeCountingRng()
        policy = SitePolicy(collections={one.name: one for one in self.terms})
        ports = GateParts(
            self.journal, MemoryHeads(), IDENTITY, AddingAccountant(), self.clock, rng
        )
        gate = Gate(SiteIdentity(FederationName("test"), self.name), policy, ports)
        self.store = TantivyPassageStore(self.folder / self.name)
        parts = SearchParts(self.store, gate, self.clock, rng)
        self.search = SiteSearch(policy, parts, self.settings, self.masks)

    def local(self) -> LocalSite:
        """The site as a gateway reaches it."""
        return LocalSite(self.name, self.search)


def question(text: str, name: str = "q1", asker: str = "analyst", limit: int = 50) -> Question:
    """A question as it reaches a site."""
    return Question(ExchangeId(name), asker, text, limit)


def gateway(sites: Sequence[Reached], settings: AskSettings | None = None) -> Gateway:
    """A gateway over sites in this process."""
    return Gateway(sites, (SetClock(), UnsafeCountingRng()), settings)
