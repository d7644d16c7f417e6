"""Situations in which each plan is made, so that a test can interrupt every step of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from infra.provider import Fault
from tests.control_plane.platform import Platform

Prepare = Callable[[Platform], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """`prepare` brings about the situation in which `verb` is planned with `asked`."""

    verb: str
    prepare: Prepare
    asked: dict[str, Any] = field(default_factory=dict)


async def nothing(platform: Platform) -> None:
    """An empty machine."""


async def provisioned(platform: Platform) -> None:
    await platform.run("provision")
    for database in platform.topology.databases:
        assert platform.provider.write(database, f"{database}-first")


async def rebooted(platform: Platform) -> None:
    await provisioned(platform)
    for region in platform.topology.regions:
        await platform.provider.inject(Fault("kill-region", region.name))
    platform.provider.servers.clear()
    platform.provider.route = None


async def primary_lost(platform: Platform) -> None:
    await provisioned(platform)
    await platform.provider.inject(Fault("kill", "s1.us-east-1a"))


async def primary_frozen(platform: Platform) -> None:
    await provisioned(platform)
    await platform.provider.inject(Fault("freeze", "catalog.us-east-1a"))


async def standby_lost(platform: Platform) -> None:
    await provisioned(platform)
    await platform.provider.inject(Fault("kill", "s1.us-east-1b"))


async def failed_over(platform: Platform) -> None:
    await primary_lost(platform)
    platform.provider.nodes["s1.us-east-1a"].wal.append("never acknowledged")
    await platform.run("failover", target="s1")


async def region_lost(platform: Platform) -> None:
    await provisioned(platform)
    await platform.provider.inject(Fault("kill-region", "us-east-1"))


async def away(platform: Platform) -> None:
    await region_lost(platform)
    await platform.run("failover", **LOSS)
    assert platform.provider.write("s1", "written away")


async def queue_lost(platform: Platform) -> None:
    await provisioned(platform)
    platform.provider.servers["queue.us-east-1a"] = False


async def stores_lost(platform: Platform) -> None:
    """Object stores and stand-ins are down; what clients ask for is not."""
    await provisioned(platform)
    stores = [spec.id for spec in platform.topology.instances(kind="objects")]
    stand_ins = [spec.id for spec in platform.topology.instances(kind="peer")]
    await platform.provider.ensure_stopped([*stores, *stand_ins])


LOSS = {"target": "us-east-1", "accept_data_loss": True, "reason": "drill"}

SCENARIOS: dict[str, Scenario] = {
    "first-up": Scenario("provision", nothing),
    "up-after-reboot": Scenario("provision", rebooted),
    "up-after-lost-standby": Scenario("provision", standby_lost),
    "up-after-lost-stores": Scenario("provision", stores_lost),
    "decommission": Scenario("decommission", provisioned),
    "database-failover": Scenario("failover", primary_lost, {"target": "s1"}),
    "frozen-database-failover": Scenario("failover", primary_frozen, {"target": "catalog"}),
    "region-failover": Scenario("failover", region_lost, LOSS),
    "queue-failover": Scenario("queue-failover", queue_lost, {"region": "us-east-1"}),
    "relax-sync": Scenario("relax-sync", standby_lost, {"database": "s1"}),
    "rejoin": Scenario("rejoin", failed_over, {"database": "s1"}),
    "switchover": Scenario("switchover", provisioned, {"target": "s2"}),
    "region-switchover": Scenario("switchover", provisioned, {"to": "us-west-2"}),
    "failback": Scenario("failback", away),
}
