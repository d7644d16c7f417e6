"""The links between two regions: their distance, their faults, what a lost region takes along."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infra.local import breaking, fencing, layout, links, relay
from infra.local.layout import Layout
from infra.local.ports import table
from infra.local.site import Site
from infra.local.supervisor import Supervisor
from infra.provider import Fault
from infra.topology import load
from runtime.errors import OperationFailed

TOPOLOGY = load("two-regions")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A platform of which only the link tables exist."""
    paths = Layout(tmp_path)
    made = Site(
        TOPOLOGY, paths, table(TOPOLOGY, 41_000), layout.read_secrets(paths), None, Path("/bin")
    )
    for region in TOPOLOGY.regions:
        layout.make_folder(paths.etc(region.name))
        routes = links.routes(made, region.name)
        relay.write_table(paths.link_table(region.name), routes)
    return made


def routes(site: Site, region: str) -> tuple[relay.Route, ...]:
    return relay.read_table(site.layout.link_table(region))


def test_every_link_has_the_distance_that_the_topology_gives_it_also_after_a_fault(
    site: Site,
) -> None:
    seconds = TOPOLOGY.inter_region_latency_milliseconds / 1000
    assert seconds > 0
    breaking.trouble_links(site, Fault("slow-link", "us-east-1/us-west-2", 9.0, 0.5), on=True)
    for region in TOPOLOGY.regions:
        for route in routes(site, region.name):
            assert (route.latency_seconds, route.delay_seconds) == (seconds, 0.5)
            assert route.expires_at is not None
            healed = route.at(route.expires_at)
            assert (healed.latency_seconds, healed.delay_seconds) == (seconds, 0.0)


async def test_a_region_is_cut_off_before_it_is_killed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has sent and nobody has received must not arrive while it dies."""
    seen: list[bool] = []

    async def pid(_: Supervisor) -> None:
        seen.extend(
            route.cut for name in ("us-east-1", "us-west-2") for route in routes(site, name)
        )

    async def nobody(*_: object) -> list[int]:
        return []

    monkeypatch.setattr(Supervisor, "pid", pid)
    monkeypatch.setattr(fencing, "pids_of", nobody)
    await breaking.inject(site, Fault("kill-region", "us-east-1"))
    assert seen
    assert all(seen)


async def test_a_program_that_takes_too_long_is_ended_and_named_with_the_log(site: Site) -> None:
    instance = "s1.us-east-1a"
    with pytest.raises(OperationFailed, match=r"sleep for s1.us-east-1a did not end") as caught:
        await site.run("sleep", "60", instance=instance, seconds=0.05)
    assert caught.value.extra["log"] == str(site.log(instance))


def test_a_link_takes_on_the_nodes_of_a_new_shard_and_leaves_the_others_as_they_are(
    site: Site,
) -> None:
    breaking.trouble_links(site, Fault("cut-link", "us-east-1/us-west-2", 9.0), on=True)
    before = routes(site, "us-west-2")
    grown = TOPOLOGY.with_shards(3)
    bigger = replace(site, topology=grown, ports=table(grown, 41_000))
    links.write(bigger, "us-west-2")
    after = routes(site, "us-west-2")
    assert after[: len(before)] == before
    assert [route.target[1] for route in after[len(before) :]] == [
        bigger.port("s3.us-east-1a"),
        bigger.port("s3.us-east-1b"),
    ]
    assert all(route.cut and route.expires_at == before[0].expires_at for route in after)
    links.write(site, "us-west-2")
    assert routes(site, "us-west-2") == before
