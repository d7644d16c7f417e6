"""One small platform, in memory or of real processes, made by the provider's own verbs."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from infra.local import layout, leftovers, valkey
from infra.local.provider import LocalProvider
from infra.memory import MemoryProvider
from infra.provider import Provider
from infra.topology import Topology, load
from runtime.shardmap import Shard, ShardMap, even_ranges
from tests.ports import free_offset

PRIMARY, SYNC, REMOTE = "s1.us-east-1a", "s1.us-east-1b", "s1.us-west-2a"
QUEUE, QUEUE_REPLICA = "queue.us-east-1a", "queue.us-east-1b"
CACHE, OBJECTS, PEER = "cache.us-east-1a", "objects.us-east-1a", "payment-gateway"
PAYING = ("orders", "payments")
SERVERS = (
    *("link.us-east-1", "link.us-west-2", QUEUE, QUEUE_REPLICA, CACHE, OBJECTS, PEER),
    *("gateway.us-west-2a", "edge"),
)


def small_topology(services: Sequence[str]) -> Topology:
    """One shard. Payments needs object stores and a stand-in, which take seconds to start."""
    return replace(load("two-regions"), shards=("s1",), services=tuple(services))


def first_map(provider: Provider, version: int = 1) -> ShardMap:
    """Every database at home in us-east-1 under epoch 1."""
    topology = provider.topology
    shards = {}
    for name in topology.databases:
        primary, *others = (provider.endpoint(spec.id) for spec in topology.database_nodes(name))
        shards[name] = Shard(name, 1, "us-east-1", primary, tuple(others), (others[0].instance,))
    return ShardMap(version, even_ranges(topology.shards, 1), shards, {})


def present(provider: Provider) -> list[str]:
    """The servers without data that the platform has."""
    return [id for id in SERVERS if id in provider.topology.by_id]


async def provision(provider: Provider) -> None:
    """Two regions with one shard: a primary, its synchronous standby, its remote replica."""
    for region in provider.topology.regions:
        await provider.ensure_region(region.name)
    await provider.ensure_running(present(provider))
    await provider.create_primary(PRIMARY)
    await provider.publish_map(first_map(provider))
    await provider.set_epoch(PRIMARY, first_map(provider), "s1")
    await asyncio.gather(provider.clone(SYNC, PRIMARY), provider.clone(REMOTE, PRIMARY))
    await provider.set_sync(PRIMARY, [SYNC])


async def set_aside(provider: Provider, region: str, group: str) -> None:
    """A consumer of `group` in the region gives up on event 7, as `runtime.streams` does it."""
    if isinstance(provider, MemoryProvider):
        dead = provider.dead.setdefault(region, {})
        id = f"{1000 + len(dead)}-0"
        dead[id] = {"id": id, "event": "7", "kind": "OrderCreated", "group": group}
        return
    assert isinstance(provider, LocalProvider)
    fields = ("id", "7", "kind", "OrderCreated", "payload", '{"order_id": 7}', "group", group)
    why = ("reason", "delivered too often", "entry", "1-1")
    await valkey.command(provider.site, QUEUE, "XADD", "events.dead", "*", *fields, *why)


async def ask(provider: Provider) -> None:
    """A client asks the platform for something, and takes whatever it gets."""
    if isinstance(provider, MemoryProvider):
        provider.write("s1", "asked")
        return
    async with httpx.AsyncClient(verify=False, trust_env=False) as client:
        await client.get(f"{provider.entry_url()}/api/v1/products/1")


class World:
    """A platform and a way to use it: each `run` is an event loop of its own."""

    def __init__(self, make: Callable[[], Provider]) -> None:
        self.provider = make()

    def run(self, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            try:
                return await work(self.provider)
            finally:
                if isinstance(self.provider, LocalProvider):
                    await self.provider.close()

        return asyncio.run(main())


@contextmanager
def in_memory() -> Iterator[World]:
    yield World(lambda: MemoryProvider(small_topology(PAYING)))


@contextmanager
def on_this_machine(services: Sequence[str] = ("orders",)) -> Iterator[World]:
    """Real servers in a fresh folder that the database user can reach; all ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="regionctl-test-"))
    folder.chmod(0o711)
    root = folder / "state"
    topology = small_topology(services)
    try:
        layout.create(root, topology=topology.name, document="", port_offset=free_offset())
        yield World(lambda: LocalProvider(topology, root))
    finally:
        leftovers.end(root)
        shutil.rmtree(folder)


@contextmanager
def on_emulators() -> Iterator[World]:
    """AWS as two emulators play it, and a PostgreSQL that stands for the volumes of Aurora."""
    from infra.aws.clients import Cloud
    from infra.aws.provider import AwsProvider
    from tests.infra.aws import emulators, volume

    with (
        tempfile.TemporaryDirectory(prefix="regionctl-test-") as folder,
        emulators.keys(),
        emulators.running(Path(folder)) as aws,
        volume.running(["s1"]) as servers,
    ):
        cloud = Cloud(aws.endpoints(), pause=emulators.PAUSE)
        site = emulators.site(cloud, "contract", remote=("a",))
        emulators.build(site)
        sessions = volume.attach(site, servers)
        yield World(lambda: AwsProvider(site.topology, cloud, sessions))


async def streaming(provider: Provider, upstream: str, *names: str) -> bool:
    """Whether exactly these standbys come to stream from `upstream` within twenty seconds."""
    for _ in range(400):
        view = (await provider.observe([upstream])).postgres(upstream)
        assert view is not None
        if {each.instance for each in view.followers if each.streaming} == set(names):
            return True
        await asyncio.sleep(0.05)
    return False
