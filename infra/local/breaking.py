"""Faults of the local platform: processes killed and frozen, zones, regions, links, contents."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime

from infra.local import faults, fencing, links, relay, servers, valkey
from infra.local.site import Site
from infra.provider import Fault, Injected
from infra.topology import InstanceSpec
from runtime.errors import Invalid, NotFound, Unavailable

LINK_DOWN_SECONDS = 5.0


async def inject(site: Site, fault: Fault) -> Injected:
    """See `Provider.inject`. Raises `NotFound` for a target that does not exist or run."""
    began, at = time.monotonic(), datetime.now(UTC)
    pids: list[int] = []
    if fault.kind == "kill":
        database = site.spec(fault.target).kind == "postgres"
        pids = await fencing.kill(site, [fault.target], keep_down=database)
    elif fault.kind == "freeze":
        pid = await _pid(site, fault.target)
        pids = await asyncio.to_thread(faults.freeze_tree, pid, fault.expires_seconds)
    elif fault.kind == "kill-zone":
        instances = [spec.id for spec in _zone(site, fault.target)]
        fencing.hold_zone(site, fault.target, fault.expires_seconds)
        pids = await fencing.kill(site, instances, keep_down=True)
    elif fault.kind == "kill-region":
        pids = await _kill_region(site, fault.target)
    elif fault.kind in ("drop-cache", "drop-queue"):
        await _drop(site, fault.target, fault.kind.removeprefix("drop-"))
    else:
        trouble_links(site, fault, on=True)
        await asyncio.sleep(2 * relay.POLL_SECONDS)
    return Injected(began, time.monotonic(), at, tuple(pids))


async def heal(site: Site, fault: Fault) -> None:
    """The fault itself is gone; servers without data of a healed zone run again."""
    if fault.kind == "freeze":
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(faults.thaw_tree, await _pid(site, fault.target))
    elif fault.kind == "kill-zone":
        fencing.release_zone(site, fault.target)
        restart = [
            spec.id
            for spec in _zone(site, fault.target)
            if spec.kind != "postgres" and site.log(spec.id).exists()
        ]
        with contextlib.suppress(Unavailable):
            await servers.start(site, restart)
    elif fault.kind in ("cut-link", "slow-link"):
        trouble_links(site, fault, on=False)
        await asyncio.sleep(2 * relay.POLL_SECONDS)


async def _drop(site: Site, instance: str, component: str) -> None:
    """The contents of a cache are lost; of a queue, those of its primary and so of its replicas.

    Raises `Invalid` for another target, `Unavailable` when the server does not answer.
    """
    if site.spec(instance).component != component:
        raise Invalid(f"{instance} is no {component}.", hint=f"Targets: {component}.REGION+ZONE")
    try:
        shown = await valkey.view(site, instance)
        await valkey.command(site, shown.upstream or instance, "FLUSHALL", "SYNC")
    except (OSError, TimeoutError) as error:
        raise Unavailable(
            f"{instance} does not answer: {error}.",
            hint="regionctl status",
            extra=site.evidence(instance),
        ) from error


async def _kill_region(site: Site, region: str) -> list[int]:
    """Everything of the region at once, its supervisor first, so that nothing comes back.

    Its links go first: what it has sent and the other regions have not received is lost with it.
    """
    site.topology.region(region)
    for other in site.topology.regions:
        if other.name != region:
            gone = f"{other.name}/{region}"
            trouble_links(site, Fault("cut-link", gone, expires_seconds=LINK_DOWN_SECONDS), on=True)
    await asyncio.sleep(2 * relay.POLL_SECONDS)
    supervisor = await site.supervisors[region].pid()
    roots = [] if supervisor is None else [supervisor]
    instances = [
        spec.id for spec in site.topology.instances(region=region) if spec.kind != "supervisor"
    ]
    # Servers that were started by hand, or outlived an earlier supervisor.
    strays = await fencing.pids_of(site, instances)
    return await asyncio.to_thread(faults.kill_tree, [*roots, *strays])


def trouble_links(site: Site, fault: Fault, *, on: bool) -> None:
    """Cuts, slows or mends the replication links between two regions, both ways."""
    one, _, other = fault.target.partition("/")
    for name in (one, other):
        site.topology.region(name)
    for own, to in ((one, other), (other, one)):
        routes = links.routes(
            site,
            own,
            to=to if on else "",
            cut=fault.kind == "cut-link",
            delay_seconds=fault.delay_seconds if fault.kind == "slow-link" else 0.0,
            expires_at=time.time() + fault.expires_seconds,
        )
        relay.write_table(site.layout.link_table(own), routes)


async def _pid(site: Site, instance: str) -> int:
    found = await fencing.pids_of(site, [instance])
    if not found:
        raise NotFound(f"{instance} does not run.", hint="regionctl status")
    return found[0]


def _zone(site: Site, zone: str) -> list[InstanceSpec]:
    found = [
        spec for spec in site.topology.instances() if spec.zone and spec.region + spec.zone == zone
    ]
    if not found:
        raise Invalid(
            f"There is no zone {zone!r}.",
            hint="Zones are named like us-east-1a: a region and a letter.",
        )
    return found
