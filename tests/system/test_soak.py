"""What `make soak` does is fixed by its seed."""

from __future__ import annotations

from itertools import islice, pairwise

from tests.system.soak import SHARDS, script

SEED = 4


def test_a_seed_fixes_the_disturbances_and_every_round_changes_the_count_of_shards() -> None:
    rounds = list(islice(script(SEED), 50))
    assert rounds == list(islice(script(SEED), 50))
    counts = [2, *(each.shards for each in rounds)]
    assert all(before != after for before, after in pairwise(counts))
    assert set(counts) == set(SHARDS)
