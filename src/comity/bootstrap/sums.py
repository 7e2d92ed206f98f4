"""Secure sums over sites of this machine: identities, a roster, and each site's part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from comity.adapters.flower.engine import EngineSettings, SumParts
from comity.adapters.flower.site_engine import SimulatedSite
from comity.adapters.parallel.unmask import ParallelUnmask
from comity.adapters.pki.keys import Identity, verify_signature
from comity.adapters.pki.throwaway import throwaway_root_over
from comity.adapters.store.sums import FileSumStore, MemorySumStore
from comity.adapters.store.system import SystemClock, SystemRng
from comity.core.policy.rule import PROTECTED, PartKind, Rule, SitePolicy, SumPolicy
from comity.core.secagg.site_state import Member
from comity.events import EventSink
from comity.ids import FederationName, MemberName, SiteName
from comity.services.enrol import Role, identity_keys
from comity.services.sum_epoch import Coordinator
from comity.services.sum_plan import SumSettings
from comity.services.sum_site import SummingSite

FEDERATION: Final = FederationName("simulation")
COORDINATOR: Final = MemberName("coordinator")
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class LastingSite:
    """What a site that outlives a run brings to its secure sums.

    Attributes:
        identity: Its identity key.
        folder: Where its places in sums are kept.
    """

    identity: Identity
    folder: Path


def demanded(policies: Sequence[SitePolicy]) -> frozenset[str]:
    """The categories of messages of which some site releases parts only inside a secure sum."""
    return frozenset(
        category
        for category in PROTECTED
        for policy in policies
        for kind in (PartKind.ARRAYS, PartKind.METRICS)
        # An evaluate reply has no arrays, so a rule for them demands nothing.
        if (category, kind) != ("evaluate", PartKind.ARRAYS)
        and policy.train.rule_for(category, kind) is Rule.SUM
    )


def with_sums(
    sites: Sequence[SimulatedSite],
    settings: SumSettings,
    protected: frozenset[str],
    federation: FederationName,
    lasting: Mapping[SiteName, LastingSite] | None = None,
) -> tuple[list[SimulatedSite], SumParts]:
    """Gives each site its part in secure sums, under a root that is thrown away.

    Args:
        sites: The sites; each keeps its own door and policy.
        settings: What the run asks for.
        protected: Categories of messages whose replies are summed.
        federation: Whose sums they are.
        lasting: Identities and folders of sites that outlive the run; others get throw-away ones.
    """
    rng, lasting = SystemRng(), lasting or {}
    identities = {
        MemberName(site.name): lasting[site.name].identity
        if site.name in lasting
        else Identity.from_seed(rng.token(_KEY_BYTES))
        for site in sites
    }
    identities[COORDINATOR] = Identity.from_seed(rng.token(_KEY_BYTES))
    members = [
        (name, Role.COORDINATOR if name == COORDINATOR else Role.SITE) for name in identities
    ]
    root = throwaway_root_over(federation, members, identities, (rng, SystemClock()))
    keys = {str(name): key for name, key in identity_keys(root.roster, Role.SITE).items()}
    joined = []
    for site in sites:
        identity = identities[MemberName(site.name)]
        terms: SumPolicy = site.policy.train.sums if site.policy else settings.terms
        member = Member(
            federation,
            site.name,
            root.roster.version,
            keys,
            identities[COORDINATOR].public_key(),
            terms,
            identity.sign,
            verify_signature,
        )
        place = lasting.get(site.name)
        store = FileSumStore(place.folder) if place else MemorySumStore()
        joined.append(replace(site, sums=SummingSite(member, site.door, rng, store)))
    coordinator = Coordinator(root.roster, identities[COORDINATOR].sign, verify_signature)
    return joined, SumParts(coordinator, settings, protected, ParallelUnmask())


def summed(
    sites: Sequence[SimulatedSite],
    settings: EngineSettings,
    events: EventSink,
    secure: SumSettings | None,
    lasting: Mapping[SiteName, LastingSite] | None = None,
) -> tuple[Sequence[SimulatedSite], EngineSettings, EventSink, SumParts | None]:
    """The arguments of a run; with secure sums where they are asked for, or a site demands them.

    Raises:
        CohortTooSmall: They are asked for, of too few sites.
    """
    asked = PROTECTED if secure else demanded([site.policy for site in sites if site.policy])
    if not asked:
        return sites, settings, events, None
    if secure:
        secure.threshold(len(sites), len(sites))
    joined, sums = with_sums(sites, secure or SumSettings(), asked, FEDERATION, lasting)
    return joined, settings, events, sums
