"""Sites that come while a run goes on take part from the next round, under keys of a new epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from tests.fakes.members import ROUNDS, SITES, secure_run
from tests.fakes.summing import Seen

from comity.adapters.flower.grid import LocalGrid
from comity.bootstrap.members import write_members
from comity.errors import CohortTooSmall


def hiding_until(first: int, seen: Seen) -> Callable[[LocalGrid], Iterable[int]]:
    """Hides all but the `first` nodes until those were evaluated once."""
    real = LocalGrid.get_node_ids

    def some(grid: LocalGrid) -> Iterable[int]:
        ids = list(real(grid))
        return ids[:first] if len(seen.of("evaluate")) < first else ids

    return some


@pytest.mark.parametrize("first", [3, 4])
def test_a_late_site_trains_from_the_next_round_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    write_members(tmp_path, SITES)
    seen = Seen()
    monkeypatch.setattr(LocalGrid, "get_node_ids", hiding_until(first, seen))
    outcome = secure_run(tmp_path, seen=seen)
    assert outcome.site_dropouts == {}
    trained = seen.of("train")
    assert sorted(trained[:first]) == list(range(first))
    assert sorted(trained[first:]) == sorted([*range(SITES)] * (ROUNDS - 1))


def test_two_sites_at_first_are_too_few_and_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_members(tmp_path, SITES)
    monkeypatch.setattr(LocalGrid, "get_node_ids", hiding_until(2, Seen()))
    with pytest.raises(CohortTooSmall, match="2 sites"):
        secure_run(tmp_path)
