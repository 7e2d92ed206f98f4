"""Counts over all sites, summed so that nobody sees a single site's: schemas, histograms, terms.

A count vector is one secure sum of whole numbers, exact. What is asked for is public: its name, its
size and its parameters; each site counts over its own data and lets the counts leave only inside
the sum, where its policy says ``sum`` for arrays of `MESSAGE_TYPE`. Exact sums do not hide a record
from who knows all others: cells below `min_count` are suppressed, and noise is for those who need
more.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from comity.core.policy.rule import PartKind
from comity.core.secagg.keys import digest
from comity.errors import ComityError, DataError
from comity.ids import ExchangeId
from comity.ports import Exchange, SealedUpload
from comity.services.parts import Part
from comity.services.sum_run import SumAsk, SumRun
from comity.services.sum_site import SummingSite

MESSAGE_TYPE: Final = "query.statistics"
SUPPRESSED: Final = -1
"""What stands in place of a count below the minimum."""
_RECORD: Final = "counts"
_EXACT: Final = 0

Counter = Callable[["CountQuery"], NDArray[np.int64]]
"""Counts over one site's own data; gives as many whole numbers, from 0 up, as the query's size."""


@dataclass(frozen=True, slots=True)
class CountQuery:
    """A public question for counts.

    Attributes:
        name: What is counted, for example ``histogram.age``.
        size: How many counts.
        parameters: What else is fixed, as text, such as a histogram's edges.
        dataset: The data set that is counted over, for ledgers and audit chains.
    """

    name: str
    size: int
    parameters: tuple[str, ...] = ()
    dataset: str = ""

    def digest(self) -> bytes:
        """What the sites' keys are bound to: all of them count the same, or no sum opens."""
        return digest("count query", self.name, self.size, self.dataset, *self.parameters)


@dataclass(frozen=True, slots=True)
class CountingSite:
    """A site that counts.

    Attributes:
        sums: Its part in secure sums.
        count: Counts over its data.
    """

    sums: SummingSite
    count: Counter


@dataclass(frozen=True, slots=True)
class Counts:
    """Summed counts.

    Attributes:
        values: int64, `SUPPRESSED` where a sum is above 0 and below the minimum.
        sites: How many sites are in it.
        dropped: Who was asked and is not.
    """

    values: NDArray[np.int64]
    sites: int
    dropped: tuple[str, ...]


def sum_counts(
    run: SumRun, sites: Mapping[str, CountingSite], query: CountQuery, *, min_count: int = 5
) -> Counts:
    """Sums one count vector over all sites.

    Args:
        run: The secure sums that it is one of.
        sites: Who counts.
        query: What.
        min_count: Sums below it, but for 0, are suppressed.

    Raises:
        CohortTooSmall: Too few sites for a secure sum.
        PolicyRefused: A count is too large for the ring.
        UnavailableError: No attempt gave a sum.
    """
    if query.size < 1 or min_count < 1:
        raise DataError(f"{query.size} counts with a minimum of {min_count}", hint="use 1 or more")
    ask = SumAsk(
        MESSAGE_TYPE,
        tuple(sorted(sites)),
        {},
        query.digest(),
        {_RECORD: query.size},
        exponent=_EXACT,
    )
    summed = run.sum(ask, _LocalCarrier(sites, query, str(run.run)))
    result = summed.result
    total = np.rint(summed.arrays[_RECORD] * len(result.survivors)).astype(np.int64)
    hidden = (total > 0) & (total < min_count)
    return Counts(np.where(hidden, SUPPRESSED, total), len(result.survivors), result.dropped)


def histogram(values: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts of values in ``[edges[i], edges[i + 1])``, before them, after them, and missing.

    Args:
        values: Any real dtype, one dimension; NaN is missing.
        edges: Sorted, public; n edges give n + 2 counts.
    """
    finite = values[~np.isnan(values.astype(np.float64))]
    places = np.searchsorted(edges, finite, side="right")
    counts = np.bincount(places, minlength=len(edges) + 1)
    return np.concatenate([counts, [values.size - finite.size]]).astype(np.int64)


def bucketed(counts: Mapping[str, int], buckets: int) -> NDArray[np.int64]:
    """Counts by term, each term in one of `buckets` public places by its digest."""
    found = np.zeros(buckets, np.int64)
    for term, count in counts.items():
        place = int.from_bytes(digest("term bucket", term)[:8], "big") % buckets
        found[place] += count
    return found


@dataclass(slots=True)
class _LocalCarrier:
    """Carries one count's messages to sites of this process; one that refuses is missing."""

    sites: Mapping[str, CountingSite]
    query: CountQuery
    run: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def announce(self, request: bytes) -> Mapping[str, bytes]:
        """Every site's keys."""
        return dict(self._asked(lambda one, exchange: one.sums.announce(exchange, request).value))

    def link(self, request: bytes) -> Mapping[str, bytes]:
        """Every site's encapsulations."""
        return dict(
            self._asked(lambda one, exchange: one.sums.link(exchange, self.run, request).value)
        )

    def invite(
        self, invitations: Mapping[str, bytes]
    ) -> Iterator[tuple[str, SealedUpload | bytes]]:
        """Every site's masked counts."""
        for name, body in invitations.items():
            exchange = self._exchange(name)
            try:
                yield name, self._counted(self.sites[name], exchange, body)
            except ComityError:
                continue

    def reveal(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
        """What opens the sum."""
        for name, body in requests.items():
            try:
                yield name, self.sites[name].sums.reveal(self._exchange(name), body).value
            except ComityError:
                continue

    def _counted(self, site: CountingSite, exchange: Exchange, body: bytes) -> SealedUpload | bytes:
        if not site.sums.open(exchange, body, self.query.digest()):
            return site.sums.repeat(exchange, None).value
        counts = np.asarray(site.count(self.query))
        if counts.shape != (self.query.size,) or counts.dtype.kind not in "iu" or counts.min() < 0:
            raise DataError(f"{self.query.name} was not counted as {self.query.size} numbers")
        part = Part(PartKind.ARRAYS, _RECORD, {_RECORD: counts})
        return site.sums.contribute(exchange, [part])[0].value

    def _asked(
        self, answer: Callable[[CountingSite, Exchange], bytes]
    ) -> Iterator[tuple[str, bytes]]:
        for name, site in self.sites.items():
            try:
                yield name, answer(site, self._exchange(name))
            except ComityError:
                continue

    def _exchange(self, name: str) -> Exchange:
        number = next(self._numbers)
        tag = digest("count exchange", self.query.digest(), self.run, number).hex()[:16]
        return Exchange(
            ExchangeId(f"{self.run}-{tag}-{name}"),
            "coordinator",
            MESSAGE_TYPE,
            self.run,
            dataset=self.query.dataset,
        )
