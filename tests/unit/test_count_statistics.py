"""Counts over all sites: exact, suppressed where small, refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from comity.adapters.flower.site_engine import SimulatedSite
from comity.bootstrap.sums import with_sums
from comity.errors import CohortTooSmall, DataError, PolicyRefused, UnavailableError
from comity.ids import FederationName, RunId, SiteName
from comity.services.gate import UnsafeSimulationGate
from comity.services.statistics import (
    MESSAGE_TYPE,
    SUPPRESSED,
    Counter,
    CountingSite,
    CountQuery,
    bucketed,
    histogram,
    sum_counts,
)
from comity.services.sum_plan import SumSettings
from comity.services.sum_run import SumRun

EDGES = np.arange(0.0, 100.0, 10.0)
QUERY = CountQuery("histogram.age", len(EDGES) + 2, tuple(map(str, EDGES)))
ONE = CountQuery("one", 1)

Cohort = Callable[[list[Counter]], tuple[SumRun, dict[str, CountingSite]]]


@pytest.fixture
def cohort() -> Cohort:
    def made(counters: list[Counter]) -> tuple[SumRun, dict[str, CountingSite]]:
        sites = [
            SimulatedSite(SiteName(f"s{number}"), UnsafeSimulationGate())
            for number in range(len(counters))
        ]
        summing, parts = with_sums(
            sites, SumSettings(), frozenset({MESSAGE_TYPE}), FederationName("f")
        )
        counting = {
            str(site.name): CountingSite(site.sums, count)
            for site, count in zip(summing, counters, strict=True)
            if site.sums is not None
        }
        assert len(counting) == len(counters)
        return SumRun(parts.coordinator, RunId("r1"), parts.settings), counting

    return made


def given(counts: NDArray[np.int64]) -> Counter:
    return lambda _: counts


def always(count: int) -> Counter:
    return given(np.array([count]))


def ages(seed: int) -> NDArray[np.float64]:
    found = np.random.default_rng(seed).normal(50, 18, 100 + seed)
    found[:3] = np.nan
    return found


def over(values: NDArray[np.float64]) -> Counter:
    return lambda query: histogram(values, np.array([float(edge) for edge in query.parameters]))


def test_a_histogram_is_the_exact_sum_and_small_cells_are_suppressed(cohort: Cohort) -> None:
    data = [ages(seed) for seed in range(5)]
    run, sites = cohort([over(values) for values in data])
    exact = np.sum([histogram(values, EDGES) for values in data], axis=0)
    assert ((exact > 0) & (exact < 8)).any()
    for _ in range(2):  # a run gives more than one sum
        counts = sum_counts(run, sites, QUERY, min_count=8)
        shown = np.where((exact > 0) & (exact < 8), SUPPRESSED, exact)
        assert counts.values.tolist() == shown.tolist()
        assert (counts.sites, counts.dropped) == (5, ())
    assert exact[-1] == 15  # the missing values
    assert exact.sum() == sum(values.size for values in data)


def test_counts_are_exact_up_to_the_ring_and_refused_beyond(cohort: Cohort) -> None:
    run, sites = cohort([always(4 * 10**8)] * 5)
    assert sum_counts(run, sites, ONE).values.tolist() == [2 * 10**9]
    run, sites = cohort([always(5 * 10**8)] * 5)
    with pytest.raises(PolicyRefused, match="ring"):
        sum_counts(run, sites, ONE)


def test_a_site_that_counts_wrongly_drops_out(cohort: Cohort) -> None:
    for wrong in (np.array([-1]), np.array([1, 2]), np.array([0.5])):
        run, sites = cohort([*[always(7)] * 4, given(wrong)])
        counts = sum_counts(run, sites, ONE)
        assert counts.values.tolist() == [28]
        assert (counts.sites, counts.dropped) == (4, ("s4",))


def test_too_few_sites_that_count_open_no_sum(cohort: Cohort) -> None:
    run, sites = cohort([always(7)] * 5)

    def elsewhere(query: CountQuery) -> NDArray[np.int64]:
        raise DataError(f"{query.name} is not counted here")

    sites |= {name: CountingSite(sites[name].sums, elsewhere) for name in ("s0", "s1", "s2")}
    with pytest.raises((CohortTooSmall, UnavailableError)):
        sum_counts(run, sites, ONE)


def test_too_few_sites_and_senseless_queries_are_refused(cohort: Cohort) -> None:
    run, sites = cohort([always(7)] * 3)
    with pytest.raises(CohortTooSmall):
        sum_counts(run, {"s0": sites["s0"], "s1": sites["s1"]}, ONE)
    with pytest.raises(DataError, match="0 counts"):
        sum_counts(run, sites, CountQuery("none", 0))
    with pytest.raises(DataError, match="minimum of 0"):
        sum_counts(run, sites, ONE, min_count=0)


def test_queries_that_differ_anywhere_bind_to_different_keys() -> None:
    queries = [
        CountQuery("a", 1),
        CountQuery("b", 1),
        CountQuery("a", 2),
        CountQuery("a", 1, ("1",)),
        CountQuery("a", 1, ("1", "2")),
        CountQuery("a", 1, ("12",)),
        CountQuery("a", 1, (), "patients"),
    ]
    assert len({query.digest() for query in queries}) == len(queries)


def test_terms_fall_into_the_same_buckets_at_every_site() -> None:
    first, second = bucketed({"sepsis": 3, "pump": 1}, 64), bucketed({"sepsis": 2}, 64)
    place = int(np.flatnonzero(second)[0])
    assert first[place] in {3, 4}
    assert first.sum() == 4
    assert first.dtype == np.int64
