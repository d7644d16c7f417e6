"""Faults that AWS lets somebody make: a task or a server ends, a region loses its clients."""

from __future__ import annotations

import asyncio

from infra.aws import compute
from infra.aws.limits import REASONS, refused
from infra.aws.operate import fence
from infra.aws.sessions import Sessions
from infra.aws.site import Site
from infra.provider import Fault, Injected
from runtime.errors import Invalid, Unavailable


async def inject(site: Site, sessions: Sessions, fault: Fault) -> Injected:
    """kill: the tasks of a service in a zone are stopped, or a database server restarts.
    kill-region: its services end and its databases take no connections of them; AWS' own APIs there
    go on, so this is what clients lose, and less than a lost region is."""
    if f"inject {fault.kind}" in REASONS:
        raise refused(f"inject {fault.kind}")
    began, at = site.cloud.clock.monotonic(), site.cloud.clock.now()
    if fault.kind == "kill-region":
        fenced = await fence.fence_region(site, sessions, fault.target)
        if not fenced.fenced:
            raise Unavailable(f"{fault.target} cannot be broken: {fenced.how}.", hint="Try again.")
    else:
        await _kill(site, fault.target)
    return Injected(began, site.cloud.clock.monotonic(), at)


async def heal(site: Site, fault: Fault) -> None:
    """A region's databases let its services in again; these are started by whoever wants them."""
    if fault.kind == "kill-region":
        await fence.lift(site, fault.target)


async def _kill(site: Site, target: str) -> None:
    spec = site.topology.instance(target)
    if spec.kind == "postgres":
        await site.cloud.call(
            "rds", spec.region, "reboot_db_instance", DBInstanceIdentifier=site.server(spec)
        )
        return
    if spec.kind != "service":
        raise Invalid(f"{target} cannot be killed on AWS.", hint="a service or a database server")
    zone = f"{spec.region}{spec.zone}"
    here = [
        task
        for task in await compute.tasks(site, spec.region, spec.component)
        if task.get("availabilityZone") == zone
    ]
    await asyncio.gather(
        *(
            site.cloud.call(
                "ecs",
                spec.region,
                "stop_task",
                cluster=site.names.ecs_cluster(spec.region),
                task=task["taskArn"],
                reason="regionctl drill",
            )
            for task in here
        )
    )
