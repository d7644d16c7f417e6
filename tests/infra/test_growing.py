"""A platform that runs takes on one more shard, and lets it go, beside the others' traffic."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import layout, leftovers, ports
from infra.local.provider import LocalProvider
from infra.topology import BUILT_IN, load
from runtime.clock import SystemClock, wait_until
from runtime.errors import Invalid
from tests.infra.platform import first_map
from tests.ports import free_offset

DOCUMENT = re.sub(
    r"services: \[.*\]", "services: [orders]", (BUILT_IN / "two-regions.yaml").read_text()
)


def make(root: Path, offset: int = 0) -> None:
    layout.create(root, topology="two-regions", document=DOCUMENT, port_offset=offset)


def provider_of(root: Path) -> LocalProvider:
    """What a control plane that was started now would work with."""
    return LocalProvider(load(str(root / "topology.yaml")), root)


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="regionctl-test-"))
    folder.chmod(0o711)
    state = folder / "state"
    try:
        yield state
    finally:
        leftovers.end(state)
        shutil.rmtree(folder)


async def test_a_topology_on_record_changes_its_shards_and_nothing_else(root: Path) -> None:
    make(root, free_offset())
    before = provider_of(root)
    await before.set_shards(4)
    after = provider_of(root)
    assert after.topology == before.topology.with_shards(4)
    assert len(before.topology.shards) == 2
    assert {id: after.site.port(id) for id in before.site.ports.instances} == (
        before.site.ports.instances
    )
    for count in (0, 65):
        with pytest.raises(Invalid):
            await before.set_shards(count)
    assert len(provider_of(root).topology.shards) == 4


async def test_a_new_shard_needs_ports_that_are_free(root: Path) -> None:
    make(root, free_offset())
    before = provider_of(root)
    port = ports.table(before.topology.with_shards(3), before.site.ports.control - ports.BASE)
    server = await asyncio.start_server(
        lambda reader, writer: writer.close(), ports.HOST, port.instances["s3.us-east-1a"]
    )
    async with server:
        with pytest.raises(ports.PortTaken, match=r"s3\.us-east-1a"):
            await before.set_shards(3)
    assert len(provider_of(root).topology.shards) == 2


async def redundant(provider: LocalProvider, shard: str) -> None:
    """The shard has its primary, its standby in sync, and its replica behind the link."""
    primary, standby, replica = (f"{shard}.{where}" for where in NODES)
    shard_map = first_map(provider)
    await provider.create_primary(primary)
    await provider.set_epoch(primary, shard_map, shard)
    await provider.clone(standby, primary)
    await provider.clone(replica, primary)
    await provider.set_sync(primary, [standby])


async def senders(provider: LocalProvider, instance: str) -> dict[str, int]:
    """Who streams from `instance`, and by which process there: a cut connection gets another."""
    query = "SELECT application_name, pid FROM pg_stat_replication"
    async with provider.monitor.session(instance) as session:
        return dict(await session.fetch(query))


LINKS = ("link.us-east-1", "link.us-west-2")
NODES = ("us-east-1a", "us-east-1b", "us-west-2a")


@pytest.mark.process
async def test_a_running_platform_gets_one_more_shard_and_loses_it_again(root: Path) -> None:
    make(root, free_offset())
    old = provider_of(root)
    for region in old.topology.regions:
        await old.ensure_region(region.name)
    await old.ensure_running(LINKS)
    await redundant(old, "s1")
    await old.create_primary("s2.us-east-1a")
    streams = await senders(old, "s1.us-east-1a")
    assert set(streams) == {"s1.us-east-1b", "s1.us-west-2a"}
    await old.set_shards(3)
    await old.close()

    grown = provider_of(root)
    for _ in range(2):
        await redundant(grown, "s3")
        for region in grown.topology.regions:
            await grown.ensure_region(region.name)
        await grown.ensure_running(LINKS)
    observed = await grown.observe(
        [f"{shard}.{where}" for shard in ("s1", "s3") for where in NODES]
    )
    for shard in ("s1", "s3"):
        view = observed.postgres(f"{shard}.us-east-1a")
        assert view is not None
        assert {each.instance for each in view.followers if each.streaming} == {
            f"{shard}.us-east-1b",
            f"{shard}.us-west-2a",
        }
        assert [each.instance for each in view.followers if each.sync] == [f"{shard}.us-east-1b"]
    assert await senders(grown, "s1.us-east-1a") == streams
    await grown.set_shards(2)
    await grown.close()

    shrunk = provider_of(root)
    for region in shrunk.topology.regions:
        await shrunk.ensure_region(region.name)
    for region in shrunk.topology.regions:
        known = await shrunk.site.supervisors[region.name].info()
        assert not [name for name in known if name.startswith("s3.")]
        data = shrunk.site.layout.data(region.name, "")
        assert not [each for each in data.glob("s3.*") if not each.name.endswith(".removed")]

    async def free() -> bool:
        freed = set(grown.site.ports.all()) - set(shrunk.site.ports.all())
        return all(ports.holder(port) is None for port in freed)

    await wait_until(SystemClock(), free, what="every port of the shard to be free", seconds=30)
    assert await senders(shrunk, "s1.us-east-1a") == streams
    await shrunk.close()
