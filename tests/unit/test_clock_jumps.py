"""A clock that jumps far ahead does not use up the days until then."""

from __future__ import annotations

import pytest
from tests.fakes.gate_site import IDENTITY, SITE, Site, passage, question

from comity.errors import UnavailableError
from comity.release import Released
from comity.services.books import CLOCK, MAX_DAYS_AHEAD, Books
from comity.services.custody import Custody

DAY = 86_400


def leaves(site: Site, name: str) -> bool:
    return isinstance(site.gate().release(question(name), [passage()])[0], Released)


def test_a_year_may_pass_and_a_jump_of_seventy_is_refused_with_a_way_out() -> None:
    site = Site()
    assert leaves(site, "q1")
    site.clock.now_s += MAX_DAYS_AHEAD * DAY
    assert leaves(site, "q2")
    before = site.records()
    site.clock.now_s += 70 * 365 * DAY
    with pytest.raises(UnavailableError, match="days ahead") as caught:
        leaves(site, "q3")
    assert "comity journal clock" in caught.value.hint
    assert site.records() == before
    site.clock.now_s -= 70 * 365 * DAY
    assert leaves(site, "q4")


def record_clock(site: Site) -> None:
    custody = Custody(SITE, site.journal, site.heads, IDENTITY, site.clock, replay_window=1)
    custody.commit([], [(CLOCK, {"day": int(site.clock.now_s // DAY)})])


def test_the_owners_record_lets_days_count_from_the_clock_forwards_and_back() -> None:
    site = Site()
    assert leaves(site, "q1")
    site.clock.now_s += 70 * 365 * DAY
    record_clock(site)
    assert leaves(site, "q2")
    site.clock.now_s -= 70 * 365 * DAY
    record_clock(site)
    books = Books.read(site.journal.records(), replay_window=1)
    assert books.day == int(site.clock.now_s // DAY)


def test_setting_a_clock_back_gives_no_new_quota() -> None:
    site = Site()
    given = [leaves(site, f"q{number}") for number in range(4)]
    assert given == [True, True, True, False]
    site.clock.now_s -= 5 * DAY
    assert not leaves(site, "q5")
    record_clock(site)
    assert not leaves(site, "q6")
