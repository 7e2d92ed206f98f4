"""A store that is killed at any moment has lost nothing that it acknowledged."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from comity.adapters.store.passages import TantivyPassageStore
from comity.ids import CollectionName

CHILD = Path(__file__).with_name("passage_store_child.py")
INSIDE = frozenset({CollectionName("guides")})


def expected(acknowledged: int) -> set[str]:
    return {
        f"p{number}"
        for number in range(acknowledged + 1)
        if number % 3 != 1 or number == acknowledged
    }


def test_kill_9_loses_nothing_acknowledged_and_leaves_no_half(tmp_path: Path) -> None:
    draw = random.Random(7)
    last = -1
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, str(CHILD), str(tmp_path), str(last + 1)],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            last = int(child.stdout.readline())
            time.sleep(draw.uniform(0.05, 0.4))
            child.kill()
            rest = child.stdout.read().split()
        last = max([last, *map(int, rest)])
        store = TantivyPassageStore(tmp_path)
        hits = {hit.passage for hit in store.search(["alarm"], INSIDE, 10_000)}
        # The write under way when it was killed is there whole, or not at all.
        assert hits in (expected(last), expected(last + 1))
        last = max(int(name[1:]) for name in hits)
        counted = store.statistics(["alarm"], INSIDE)
        assert counted.passages == counted.frequencies["alarm"] == len(hits)
        store.close()
