"""Reshards, failovers, kills and backups at once for a minute; `make soak` does it for ten.

SOAK_SEED=n brings the disturbances of another seed.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from itertools import islice, pairwise
from pathlib import Path

import certifi
import pytest

from tests.system import session, tour
from tests.system.conftest import Operator
from tests.system.session import Platform
from tests.system.soak import DISTURBANCES, SHARDS, Soak, script
from tests.system.tour import Crowd, reckoning

SEED = 4
SECONDS = 60.0


def test_a_seed_fixes_the_disturbances_and_every_round_changes_the_count_of_shards() -> None:
    rounds = list(islice(script(SEED), 50))
    assert rounds == list(islice(script(SEED), 50))
    counts = [2, *(each.shards for each in rounds)]
    assert all(before != after for before, after in pairwise(counts))
    assert set(counts) == set(SHARDS)
    first = [one.kind for each in rounds for one in each.disturbances][: len(DISTURBANCES)]
    assert sorted(first) == sorted(DISTURBANCES)


def test_a_customer_who_is_never_answered_is_left_alone_and_his_place_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tour, "VISIT_SECONDS", 0.2)
    monkeypatch.setattr(session, "PATIENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(20)
        where = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with Crowd(Platform(where, Path(certifi.where()), where), 1) as crowd:
            connected, _ = deaf.accept()
    connected.close()
    (thread,) = crowd.threads
    thread.join(20)
    assert not thread.is_alive()
    assert crowd.failures[0].startswith("a visit did not end in 0.2 s: session > register")


@pytest.mark.process
@pytest.mark.alone
def test_nothing_is_lost_while_slots_move_and_everything_else_is_disturbed(
    operator: Operator,
) -> None:
    seed = int(os.environ.get("SOAK_SEED", SEED))
    began = time.monotonic()
    platform, plane = operator.platform(), operator.plane()
    print(f"SOAK_SEED={seed}")
    run = Soak(plane, lambda line: print(f"{time.monotonic() - began:6.1f} s  {line}"))
    with closing(plane.http):
        with Crowd(platform) as crowd:
            run.run(seed, SECONDS)
        found = reckoning(platform, plane, crowd.orders)
    assert time.monotonic() - began >= SECONDS
    assert crowd.failures == [], f"seed {seed}"
    assert crowd.sessions > 0, f"seed {seed}"
    assert found.good, f"seed {seed}: {found}"
