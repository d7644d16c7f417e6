"""What so many instances and shards would cost a month on AWS, at list prices. Pure."""

from __future__ import annotations

from typing import Any

from infra.aws.prices import Prices
from infra.topology import Topology

HOURS = 730.0
MIB = 1024
SERVERS = 2  # of each database in each region: a writer or first reader, and one in another zone


def monthly(
    topology: Topology, prices: Prices, *, instances: int, shards: int | None
) -> dict[str, Any]:
    """USD a month of `instances` tasks of each service in the serving region, and of the servers of
    `shards` shards and the catalog in every region: {"computeUsd", "databaseUsd", "unpriced",
    "assuming"}. What has no price is named, and its figure is None; so is that of databases when
    nobody knows how many there must be (`shards` is None).

    Sizes of tasks and servers are those of `topology`, which is on AWS.
    """
    assert topology.aws is not None
    size, database = topology.aws.services, topology.aws.database
    region = topology.primary_region.name
    kind = "arm" if topology.aws.architecture == "ARM64" else "x86"
    tasks = instances * len(topology.services)
    servers = 0 if shards is None else (shards + 1) * SERVERS * len(topology.regions)
    wanted = {
        "computeUsd": {
            f"fargate-{kind}-vcpu": tasks * size.cpu / MIB * HOURS,
            f"fargate-{kind}-memory": tasks * size.memory / MIB * HOURS,
        },
        "databaseUsd": {f"aurora-instance/{database.instance_class}": servers * HOURS},
    }
    unpriced: list[str] = []
    cost: dict[str, Any] = {}
    for name, quantities in wanted.items():
        total: float | None = 0.0
        for sku, quantity in quantities.items():
            tiers = prices.tiers(sku, region)
            if not tiers:
                unpriced.append(sku)
            total = None if total is None or not tiers else total + quantity * tiers[0].usd
        cost[name] = None if total is None else round(total, 2)
    assuming = (
        f"{tasks} tasks of {size.cpu / MIB:g} vCPU and {size.memory / MIB:g} GiB, "
        f"{servers or 'no'} servers of {database.instance_class}, list prices of {prices.oldest} "
        f"to {prices.newest}; without storage, transfer, caches and waiting tasks"
    )
    if shards is None:
        cost["databaseUsd"] = None
    return {**cost, "unpriced": unpriced, "assuming": assuming}
