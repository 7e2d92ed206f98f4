"""The table of what secure sums tolerate is what the code gives."""

from __future__ import annotations

import re
from pathlib import Path

from comity.services.sum_plan import SumSettings, outlook

PAGE = Path(__file__).parents[2] / "docs" / "secagg.md"


def test_the_table_of_tolerated_drop_outs_is_the_code_s() -> None:
    rows = re.findall(r"^\|" + r" (\d+) \|" * 5 + "$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 6
    for row in rows:
        found = outlook(SumSettings(), int(row[0]), 1000)
        told = (found.sites, found.colluders, found.honest, found.threshold, found.tolerated)
        assert told == tuple(map(int, row))
