from __future__ import annotations

from comity.api.results import TrainResult
from comity.ids import RunId, SiteName


def test_a_dropout_shows_with_its_site() -> None:
    dropouts = {
        SiteName("st-anne"): {"DataError": 1},
        SiteName("lakeside"): {"DataError": 2, "ValueError": 1},
    }
    told = repr(TrainResult(RunId("1"), {}, {}, (), dropouts, {}, 1.0))
    assert "  st-anne dropped out: DataError\n" in told
    assert "  lakeside dropped out: DataError (2 times), ValueError" in told
