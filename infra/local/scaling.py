"""More or fewer instances of a service: started, known to the gateways, drained, stopped.

How many there should be is in `instances.json`, so that every process that works with the platform
means the same ones, also after `up`.

Nothing fails by it. A new instance is sent requests when it answers. One that goes is taken out of
the gateways of its region first; they then send it nothing new, and close each connection to it
when what is on its way there is answered. When no connection is left it is asked to end (SIGTERM),
and what it still does for the event streams is taken over by the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import psutil

from infra.local import envoy, ports, servers
from infra.local import layout as files
from infra.local.layout import Layout
from infra.local.ports import HOST
from infra.local.site import Site
from infra.topology import InstanceSpec, Topology
from infra.usage import Usage
from runtime.clock import SystemClock, wait_until
from runtime.errors import Problem, Refused, Unavailable

log = logging.getLogger(__name__)

# A request may take 12 s (`envoy_config.SERVICE_RETRIES`).
DRAIN_SECONDS = 15.0
GATEWAY_SECONDS = 15.0
READY_SECONDS = 30.0


def read(layout: Layout) -> tuple[tuple[str, int], ...]:
    """`Topology.counts` as it was last recorded. Raises `Refused` when the file is damaged."""
    try:
        document = json.loads(layout.instances.read_text(encoding="utf-8"))
        return tuple(sorted((str(key), int(value)) for key, value in document.items()))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, AttributeError) as error:
        raise Refused(
            f"{layout.instances} is damaged: {error}.",
            hint="Remove it: each service then has as few instances as the topology allows.",
        ) from error


def record(layout: Layout, topology: Topology) -> None:
    files.replace_file(layout.instances, json.dumps(dict(topology.counts), indent=1))


def changed(site: Site, wanted: Topology) -> Site:
    """The site with the instances of `wanted`. Raises `PortTaken` when a new one's port is."""
    table = ports.table(wanted, site.ports.control - ports.BASE)
    known = site.ports.all()
    ports.require_free({port: use for port, use in table.all().items() if port not in known})
    return replace(site, topology=wanted, ports=table)


async def tell_supervisor(site: Site, region: str) -> None:
    """It knows the instances of `site.topology`, and no others."""
    supervisor = site.supervisors[region]
    supervisor.write(servers.programs(site, region))
    await supervisor.update()


async def ready(site: Site, instances: Sequence[InstanceSpec]) -> None:
    """All of them can serve: a gateway most of whose servers cannot would send requests to any."""
    for spec in instances:

        async def serves(port: int = site.port(spec.id)) -> bool:
            return await servers.http_ok(port, "/health/ready", 1.0)

        await wait_until(
            SystemClock(),
            serves,
            what=f"{spec.id} to serve",
            seconds=READY_SECONDS,
            every=0.05,
            hint=f"regionctl logs {spec.id}",
        )


async def tell_gateways(
    site: Site, region: str, service: str, without: Sequence[InstanceSpec] = ()
) -> None:
    """Those of the region send requests for `service` to all its instances but these."""
    targets = [
        (HOST, site.port(spec.id))
        for spec in site.topology.instances(kind="service", component=service, region=region)
        if spec not in without
    ]
    running = await _pids(site, region)
    for spec in site.topology.instances(component="gateway", region=region):
        folder = site.layout.envoy(region, spec.id)
        if folder.exists():
            envoy.write_endpoints(folder, service, targets)
            if spec.id in running:
                await _await_known(site.ports.admin[spec.id], service, targets)


async def _await_known(admin_port: int, service: str, targets: Sequence[envoy.Address]) -> None:
    """A gateway that does not answer is dying: it knows them when it is back."""

    async def known() -> bool:
        found = await envoy.listed(admin_port, service)
        return found is None or found == set(targets)

    what = f"the gateway on admin port {admin_port} to take the new instances of {service}"
    await wait_until(SystemClock(), known, what=what, seconds=GATEWAY_SECONDS, every=0.02)


async def drained(site: Site, instances: Sequence[InstanceSpec]) -> None:
    """No gateway has a connection to these any more, or it has taken longer than requests may."""
    region = instances[0].region
    gateways = {spec.id for spec in site.topology.instances(component="gateway", region=region)}
    pids = [pid for id, pid in (await _pids(site, region)).items() if id in gateways]
    addresses = {(HOST, site.port(spec.id)) for spec in instances}
    if not await let_go(pids, addresses):
        log.warning("requests are still on their way to what is stopped: %s", addresses)


async def let_go(
    pids: Sequence[int], addresses: Collection[envoy.Address], seconds: float = DRAIN_SECONDS
) -> bool:
    """Whether none of the processes has a connection to the addresses, waiting up to `seconds`."""
    clock = SystemClock()
    deadline = clock.monotonic() + seconds
    while await asyncio.to_thread(_connected, pids, addresses):
        if clock.monotonic() > deadline:
            return False
        await clock.sleep(0.1)
    return True


async def give_up(site: Site, fresh: Sequence[InstanceSpec]) -> None:
    """New instances of a service that are not to be after all: what sends them requests and what
    runs them lets go of them, where it answers."""
    first = fresh[0]
    with contextlib.suppress(Problem):
        await tell_gateways(site, first.region, first.component, without=fresh)
        await drained(site, fresh)
    with contextlib.suppress(Problem):
        await servers.stop(site, [spec.id for spec in fresh])


def _connected(pids: Sequence[int], addresses: Collection[envoy.Address]) -> bool:
    """Whether one of the processes has a connection to one of the addresses."""
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            for each in psutil.Process(pid).net_connections("tcp"):
                if each.status == psutil.CONN_ESTABLISHED and tuple(each.raddr) in addresses:
                    return True
    return False


async def _pids(site: Site, region: str) -> dict[str, int]:
    """Of what its supervisor runs. Raises `Unavailable` when that does not answer."""
    known = await site.supervisors[region].info()
    return {name: info.pid for name, info in known.items() if info.runs and info.pid is not None}


async def usage(site: Site) -> dict[str, Usage]:
    """By instance of a service; of those whose supervisor says that they run."""
    services = {spec.id for spec in site.topology.instances(kind="service")}
    pids: dict[str, int] = {}
    for region in site.topology.regions:
        with contextlib.suppress(Unavailable):
            pids |= await _pids(site, region.name)
    mine = {id: pid for id, pid in pids.items() if id in services}
    return await asyncio.to_thread(_usage, mine)


def _usage(pids: Mapping[str, int]) -> dict[str, Usage]:
    found = {}
    for id, pid in pids.items():
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                memory = process.memory_info().rss
                found[id] = Usage(pid, times.user + times.system, memory, process.num_threads())
        except psutil.Error:
            continue
    return found
