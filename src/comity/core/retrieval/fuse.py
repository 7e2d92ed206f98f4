"""One ranking from many sites: raw scores are merged, once, at the gateway.

Ranks are never fused per site and again here: that loses more than half of the quality.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from comity.ids import CollectionName, SiteName


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a site tells the gateway of a passage before any text leaves.

    Attributes:
        opaque: Names the passage within one exchange, to nobody but its site.
        collection: Where it lies.
        score: BM25, for the gateway only, never for the asker.
    """

    opaque: str
    collection: CollectionName
    score: float


def fuse(
    answers: Mapping[SiteName, Sequence[Candidate]], limit: int
) -> list[tuple[SiteName, Candidate]]:
    """The best `limit` candidates over all sites, best first.

    Guarantees: sorted by score; ties by the site's name, then by the site's own order. The same
    answers give the same ranking, in whichever order they came.
    """
    ranked = (
        (-candidate.score, site, place, candidate)
        for site, candidates in answers.items()
        for place, candidate in enumerate(candidates)
    )
    best = heapq.nsmallest(limit, ranked, key=lambda entry: entry[:3])
    return [(site, candidate) for _, site, _, candidate in best]
