"""A minute of everything at once; `make soak` goes on for longer, with a seed of your choice."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from tests.system.conftest import Operator
from tests.system.soak import SHARDS, Soak, script
from tests.system.tour import Crowd, reckoning

pytestmark = [pytest.mark.process, pytest.mark.alone]

SEED = 4


def test_a_seed_fixes_the_disturbances_and_every_round_changes_the_count_of_shards() -> None:
    rounds = list(islice(script(SEED), 50))
    assert rounds == list(islice(script(SEED), 50))
    counts = [2, *(each.shards for each in rounds)]
    assert all(before != after for before, after in pairwise(counts))
    assert set(counts) == set(SHARDS)


def test_reshards_failovers_kills_and_backups_at_once_lose_nothing(operator: Operator) -> None:
    plane, platform = operator.plane(), operator.platform()
    soak = Soak(plane, lambda line: None)
    with Crowd(platform) as crowd:
        soak.run(SEED, 60.0)
    assert crowd.failures == [], soak.done
    assert crowd.sessions >= 2
    found = reckoning(platform, plane, crowd.orders)
    assert found.good, (found, soak.done)
