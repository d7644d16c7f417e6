"""A region on this machine: its folder and its supervisor, made and ended."""

from __future__ import annotations

import asyncio

from infra.local import aside, fencing, ports, servers
from infra.local.monitor import knock
from infra.local.site import Site
from runtime.clock import SystemClock
from runtime.errors import Unavailable

CLOCK = SystemClock()
FREE_SECONDS = 5.0


async def ensure(site: Site, region: str) -> None:
    """See `Provider.ensure_region`. What runs there without a supervisor is ended first."""
    supervisor = site.supervisors[region]
    await asyncio.to_thread(servers.prepare_region, site, region)
    if await supervisor.alive():
        await supervisor.update()
        await asyncio.to_thread(aside.set_aside, site, region)
        return
    if await knock(supervisor.port, 1.0) != "refused":
        raise Unavailable(
            f"The supervisor of {region} holds port {supervisor.port} and does not answer: "
            "what it runs is left alone.",
            hint="It may be busy: try again. If it is stuck, end it, then regionctl up.",
        )
    instances = [s.id for s in site.topology.instances(region=region) if s.kind != "supervisor"]
    await fencing.kill(site, instances, keep_down=False)
    await _await_free_ports(site, region)
    await asyncio.to_thread(aside.set_aside, site, region)
    await supervisor.start()


async def _await_free_ports(site: Site, region: str) -> None:
    """Raises `PortTaken`. A process that was just killed may hold its port a moment longer."""
    deadline = CLOCK.monotonic() + FREE_SECONDS
    while True:
        try:
            await asyncio.to_thread(ports.require_free, site.ports.of_region(region))
        except ports.PortTaken as taken:
            if taken.extra["pid"] is not None or CLOCK.monotonic() > deadline:
                raise
            await CLOCK.sleep(0.1)
        else:
            return
