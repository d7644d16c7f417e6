"""What every provider promises, shown by the memory provider and by real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from infra.provider import Fault, Provider
from infra.traffic import Traffic
from runtime.clock import SystemClock, wait_until
from runtime.errors import Invalid, NotFound, Unavailable
from tests.infra import platform
from tests.infra.aws import not_on_aws
from tests.infra.platform import (
    CACHE,
    OBJECTS,
    PEER,
    PRIMARY,
    QUEUE,
    QUEUE_REPLICA,
    REMOTE,
    SYNC,
    World,
    first_map,
    streaming,
)

EDGE, GATEWAY = "edge", "gateway.us-west-2a"
KINDS = [
    pytest.param(platform.in_memory, id="memory"),
    pytest.param(
        partial(platform.on_this_machine, platform.PAYING), id="local", marks=pytest.mark.process
    ),
    pytest.param(platform.on_emulators, id="aws", marks=pytest.mark.process),
]


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One platform for all tests of a provider: each leaves it as it found it."""
    with request.param() as made:
        made.run(platform.provision)
        yield made


@pytest.fixture(autouse=True)
def _possible(request: pytest.FixtureRequest, world: World) -> None:
    """Skips what AWS cannot do, with the reason that its provider gives."""
    reason = not_on_aws.REASONS.get(request.node.originalname)
    if reason is not None and request.node.callspec.params["world"] is platform.on_emulators:
        pytest.skip(reason)


def test_a_fresh_platform_is_seen_as_it_was_made(world: World) -> None:
    async def check(provider: Provider) -> None:
        assert await streaming(provider, PRIMARY, SYNC, REMOTE)
        observed = await provider.observe()
        assert not observed.unreachable
        primary, standby = observed.postgres(PRIMARY), observed.postgres(SYNC)
        assert primary is not None
        assert standby is not None
        assert (primary.role, primary.sync_names, primary.epoch) == ("primary", (SYNC,), 1)
        assert [each.instance for each in primary.followers if each.sync] == [SYNC]
        assert (standby.role, standby.upstream, standby.sync_names) == ("standby", PRIMARY, ())
        assert all(observed.running(id) for id in platform.present(provider))
        # Nobody asked for the catalog; Pulumi makes everything at once.
        made = "running" if provider.topology.aws else "absent"
        assert observed.state("catalog.us-east-1a") == made
        assert observed.map_versions == {"us-east-1": 1, "us-west-2": 1}
        queue = observed.instances[QUEUE_REPLICA].valkey
        assert queue is not None
        assert (queue.role, queue.upstream) == ("replica", QUEUE)

    world.run(check)


def test_every_verb_of_provisioning_may_be_repeated(world: World) -> None:
    async def check(provider: Provider) -> None:
        before = await provider.observe()
        await platform.provision(provider)
        after = await provider.observe()
        assert {id: view.pid for id, view in before.instances.items()} == {
            id: view.pid for id, view in after.instances.items()
        }

    world.run(check)


def test_only_what_was_asked_for_is_observed(world: World) -> None:
    async def check(provider: Provider) -> None:
        assert set((await provider.observe([SYNC])).instances) == {SYNC}

    world.run(check)


def test_an_older_map_never_replaces_a_newer_one(world: World) -> None:
    async def check(provider: Provider) -> None:
        await provider.publish_map(first_map(provider, version=5))
        await provider.publish_map(first_map(provider, version=4))
        assert set((await provider.observe()).map_versions.values()) == {5}

    world.run(check)


def test_an_epoch_never_falls(world: World) -> None:
    async def check(provider: Provider) -> None:
        newer = first_map(provider).with_primary(
            "s1", provider.endpoint(PRIMARY), home="us-east-1", sync=[SYNC]
        )
        await provider.set_epoch(PRIMARY, newer, "s1")
        await provider.set_epoch(PRIMARY, first_map(provider), "s1")
        view = (await provider.observe([PRIMARY])).postgres(PRIMARY)
        assert view is not None
        assert view.epoch == newer.shards["s1"].epoch > 1

    world.run(check)


def test_the_route_opens_and_closes(world: World) -> None:
    async def check(provider: Provider) -> None:
        for _ in range(2):
            await provider.open_route("us-west-2")
            assert (await provider.observe()).route == "us-west-2"
        for _ in range(2):
            await provider.close_route()
            assert (await provider.observe()).route is None

    world.run(check)


def test_front_doors_count_what_clients_ask_and_how_long_it_took(world: World) -> None:
    async def check(provider: Provider) -> None:
        await provider.open_route("us-west-2")
        before = await provider.traffic()
        assert set(before) == {EDGE, GATEWAY}
        await platform.ask(provider)

        async def counted() -> bool:
            now = await provider.traffic()
            asked = all(now[id].requests > before[id].requests for id in before)
            return asked and _timed(now[EDGE]) > _timed(before[EDGE])

        await wait_until(SystemClock(), counted, what="the request to be counted", seconds=15)
        for each in (await provider.traffic()).values():
            assert each.errors <= each.requests
            counts = [count for _, count in each.buckets]
            assert counts == sorted(counts)
            assert [bound for bound, _ in each.buckets] == sorted({b for b, _ in each.buckets})
        await provider.close_route()

    world.run(check)


def _timed(traffic: Traffic) -> int:
    return traffic.buckets[-1][1] if traffic.buckets else 0


def test_a_front_door_that_was_started_again_counts_anew(world: World) -> None:
    async def check(provider: Provider) -> None:
        await provider.open_route("us-west-2")
        await platform.ask(provider)
        await provider.inject(Fault("kill", GATEWAY))

        async def anew() -> bool:
            found = (await provider.traffic()).get(GATEWAY)
            return found is not None and found.requests == 0

        await wait_until(SystemClock(), anew, what=f"{GATEWAY} to count anew", seconds=15)
        await provider.close_route()

    world.run(check)


def test_a_frozen_primary_is_silent_until_it_is_healed(world: World) -> None:
    async def check(provider: Provider) -> None:
        fault = Fault("freeze", PRIMARY, expires_seconds=30)
        injected = await provider.inject(fault)
        assert injected.began_monotonic <= injected.effective_monotonic
        assert (await provider.probe(PRIMARY, 0.3)).sql == "timeout"
        assert (await provider.observe([PRIMARY])).state(PRIMARY) == "frozen"
        await provider.heal(fault)
        await provider.heal(fault)
        assert (await provider.probe(PRIMARY, 1.0)).sql == "ok"
        assert await streaming(provider, PRIMARY, SYNC, REMOTE)

    world.run(check)


async def _hand_over(provider: Provider, old: str, new: str) -> None:
    """The rest of a failover to `new`: everybody follows it, and `old` is its sync standby."""
    await provider.follow(REMOTE, new)
    assert await streaming(provider, new, old, REMOTE)
    await provider.set_sync(new, [old])


async def _switch_over(provider: Provider, old: str, new: str) -> None:
    final = await provider.stop_database(old)
    assert await provider.stop_database(old) == final
    view = (await provider.observe([new])).postgres(new)
    assert view is not None
    assert view.position is not None
    assert view.position >= final
    await provider.promote(new)
    await provider.follow(old, new)
    await _hand_over(provider, old, new)


def test_a_stopped_primary_follows_the_standby_that_got_everything(world: World) -> None:
    async def check(provider: Provider) -> None:
        await _switch_over(provider, PRIMARY, SYNC)
        await _switch_over(provider, SYNC, PRIMARY)

    world.run(check)


def test_a_killed_primary_comes_back_as_a_standby_of_the_promoted_one(world: World) -> None:
    async def check(provider: Provider) -> None:
        await provider.inject(Fault("kill", PRIMARY))
        assert (await provider.probe(PRIMARY, 0.5)).sql == "refused"
        assert (await provider.observe([PRIMARY])).state(PRIMARY) == "stopped"
        assert (await provider.fence(PRIMARY)).fenced
        promoted = await provider.promote(SYNC)
        assert promoted["timeline"] > 1
        assert await provider.promote(SYNC) == promoted
        saved = await provider.salvage(PRIMARY, SYNC)
        assert saved.orders == ()
        # Also at the same time, by two operations.
        back = [provider.rewind(PRIMARY, SYNC), provider.rewind(PRIMARY, SYNC)]
        assert {"rewind", "copy"}.issuperset(await asyncio.gather(*back))
        await _hand_over(provider, PRIMARY, SYNC)
        view = (await provider.observe([PRIMARY])).postgres(PRIMARY)
        assert view is not None
        assert (view.role, view.upstream) == ("standby", SYNC)
        await _switch_over(provider, SYNC, PRIMARY)

    world.run(check)


def test_nothing_starts_in_a_zone_that_is_held_down(world: World) -> None:
    async def check(provider: Provider) -> None:
        fault = Fault("kill-zone", "us-east-1b", expires_seconds=60)
        await provider.inject(fault)
        observed = await provider.observe()
        assert "us-east-1b" in observed.unreachable
        assert not observed.running(SYNC)
        assert observed.running(PRIMARY)
        with pytest.raises(Unavailable):
            await provider.start_database(SYNC)
        await provider.set_sync(PRIMARY, [])
        await provider.heal(fault)
        observed = await provider.observe()
        assert not observed.unreachable
        assert observed.running(QUEUE_REPLICA)
        assert observed.state(SYNC) == "stopped"
        await provider.follow(SYNC, PRIMARY)
        await provider.set_sync(PRIMARY, [SYNC])
        assert await streaming(provider, PRIMARY, SYNC, REMOTE)

    world.run(check)


def test_a_cut_link_ends_replication_between_regions_only(world: World) -> None:
    async def check(provider: Provider) -> None:
        fault = Fault("cut-link", "us-east-1/us-west-2", expires_seconds=60)
        await provider.inject(fault)
        assert await streaming(provider, PRIMARY, SYNC)
        await provider.heal(fault)
        assert await streaming(provider, PRIMARY, SYNC, REMOTE)

    world.run(check)


def test_a_promoted_queue_takes_the_writes(world: World) -> None:
    async def check(provider: Provider) -> None:
        for leader, other in ((QUEUE_REPLICA, QUEUE), (QUEUE, QUEUE_REPLICA)):
            await provider.promote_queue(leader)
            await provider.promote_queue(leader)
            observed = await provider.observe([leader, other])
            roles = [_valkey_role(observed.instances[id]) for id in (leader, other)]
            assert roles == ["primary", "replica"]

    world.run(check)


def _valkey_role(view: Any) -> str:
    assert view.valkey is not None
    return str(view.valkey.role)


def test_events_set_aside_are_listed_and_replayed_or_dropped_once(world: World) -> None:
    async def check(provider: Provider) -> None:
        region = "us-east-1"
        assert list(await provider.dead_letters(region)) == []
        for group in ("payments", "orders"):
            await platform.set_aside(provider, region, group)
        first, second = await provider.dead_letters(region)
        assert (first["event"], first["kind"], first["group"]) == ("7", "OrderCreated", "payments")
        assert [await provider.replay_dead(region, [first["id"]]) for _ in range(2)] == [1, 0]
        assert list(await provider.dead_letters(region)) == [second]
        assert [await provider.drop_dead(region, [second["id"]]) for _ in range(2)] == [1, 0]
        assert await provider.drop_dead(region, []) == 0
        assert list(await provider.dead_letters(region)) == []
        assert await provider.event_lag(region) == {}
        with pytest.raises(NotFound):
            await provider.dead_letters("nowhere")

    world.run(check)


def test_a_dropped_queue_has_lost_its_contents_and_goes_on(world: World) -> None:
    async def check(provider: Provider) -> None:
        for target in (QUEUE, QUEUE_REPLICA):
            await platform.set_aside(provider, "us-east-1", "orders")
            await provider.inject(Fault("drop-queue", target))
            assert list(await provider.dead_letters("us-east-1")) == []
            observed = await provider.observe([QUEUE, QUEUE_REPLICA])
            assert observed.running(QUEUE)
            assert observed.running(QUEUE_REPLICA)

    world.run(check)


def test_only_a_cache_can_lose_a_caches_contents(world: World) -> None:
    async def check(provider: Provider) -> None:
        await provider.inject(Fault("drop-cache", CACHE))
        await provider.heal(Fault("drop-cache", CACHE))
        assert (await provider.observe([CACHE])).running(CACHE)
        for kind, target in (("drop-cache", QUEUE), ("drop-queue", CACHE)):
            with pytest.raises(Invalid):
                await provider.inject(Fault(kind, target))  # type: ignore[arg-type]

    world.run(check)


@pytest.mark.parametrize("instance", [OBJECTS, PEER])
def test_a_killed_store_or_stand_in_is_started_again(world: World, instance: str) -> None:
    async def check(provider: Provider) -> None:
        before = (await provider.observe([instance])).instances[instance].pid
        await provider.inject(Fault("kill", instance))

        async def again() -> bool:
            view = (await provider.observe([instance])).instances[instance]
            return view.state == "running" and view.pid != before

        await wait_until(SystemClock(), again, what=f"{instance} to run again", seconds=20)

    world.run(check)


def test_a_service_gets_a_second_instance_and_loses_it_again(world: World) -> None:
    first, second, gateway = "orders.us-west-2a", "orders-2.us-west-2a", "gateway.us-west-2a"

    async def check(provider: Provider) -> None:
        before = provider.topology
        for _ in range(2):
            await provider.set_instances("orders", "us-west-2a", 2)
        observed = await provider.observe([first, second, gateway])
        pids = {id: observed.instances[id].pid for id in (first, second) if observed.running(id)}
        assert observed.targets[gateway]["orders"] == {first, second} == pids.keys()
        used = await provider.usage()
        assert {id: used[id].pid for id in used} == pids
        assert all(each.cpu_seconds >= 0 and each.memory_bytes > 0 for each in used.values())
        for _ in range(2):
            await provider.set_instances("orders", "us-west-2a", 1)
        assert provider.topology == before
        assert (await provider.usage()).keys() == {first}
        observed = await provider.observe([first, gateway])
        assert observed.instances[first].pid == pids[first]
        assert observed.targets[gateway]["orders"] == {first}
        await provider.ensure_stopped([first])

    world.run(check)


def test_a_killed_region_comes_back_empty_and_its_databases_only_as_standbys(world: World) -> None:
    async def check(provider: Provider) -> None:
        await provider.inject(Fault("kill-region", "us-east-1"))
        observed = await provider.observe()
        assert "us-east-1" in observed.unreachable
        assert not any(observed.running(id) for id in (PRIMARY, SYNC, QUEUE, OBJECTS))
        assert observed.running(PEER)
        assert (await provider.fence_region("us-east-1")).fenced
        with pytest.raises(Unavailable):
            await provider.start_database(PRIMARY)
        await provider.promote(REMOTE)
        await provider.ensure_region("us-east-1")
        observed = await provider.observe()
        assert not observed.unreachable
        assert not any(observed.running(id) for id in (PRIMARY, SYNC, QUEUE))
        await provider.ensure_running(["link.us-east-1"])
        for id in (PRIMARY, SYNC):
            await provider.salvage(id, REMOTE)
            await provider.rewind(id, REMOTE)
        assert await streaming(provider, REMOTE, PRIMARY, SYNC)

    world.run(check)
