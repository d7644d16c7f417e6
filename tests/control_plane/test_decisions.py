"""What the sentinel makes of its probes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.budget import failed_between
from control_plane.decisions import (
    FREEZE_SECONDS,
    MOST_BACKLOG_BYTES,
    MOST_REPLICA_LAG_BYTES,
    NEAR_BYTES,
    Health,
    Load,
    PastFailover,
    Probe,
    Tries,
    due_finish,
    health,
    map_is_behind,
    not_now,
    quiet_until,
    repairs,
    throttle,
    urgent,
)
from control_plane.plans import PLANNERS
from control_plane.sentinel import Sentinel
from infra.provider import Fault, Observed, Signals
from tests.control_plane.platform import Platform

REFUSED = Signals("refused", "refused")
SILENT = Signals("ok", "timeout")
OK = Signals("ok", "ok")


def series(*signals: Signals, every: float = 0.1) -> list[Probe]:
    return [Probe(i * every, i * every + 0.01, each) for i, each in enumerate(signals)]


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ([], "doubtful"),
        (series(OK), "healthy"),
        (series(REFUSED), "doubtful"),
        (series(OK, REFUSED), "doubtful"),
        (series(OK, REFUSED, REFUSED), "lost"),
        (series(REFUSED, REFUSED, OK), "healthy"),
        (series(Signals("ok", "refused"), Signals("ok", "refused")), "doubtful"),
        (series(SILENT, SILENT), "doubtful"),
        (series(SILENT, SILENT, SILENT, every=FREEZE_SECONDS), "frozen"),
        (series(OK, SILENT, every=5.0), "doubtful"),
    ],
)
def test_two_signals_or_a_long_silence_make_a_verdict(
    probes: list[Probe], expected: Health
) -> None:
    assert health(probes) == expected


@given(st.lists(st.sampled_from([OK, REFUSED, SILENT, Signals("refused", "timeout")])))
def test_a_server_whose_last_query_was_answered_is_never_declared_gone(
    signals: list[Signals],
) -> None:
    assert health(series(*signals, OK, every=1.0)) == "healthy"


async def test_a_lost_primary_with_a_standby_in_sync_is_failed_over(platform: Platform) -> None:
    shard_map, now = await platform.map(), platform.clock.now()
    verdicts: dict[str, Health] = {"s1.us-east-1a": "lost", "s1.us-east-1b": "healthy"}
    intents = urgent(platform.topology, shard_map, verdicts, [], now)
    assert [(intent.verb, intent.target) for intent in intents] == [("failover", "s1")]


async def test_without_a_healthy_standby_in_sync_nothing_is_promoted(platform: Platform) -> None:
    shard_map, now = await platform.map(), platform.clock.now()
    for verdict in ("lost", "frozen", "doubtful"):
        verdicts: dict[str, Health] = {"s1.us-east-1a": "lost", "s1.us-east-1b": verdict}
        assert urgent(platform.topology, shard_map, verdicts, [], now) == []
    unsynced = shard_map.with_sync("s1", ())
    verdicts = {"s1.us-east-1a": "lost", "s1.us-east-1b": "healthy"}
    assert urgent(platform.topology, unsynced, verdicts, [], now) == []


async def test_a_second_failover_waits_for_the_quiet_period_or_a_person(
    platform: Platform,
) -> None:
    shard_map, now = await platform.map(), platform.clock.now()
    verdicts: dict[str, Health] = {"s1.us-east-1a": "lost", "s1.us-east-1b": "healthy"}
    past = PastFailover("s1", now - timedelta(seconds=10), acknowledged=False)
    assert urgent(platform.topology, shard_map, verdicts, [past], now) == []
    assert quiet_until(platform.topology, [past], "s1") == past.at + timedelta(seconds=3600)
    seen = PastFailover("s1", past.at, acknowledged=True)
    assert urgent(platform.topology, shard_map, verdicts, [seen], now) != []
    other = PastFailover("s2", past.at, acknowledged=False)
    assert urgent(platform.topology, shard_map, verdicts, [other], now) != []


async def test_commits_stop_waiting_for_a_lost_standby(platform: Platform) -> None:
    shard_map, now = await platform.map(), platform.clock.now()
    verdicts: dict[str, Health] = {"s1.us-east-1a": "healthy", "s1.us-east-1b": "lost"}
    intents = urgent(platform.topology, shard_map, verdicts, [], now)
    assert [(intent.verb, intent.target) for intent in intents] == [("relax-sync", "s1")]


async def test_the_end_of_anything_but_databases_and_queues_is_the_supervisors_business(
    platform: Platform,
) -> None:
    shard_map = await platform.map()
    others = [
        spec.id
        for spec in platform.topology.instances()
        if spec.kind != "postgres" and spec.component != "queue"
    ]
    assert {"payment-gateway", "mailbox", "objects.us-east-1a", "edge"} < set(others)
    verdicts: dict[str, Health] = dict.fromkeys(others, "lost")
    assert urgent(platform.topology, shard_map, verdicts, [], platform.clock.now()) == []
    for id in others:
        if id in platform.provider.servers:
            platform.provider.servers[id] = False
    observed = await platform.provider.observe()
    assert repairs(platform.topology, observed, shard_map) == []


async def test_nodes_that_can_start_are_led_back_and_those_that_cannot_are_left(
    platform: Platform,
) -> None:
    await platform.provider.inject(Fault("kill-zone", "us-east-1b"))
    observed = await platform.provider.observe()
    assert repairs(platform.topology, observed, await platform.map()) == []
    await platform.provider.heal(Fault("kill-zone", "us-east-1b"))
    observed = await platform.provider.observe()
    intents = repairs(platform.topology, observed, await platform.map())
    assert [intent.target for intent in intents] == ["s1", "s2", "catalog"]


async def test_commits_do_not_wait_for_ever_for_a_standby_that_is_gone_and_not_recorded(
    platform: Platform,
) -> None:
    await platform.store.update_map(lambda known: known.with_sync("s1", ()), "a join that failed")
    shard_map = await platform.map()
    observed = await platform.provider.observe()
    verbs = [intent.verb for intent in repairs(platform.topology, observed, shard_map)]
    assert verbs == ["rejoin"]
    await platform.provider.inject(Fault("kill-zone", "us-east-1b"))
    observed = await platform.provider.observe()
    intents = repairs(platform.topology, observed, shard_map)
    assert [(intent.verb, intent.target) for intent in intents] == [("relax-sync", "s1")]
    await platform.run("relax-sync", database="s1")
    assert platform.provider.write("s1", "goes on")


async def test_a_region_that_missed_a_map_gets_it_later(platform: Platform) -> None:
    platform.provider.unreachable.add("us-east-1")
    missed = await platform.store.update_map(lambda known: known.with_sync("s1", ()), "missed")
    await platform.provider.publish_map(missed)
    assert not map_is_behind(await platform.provider.observe(), missed)
    platform.provider.unreachable.clear()
    assert map_is_behind(await platform.provider.observe(), missed)
    sentinel = Sentinel(platform.provider, platform.store, platform.clock)
    await sentinel._repair_once()
    assert {known.version for known in platform.provider.maps.values()} == {missed.version}


def test_a_repair_that_goes_on_failing_is_tried_ever_more_rarely() -> None:
    tries, now, waits = Tries(0, 0.0), 0.0, []
    for _ in range(8):
        tries = tries.again(now)
        waits.append(tries.next_at - now)
        now = tries.next_at
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_standby_that_stayed_on_an_older_timeline_is_led_back(platform: Platform) -> None:
    """It connects to its primary for ever and gets nothing, so the connection proves nothing."""
    observed = await _as_it_is(platform, "s1.us-west-2a")
    intents = repairs(platform.topology, observed, await platform.map())
    assert [(intent.verb, intent.target) for intent in intents] == [("rejoin", "s1")]
    plan = PLANNERS["rejoin"](platform.topology, observed, await platform.map(), **intents[0].asked)
    assert plan.steps[0].args["standbys"][0]["instance"] == "s1.us-west-2a"


async def _as_it_is(platform: Platform, node: str) -> Observed:
    """The world with a node whose timeline replication has not brought up to date."""
    observed = await platform.provider.observe()
    view = observed.instances[node]
    assert view.postgres is not None
    assert view.postgres.timeline is not None
    stuck = replace(view, postgres=replace(view.postgres, timeline=view.postgres.timeline - 1))
    return replace(observed, instances={**observed.instances, node: stuck})


@pytest.mark.parametrize(
    ("load", "held", "waits"),
    [
        (Load(), False, False),
        (Load(MOST_REPLICA_LAG_BYTES + 1, 0), False, True),
        (Load(MOST_REPLICA_LAG_BYTES // 2 + 1, 0), False, False),
        (Load(MOST_REPLICA_LAG_BYTES // 2 + 1, 0), True, True),
        (Load(MOST_REPLICA_LAG_BYTES // 2, 0), True, False),
        (Load(0, 0, 0.9), False, False),
        (Load(0, 0, 1.1), False, True),
        (Load(MOST_REPLICA_LAG_BYTES * 2, MOST_BACKLOG_BYTES + 1, 50.0), True, False),
    ],
)
def test_moving_slots_waits_for_replicas_and_customers_but_not_for_ever(
    load: Load, held: bool, waits: bool
) -> None:
    assert (throttle(load, held=held, error_rate_percent=1.0) is not None) == waits


BYTES = st.integers(0, 2 * NEAR_BYTES) | st.integers(0, 2**32)


@given(BYTES, BYTES, st.none() | st.floats(0, 100), st.none() | BYTES)
def test_what_holds_a_copy_also_keeps_slots_from_being_handed_over(
    lag: int, backlog: int, failed: float | None, taker: int | None
) -> None:
    load = Load(lag, backlog, failed, taker)
    near = not_now(load, error_rate_percent=1.0) is None
    assert near == (
        backlog <= NEAR_BYTES
        and taker is not None
        and taker <= NEAR_BYTES
        and throttle(load, held=True, error_rate_percent=1.0) is None
    )


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        (None, (100, 1), None),
        ((100, 1), None, None),
        ((100, 1), (110, 1), None),
        ((100, 1), (200, 6), 5.0),
        ((100, 10), (30, 0), None),
    ],
)
def test_the_share_that_fails_is_known_only_from_enough_answers(
    before: tuple[int, int] | None, after: tuple[int, int] | None, percent: float | None
) -> None:
    assert failed_between(before, after) == percent


async def test_the_sentinel_finishes_a_reshard_when_the_last_soak_is_over(
    platform: Platform,
) -> None:
    await platform.run("reshard", to=3, batch=256, soak=60)
    assert due_finish(await platform.map(), platform.clock.now()) == []
    sentinel = Sentinel(platform.provider, platform.store, platform.clock)
    await sentinel._repair_once()
    assert await platform.store.operations() == []
    platform.clock.advance(61)
    await sentinel._repair_once()
    (operation,) = await platform.store.operations()
    assert (operation.kind, operation.requested_by) == ("reshard-finish", "sentinel")
    reopened = await platform.map()
    for move in reopened.moves:
        reopened = reopened.with_move(replace(move, soak_until=None))
    assert due_finish(reopened, platform.clock.now()) == []
