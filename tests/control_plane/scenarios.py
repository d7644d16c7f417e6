"""Situations in which each plan is made, so that a test can interrupt every step of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
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


async def scaled_region_lost(platform: Platform) -> None:
    """The other region has one instance of orders, the lost one had six."""
    await scaled(platform)
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


async def backed_up(platform: Platform) -> None:
    """Each database has a full backup; s1's is called "s1-first", and writes came after it."""
    await provisioned(platform)
    await platform.run("backup", kind="full")
    backups = platform.provider.backups.backups
    (first,) = [id for id, backup in backups.items() if backup.database == "s1"]
    backups["s1-first"] = replace(backups.pop(first), id="s1-first")
    for number in range(3):
        assert platform.provider.write("s1", f"later {number}")


async def backed_up_twice(platform: Platform) -> None:
    await backed_up(platform)
    await platform.run("backup", kind="full")


async def restored_aside(platform: Platform) -> None:
    await backed_up(platform)
    await platform.run("restore", database="s1", to="new", server="sandbox")


async def database_deleted(platform: Platform) -> None:
    """Primary, standby and replica of a database are gone; its archive has everything."""
    await backed_up(platform)
    await platform.provider.backups.archives()
    for node in platform.topology.database_nodes("s1"):
        del platform.provider.nodes[node.id]


async def used(platform: Platform) -> None:
    """Users in slots of both shards have rows."""
    await provisioned(platform)
    for slot in range(0, 1024, 31):
        assert platform.provider.write_slot(slot, f"order-{slot}")


async def grown(platform: Platform) -> None:
    """Three shards, and the soak is not over."""
    await used(platform)
    await platform.run("reshard", **GROW)
    for slot in range(0, 1024, 31):
        assert platform.provider.write_slot(slot, f"later-{slot}")


async def settled(platform: Platform) -> None:
    """Three shards for good."""
    await grown(platform)
    await platform.run("reshard-finish", early=True)


async def soaked(platform: Platform) -> None:
    """Grown, and the soak is over."""
    await grown(platform)
    platform.clock.advance(GROW["soak"] + 1)


async def shrunk(platform: Platform) -> None:
    """Two shards again; the third owns nothing, and the soak is over."""
    await settled(platform)
    await platform.run("reshard", **{**GROW, "to": 2})
    platform.clock.advance(GROW["soak"] + 1)


async def half_grown(platform: Platform) -> None:
    """A reshard that ended in its first hand-over; the second move had not begun."""
    await used(platform)
    plan = await platform.plan("reshard", **GROW)
    names = [step.name for step in plan.steps]
    await platform.carry_out(replace(plan, steps=plan.steps[: names.index("hand-over") + 1]))


async def copying(platform: Platform) -> None:
    """A reshard that ended when nothing had been handed over yet."""
    await used(platform)
    plan = await platform.plan("reshard", **GROW)
    names = [step.name for step in plan.steps]
    await platform.carry_out(replace(plan, steps=plan.steps[: names.index("hand-over")]))


async def given_unknown(platform: Platform) -> None:
    """A control plane died behind the point of no return: the map knows of no hand-over yet."""
    await copying(platform)
    shard_map = await platform.map()
    move = shard_map.moves[0]
    slots = range(move.first, min(move.last + 1, move.first + GROW["batch"]))
    moves = platform.provider.moves
    await moves.hand_over(move, shard_map, slots, budget_seconds=0.25)


async def scaled(platform: Platform) -> None:
    """Orders has three instances in each zone that serves."""
    await provisioned(platform)
    await platform.run("scale", service="orders", to=3)


GROW: dict[str, Any] = {"to": 3, "batch": 256, "soak": 600.0}
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
    "failover-of-a-scaled-region": Scenario("failover", scaled_region_lost, LOSS),
    "queue-failover": Scenario("queue-failover", queue_lost, {"region": "us-east-1"}),
    "relax-sync": Scenario("relax-sync", standby_lost, {"database": "s1"}),
    "rejoin": Scenario("rejoin", failed_over, {"database": "s1"}),
    "switchover": Scenario("switchover", provisioned, {"target": "s2"}),
    "region-switchover": Scenario("switchover", provisioned, {"to": "us-west-2"}),
    "failback": Scenario("failback", away),
    "grow": Scenario("reshard", used, GROW),
    "shrink": Scenario("reshard", settled, {**GROW, "to": 2}),
    "reshard-rollback": Scenario("reshard-rollback", grown, {"batch": 256}),
    "reshard-rollback-half-way": Scenario("reshard-rollback", half_grown, {"batch": 256}),
    "reshard-finish": Scenario("reshard-finish", soaked),
    "reshard-finish-of-fewer": Scenario("reshard-finish", shrunk),
    "reshard-abort": Scenario("reshard-abort", copying),
    "reshard-abort-half-way": Scenario("reshard-abort", half_grown),
    "reshard-abort-behind-the-map": Scenario("reshard-abort", given_unknown),
    "reshard-rollback-behind-the-map": Scenario("reshard-rollback", given_unknown, {"batch": 100}),
    "backup": Scenario("backup", provisioned),
    "backup-verify": Scenario("backup-verify", backed_up, {"id": "s1-first"}),
    "prune": Scenario("prune", backed_up_twice, {"keep_full": 1}),
    "restore-aside": Scenario("restore", backed_up, {"database": "s1", "to": "new"}),
    "restore-in-place": Scenario(
        "restore", backed_up, {"database": "s1", "to": "in-place", "at": "0/7D0"}
    ),
    "restore-of-a-deleted-database": Scenario(
        "restore", database_deleted, {"database": "s1", "to": "in-place"}
    ),
    "restore-discard": Scenario("restore-discard", restored_aside, {"id": "sandbox"}),
    "restore-point": Scenario("restore-point", provisioned, {"name": "before-release-7"}),
    "hold-scaling": Scenario("scale-hold", provisioned, {"seconds": 600.0}),
    "more-instances": Scenario("scale", provisioned, {"service": "orders", "to": 3}),
    "fewer-instances": Scenario(
        "scale", scaled, {"service": "orders", "to": 1, "zone": "us-east-1b"}
    ),
}
