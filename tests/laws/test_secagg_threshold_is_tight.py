"""The proof behind the threshold, checked by trying every lie; and why it may not be lower.

n sites, of which c tell the coordinator all they know. It tells each honest site i a set of
survivors of its own, V_i, of at least t sites, i among them; or it asks i nothing. Colluders stand
in every V_i: that costs the coordinator nothing. Site i then gives its share of the self mask of
each site in V_i, and its pair seed with each site that is not.

A sum over honest sites T can be opened if every self mask in T is known (t shares, c of them the
colluders' own) and every seed of a pair between T and another honest site. If such a T is smaller
than m, the threshold is too low. As what can be asked does not depend on the sites' names, it is
enough to look for T = {0, ..., k - 1}, for each k below m.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fakes.sum_cohort import TERMS

from comity.core.secagg.terms import check_threshold, colluders, honest, least_threshold
from comity.errors import PolicyRefused

Sets = NDArray[np.uint32]
NOT_ASKED = 0


def answers_of(site: int, honest: int, least: int) -> list[int]:
    """All that `site` can be told, as bits of the honest survivors; 0 where it is not asked."""
    others = [other for other in range(honest) if other != site]
    sizes = range(max(0, least - 1), honest)
    told = [
        1 << site | sum(1 << other for other in chosen)
        for size in sizes
        for chosen in combinations(others, size)
    ]
    return [NOT_ASKED, *told]


def opens_masks(told: list[Any], size: int, needed: int) -> Any:
    """Whether enough shares of the self mask of each of the first `size` sites are given."""
    found: Any = True
    for site in range(size):
        shares: Any = 0
        for other in told:
            shares = shares + (other >> site & 1)
        found = found & (shares >= needed)
    return found


def gave_a_seed(told: list[Any], site: int, outside: int) -> Any:
    """Whether one of the two gave their pair's seed, being told that the other had dropped."""
    mine, theirs = told[site], told[outside]
    i_gave = (mine != NOT_ASKED) & (mine >> outside & 1 == 0)
    they_gave = (theirs != NOT_ASKED) & (theirs >> site & 1 == 0)
    return i_gave | they_gave


def opens(told: list[Any], size: int, needed: int) -> Any:
    """Whether the sum over the first `size` sites can be opened; for columns of strategies too."""
    found: Any = opens_masks(told, size, needed)
    for site, outside in product(range(size), range(size, len(told))):
        found = found & gave_a_seed(told, site, outside)
    return found


def columns(choices: list[list[int]]) -> list[Sets]:
    """Every combination of what some sites are told, one array a site."""
    grids = np.meshgrid(*(np.array(row, np.uint32) for row in choices), indexing="ij")
    return [grid.reshape(-1) for grid in grids]


def strategies(honest: int, least: int) -> Iterator[list[Any]]:
    """Every lying strategy, in batches: the first sites' answers fixed, the others' in columns."""
    choices = [answers_of(site, honest, least) for site in range(honest)]
    split = max(0, honest - 4)
    inner = columns(choices[split:])
    for fixed in product(*choices[:split]):
        yield [*(np.uint32(answer) for answer in fixed), *inner]


def smallest_sum(sites: int, colluding: int, threshold: int, below: int) -> int | None:
    """The smallest number of honest sites, less than `below`, whose sum some lie opens."""
    honest, needed = sites - colluding, threshold - colluding
    for size in range(1, min(below, honest + 1)):
        for told in strategies(honest, needed):
            if np.any(opens(told, size, needed)):
                return size
    return None


def cells(sites: int) -> list[tuple[int, int, int]]:
    """Every (n, c, m) with a threshold of at most n; m = 1 asks for nothing."""
    return [
        (sites, colluding, in_sum)
        for colluding in range(sites - 1)
        for in_sum in range(2, sites - colluding + 1)
        if least_threshold(sites, colluding, in_sum) <= sites
    ]


CELLS = [cell for sites in range(2, 7) for cell in cells(sites)]
NOT_TIGHT = {(5, 0, 4), (6, 0, 5), (6, 1, 4)}
"""Sums demanded over nearly all honest sites: there one less would do, too."""


@pytest.mark.parametrize(("sites", "colluding", "in_sum"), CELLS)
def test_no_lie_opens_a_sum_over_too_few_honest_sites(
    sites: int, colluding: int, in_sum: int
) -> None:
    threshold = least_threshold(sites, colluding, in_sum)
    assert smallest_sum(sites, colluding, threshold, in_sum) is None


@pytest.mark.parametrize(("sites", "colluding", "in_sum"), CELLS)
def test_one_less_than_the_threshold_opens_too_small_a_sum(
    sites: int, colluding: int, in_sum: int
) -> None:
    threshold = least_threshold(sites, colluding, in_sum) - 1
    found = smallest_sum(sites, colluding, threshold, in_sum)
    assert (found is None) == ((sites, colluding, in_sum) in NOT_TIGHT)
    if in_sum == 2:
        assert found == 1, "a single site is exposed"


@pytest.mark.parametrize("cell", sorted(NOT_TIGHT))
def test_where_one_less_would_do_a_sum_over_nearly_all_honest_sites_is_demanded(
    cell: tuple[int, int, int],
) -> None:
    sites, colluding, in_sum = cell
    assert in_sum == sites - colluding - 1
    threshold = least_threshold(sites, colluding, in_sum)
    assert threshold == sites
    assert smallest_sum(sites, colluding, threshold - 2, in_sum) is not None


@pytest.mark.parametrize("sites", range(3, 129))
def test_the_defaults_leave_room_for_the_drop_outs_that_the_notes_promise(sites: int) -> None:
    threshold = least_threshold(sites, colluders(TERMS, sites), honest(TERMS, sites))
    assert sites // 2 < threshold <= sites
    promised = {3: 0, 4: 1, 5: 1, 8: 2, 16: 5, 100: 36}
    assert sites - threshold == promised.get(sites, sites - threshold)
    check_threshold(TERMS, sites, sites, threshold)
    check_threshold(TERMS, sites, sites, sites)
    with pytest.raises(PolicyRefused):
        check_threshold(TERMS, sites, sites, threshold - 1)


# --- never share the seeds of pairs ----------------------------------------------------------


def opens_with_escrow(told: list[Any], size: int, needed: int) -> Any:
    """As `opens`, where pair seeds are shared too, so that a site may die before its reveal.

    Then whoever is told that i uploaded and j did not gives its share of their pair's seed as i
    dealt it; t shares give the seed. Each answer alone is innocent: i's mask must be opened, and
    what is left of j in i's upload taken off.
    """
    found: Any = opens_masks(told, size, needed)
    for site, outside in product(range(size), range(size, len(told))):
        of_mine: Any = 0
        of_theirs: Any = 0
        for other in told:
            of_mine = of_mine + (other >> site & 1 & (~other >> outside))
            of_theirs = of_theirs + (other >> outside & 1 & (~other >> site))
        escrowed = (of_mine >= needed) | (of_theirs >= needed)
        found = found & (gave_a_seed(told, site, outside) | escrowed)
    return found


def isolating_lie(sites: int) -> list[int]:
    """What each of an even number of sites is told, so that the first one's update is opened.

    Of the sites that keep their seed with site 0, three are told that it lives and are alive to it:
    their seeds with it are opened by the shares of all the others, who are told that the three
    have dropped.
    """
    everyone, threshold = 2**sites - 1, sites // 2 + 1
    missing = sites - threshold
    three = [missing + 1, missing + 2, missing + 3]
    without_three = everyone & ~sum(1 << site for site in three)
    told = [everyone & ~sum(1 << site for site in range(1, missing + 1))]
    told += [without_three] * missing
    told += [without_three | 1 << site for site in three]
    return told + [everyone & ~1] * (sites - len(told))


@pytest.mark.parametrize("sites", [8, 10, 16])
def test_shared_pair_seeds_would_isolate_one_site_under_the_very_threshold(sites: int) -> None:
    threshold, told = sites // 2 + 1, isolating_lie(sites)
    assert threshold == least_threshold(sites, 0, 2)
    for site, answer in enumerate(told):
        assert answer >> site & 1, "a site that is told it dropped out refuses"
        assert answer.bit_count() >= threshold, "too few survivors are refused"
    assert opens_with_escrow(told, 1, threshold)
    assert not opens(told, 1, threshold)


@pytest.mark.parametrize("sites", [4, 5, 6])
def test_shared_pair_seeds_look_safe_among_a_few_sites(sites: int) -> None:
    threshold = least_threshold(sites, 0, 2)
    for told in strategies(sites, threshold):
        assert not np.any(opens_with_escrow(told, 1, threshold))
