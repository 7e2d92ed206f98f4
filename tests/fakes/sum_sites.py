"""Sites that sum behind real gates, and a carrier that calls them; each may drop out or lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tests.fakes.gate_site import (
    PATIENTS,
    AddingAccountant,
    MemoryHeads,
    MemoryJournal,
    SetClock,
    UnsafeCountingRng,
)

from comity.adapters.pki.keys import Identity, verify_signature
from comity.adapters.pki.throwaway import ThrowawayRoot, throwaway_root_over
from comity.adapters.store.sums import MemorySumStore
from comity.core.policy.rule import PartKind, SitePolicy
from comity.core.secagg.site_state import Member
from comity.errors import ComityError, UnavailableError
from comity.events import Event
from comity.ids import ExchangeId, FederationName, MemberName, RunId, SiteName
from comity.ports import Exchange, HeadKeeper, Journal, SealedUpload, SumStore
from comity.services.enrol import Role, identity_keys
from comity.services.gate import Gate, GateParts, Part, SiteIdentity
from comity.services.sum_epoch import Coordinator
from comity.services.sum_plan import SumSettings
from comity.services.sum_run import SumAsk, SumRun
from comity.services.sum_site import SummingSite

FEDERATION = FederationName("hospitals")
COORDINATOR = MemberName("coordinator")
RUN = RunId("17")
RECEIVED = bytes(range(32))
REFERENCE: dict[str, Any] = {"w": np.linspace(-1, 1, 12), "b": np.zeros(2, np.float32)}

App = Callable[["SumSite", Exchange], Sequence[Part]]


def given(site: SumSite, exchange: Exchange) -> list[Part]:
    """A train or evaluate reply that depends on the site alone."""
    number = float(site.index + 1)
    metrics = {"num-examples": 100 * (site.index + 1), "loss": number}
    parts = [Part(PartKind.METRICS, "metrics", metrics)]
    if exchange.message_type == "train":
        arrays = {
            name: (array + number / 8).astype(array.dtype) for name, array in REFERENCE.items()
        }
        parts.insert(0, Part(PartKind.ARRAYS, "arrays", arrays, reference=REFERENCE))
    return parts


@dataclass
class SumSite:
    """One site; `start` opens its gate and its part in sums, again and again."""

    index: int
    policy: SitePolicy = field(default_factory=SitePolicy)
    app: App = given
    journal: Journal = field(default_factory=MemoryJournal)
    heads: HeadKeeper = field(default_factory=MemoryHeads)
    store: SumStore = field(default_factory=MemorySumStore)
    rng: UnsafeCountingRng = field(default_factory=UnsafeCountingRng)
    clock: SetClock = field(default_factory=SetClock)
    calls: int = 0
    events: list[Event] = field(default_factory=list)
    gate: Gate = field(init=False)
    sums: SummingSite = field(init=False)

    @property
    def name(self) -> SiteName:
        return SiteName(f"site-{self.index + 1}")

    @property
    def identity(self) -> Identity:
        return Identity.from_seed(bytes([self.index + 1]) * 32)

    def start(self, root: ThrowawayRoot) -> SumSite:
        self.gate = Gate(
            SiteIdentity(FEDERATION, self.name),
            self.policy,
            GateParts(
                self.journal, self.heads, self.identity, AddingAccountant(), self.clock, self.rng
            ),
            self.events.append,
        )
        keys = {str(name): key for name, key in identity_keys(root.roster, Role.SITE).items()}
        member = Member(
            FEDERATION,
            self.name,
            root.roster.version,
            keys,
            root.roster.member(COORDINATOR).public_key,
            self.policy.train.sums,
            self.identity.sign,
            verify_signature,
        )
        self.sums = SummingSite(member, self.gate, self.rng, self.store)
        return self


COORDINATOR_IDENTITY = Identity.from_seed(bytes([250]) * 32)


def root_of(count: int) -> ThrowawayRoot:
    """A roster of so many sites and a coordinator."""
    identities = {
        MemberName(SumSite(index).name): SumSite(index).identity for index in range(count)
    }
    members = [(name, Role.SITE) for name in identities]
    identities[COORDINATOR] = COORDINATOR_IDENTITY
    members.append((COORDINATOR, Role.COORDINATOR))
    return throwaway_root_over(FEDERATION, members, identities, (UnsafeCountingRng(9), SetClock()))


_ANSWERED = {"announce": "announced", "link": "linked", "invite": "invited", "reveal": "revealed"}

Tamper = Callable[[str, str, Any], Any]


def unchanged(stage: str, name: str, body: Any) -> Any:
    """Lets everything through; another may alter it, or give None to lose it."""
    del stage, name
    return body


@dataclass
class DirectCarrier:
    """Calls sites in this process; keeps all that left them, and why what stayed stayed.

    `tamper` sees requests as ``announce``, ``link``, ``invite``, ``reveal``, and answers as
    ``announced``, ``linked``, ``invited``, ``revealed``.
    """

    sites: Mapping[str, SumSite]
    kind: str = "train"
    tamper: Tamper = unchanged
    received: bytes = RECEIVED
    reference: dict[str, Any] | None = field(default_factory=lambda: REFERENCE)
    left: list[tuple[str, str, Any]] = field(default_factory=list)
    refusals: list[tuple[str, str, ComityError]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=lambda: [0])

    def exchange(self, kind: str = "") -> Exchange:
        self.numbers[0] += 1
        name = ExchangeId(f"m{self.numbers[0]}")
        return Exchange(name, "coordinator", kind or self.kind, RUN, 1, PATIENTS)

    def announce(self, request: bytes) -> Mapping[str, bytes]:
        return dict(self._each("announce", dict.fromkeys(self.sites, request)))

    def link(self, request: bytes) -> Mapping[str, bytes]:
        return dict(self._each("link", dict.fromkeys(self.sites, request)))

    def invite(
        self, invitations: Mapping[str, bytes]
    ) -> Iterator[tuple[str, SealedUpload | bytes]]:
        return self._each("invite", invitations)

    def reveal(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        return self._each("reveal", requests)

    def _each(self, stage: str, bodies: Mapping[str, bytes]) -> Iterator[tuple[str, Any]]:
        for name, body in bodies.items():
            sent = self.tamper(stage, name, body)
            if sent is None:
                continue
            try:
                answer = self.ask(stage, name, sent)
            except UnavailableError:
                raise
            except ComityError as error:
                self.refusals.append((stage, name, error))
                continue
            self.left.append((stage, name, answer))
            answer = self.tamper(_ANSWERED[stage], name, answer)
            if answer is not None:
                yield name, answer

    def ask(self, stage: str, name: str, body: bytes) -> Any:
        """One site's answer to one request."""
        site = self.sites[name]
        match stage:
            case "announce":
                return site.sums.announce(self.exchange("query.comity_announce"), body).value
            case "link":
                return site.sums.link(self.exchange("query.comity_link"), RUN, body).value
            case "reveal":
                return site.sums.reveal(self.exchange("query.comity_reveal"), body).value
        exchange = self.exchange()
        if site.sums.open(exchange, body, self.received):
            site.calls += 1
            released, _ = site.sums.contribute(exchange, site.app(site, exchange))
            return released.value
        return site.sums.repeat(exchange, self.reference).value

    def refused(self, stage: str = "") -> list[tuple[str, str]]:
        """By whom, and why."""
        return [(n, type(e).__name__) for s, n, e in self.refusals if stage in {"", s}]


@dataclass
class Federation:
    """Sites, their roster, and a run over them."""

    sites: dict[str, SumSite]
    root: ThrowawayRoot
    run: SumRun
    events: list[Event]
    carrier: DirectCarrier

    def sum(self, kind: str = "train", **changes: Any) -> Any:
        self.carrier.kind = kind
        reference = REFERENCE if kind == "train" else {}
        self.carrier.reference = reference or None
        ask = SumAsk(kind, tuple(self.sites), reference, RECEIVED)
        return self.run.sum(replace(ask, **changes), self.carrier)


def federation(
    count: int = 4,
    settings: SumSettings | None = None,
    sites: Sequence[SumSite] = (),
    tamper: Tamper = unchanged,
) -> Federation:
    """So many started sites, and a run; `sites` stand in for those of their index."""
    root, events = root_of(count), list[Event]()
    made = {site.index: site for site in sites}
    # Generators differ, or every site would draw the same keys.
    here = [
        made.get(index) or SumSite(index, rng=UnsafeCountingRng(1000 * (index + 1)))
        for index in range(count)
    ]
    started = {str(site.name): site.start(root) for site in here}
    coordinator = Coordinator(root.roster, COORDINATOR_IDENTITY.sign, verify_signature)
    run = SumRun(coordinator, RUN, settings or SumSettings(first_max_weight=1024), events.append)
    return Federation(started, root, run, events, DirectCarrier(started, tamper=tamper))


def mean_of(names: Sequence[str]) -> tuple[float, float, int]:
    """What the sum over these sites must give: the shift of all values, the loss, the weight."""
    numbers = [int(name.removeprefix("site-")) for name in names]
    weight = sum(100 * number for number in numbers)
    mean = sum(100 * number * number for number in numbers) / weight
    return mean / 8, mean, weight
