"""Servers without databases: how each is configured, run, and known to be well.

A region's supervisor file names every server of the region's topology; the files that a server
reads are written just before it is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from infra.local import (
    certificates,
    envoy,
    envoy_gateway,
    links,
    objects,
    peers,
    postgres,
    quota,
    services,
    valkey,
)
from infra.local import layout as files
from infra.local.backups import program as archiving
from infra.local.envoy_edge import Guard
from infra.local.envoy_listener import Tracing
from infra.local.ports import HOST
from infra.local.site import Site
from infra.local.supervisor import Program
from infra.topology import EDGE, InstanceSpec
from runtime.clock import SystemClock, wait_until
from runtime.errors import OperationFailed, TimedOut, Unavailable

log = logging.getLogger(__name__)

HEALTHY_SECONDS = 90.0
CRASHES = 4
Address = tuple[str, int]


def programs(site: Site, region: str) -> list[Program]:
    """Everything that the supervisor of `region` runs; only the archiver starts by itself."""
    makers: dict[str, Callable[[Site, str], Program]] = {
        "postgres": postgres.program,
        "valkey": valkey.program,
        "envoy": _envoy,
        "link": _link,
        "objects": objects.program,
        "service": services.program,
        "archiver": archiving.program,
    }
    specs = site.topology.instances(region=region)
    return [makers[spec.kind](site, spec.id) for spec in specs if spec.kind in makers]


def global_programs(site: Site) -> list[Program]:
    """The edge and the peers, for the global supervisor, which starts them again after a reboot."""
    return [
        *(peers.program(site, spec.id) for spec in site.topology.instances(kind="peer")),
        replace(_envoy(site, EDGE), autostart=True),
    ]


def _environment(spec: InstanceSpec) -> dict[str, str]:
    return {"REGIONCTL_INSTANCE": spec.id, "REGIONCTL_REGION": spec.region}


def _envoy(site: Site, instance: str) -> Program:
    spec = site.spec(instance)
    command = envoy.command(site.layout.envoy(spec.region, instance))
    return Program(instance, tuple(command), environment=_environment(spec), priority=900)


def _link(site: Site, instance: str) -> Program:
    spec = site.spec(instance)
    table = str(site.layout.link_table(spec.region))
    command = (sys.executable, "-m", "infra.local.relay", table)
    return Program(instance, command, environment=_environment(spec), priority=100)


def prepare_region(site: Site, region: str) -> None:
    """The region's folders, the secrets of its services, its link table, its supervisor's file.

    A link that runs takes on the nodes of a new database, and drops those of a removed one, by its
    table; the connections of the others go on.
    """
    layout = site.layout
    with files.explain_disk(layout.folder(region)):
        for folder in (layout.etc(region), layout.logs(region), layout.folder(region) / "run"):
            files.make_folder(folder, mode=0o700)
        services.write_secrets(site, region)
        archiving.prepare(site, region)
        links.write(site, region)
        site.supervisors[region].write(programs(site, region))


def prepare_global(site: Site) -> None:
    """The files of everything that the global supervisor runs."""
    for spec in site.topology.instances(region=""):
        prepare(site, spec.id)


def prepare(site: Site, instance: str) -> None:
    """The files that the server reads."""
    spec = site.spec(instance)
    with files.explain_disk(site.layout.folder(spec.region)):
        if spec.kind == "valkey":
            queues = site.topology.instances(component="queue", region=spec.region)
            first = queues[0].id if spec.component == "queue" else instance
            valkey.prepare(site, instance, None if first == instance else first)
        elif spec.kind == "link":
            links.write(site, spec.region)
        elif spec.kind == "objects":
            objects.prepare(site, instance)
        elif spec.kind == "peer":
            peers.prepare(site, instance)
        elif spec.kind == "service":
            quota.prepare(site, instance)
        elif spec.id == EDGE:
            _prepare_edge(site)
        elif spec.kind == "envoy":
            folder = site.layout.envoy(spec.region, instance)
            files.make_folder(folder)
            envoy.write_gateway(
                folder,
                node=instance,
                listen_port=site.port(instance),
                admin_port=site.ports.admin[instance],
                endpoints=_endpoints(site, spec.region),
                issuer=site.entry_url,
                tracing=_tracing(site),
            )


def _endpoints(site: Site, region: str) -> dict[str, list[Address]]:
    """What a gateway of `region` sends requests to: each service, and the object store."""
    behind = (*site.topology.services, envoy_gateway.OBJECTS)
    return {
        component: [
            (HOST, site.port(spec.id))
            for spec in site.topology.instances(component=component, region=region)
        ]
        for component in behind
    }


def _tracing(site: Site) -> Tracing | None:
    """Where Envoy sends its spans. It speaks plain HTTP to the collector, or not at all."""
    url = urlsplit(site.topology.otlp_endpoint)
    if url.scheme != "http" or not url.hostname:
        return None
    return Tracing(url.hostname, url.port or 80, f"{url.path}/v1/traces")


def _prepare_edge(site: Site) -> None:
    certificates.ensure(site.layout.ca)
    folder = site.layout.envoy("", EDGE)
    files.make_folder(folder)
    envoy.write_edge(
        folder,
        node=EDGE,
        listen_port=site.ports.edge,
        admin_port=site.ports.edge_admin,
        certificate=site.layout.ca / "edge.pem",
        key=site.layout.ca / "edge.key",
        gateways=gateways(site, read_route(site)),
        guard=Guard(site.entry_url, site.topology.allowed_origins),
        tracing=_tracing(site),
    )


def gateways(site: Site, region: str | None) -> list[Address]:
    """Where the edge sends clients when `region` is the routed one."""
    if region is None:
        return []
    return [(HOST, site.port(id)) for id in _gateway_ids(site, region)]


def _gateway_ids(site: Site, region: str | None) -> list[str]:
    return [
        spec.id
        for spec in site.topology.instances(component="gateway")
        if region is not None and spec.region == region
    ]


def read_route(site: Site) -> str | None:
    """The region that the edge was last told to send clients to."""
    try:
        text = (site.layout.folder("") / "route.json").read_text(encoding="utf-8")
        return json.loads(text)["region"] or None
    except (OSError, ValueError, KeyError):
        return None


async def close_route(site: Site, seconds: float = 2.0) -> None:
    """Nobody is sent anywhere. What is on its way to a region that lives may end first.

    A region that was not fenced could acknowledge such a request after its successor was promoted.
    """
    former = gateways(site, read_route(site))
    await write_route(site, None)
    if not await envoy.drained(site.ports.edge_admin, former, seconds):
        log.warning("requests are still on their way %s s after the route was closed", seconds)


async def write_route(site: Site, region: str | None) -> None:
    """New requests go there, proven when the edge runs. None: nowhere, they get 503."""
    path = site.layout.folder("") / "route.json"
    files.replace_file(path, json.dumps({"region": region}))
    targets = gateways(site, region)
    folder = site.layout.envoy("", EDGE)
    if not folder.exists():
        return
    envoy.write_edge_route(folder, targets)
    known = await site.supervisors[""].info()
    if EDGE in known and known[EDGE].runs:
        # A gateway that is down stays listed, so that it serves again when it is back.
        well = await asyncio.gather(
            *(is_healthy(site, spec) for spec in _gateway_ids(site, region))
        )
        if all(well):
            await envoy.await_route(site.ports.edge_admin, targets, 15.0)
        else:
            await await_listed(site, targets)


async def start(site: Site, instances: Sequence[str]) -> None:
    """All of them run and are well. Raises what went wrong with the first that is not.

    While clients are served they start one after another: many at once would take the processors
    from the requests.
    """
    for instance in instances:
        prepare(site, instance)
    serving = read_route(site) is not None
    for instance in instances:
        await site.supervisor(instance).start_program(instance)
        if serving:
            await await_healthy(site, instance)
    try:
        async with asyncio.TaskGroup() as group:
            for instance in instances:
                group.create_task(await_healthy(site, instance))
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    quota.hold(site, instances)


async def await_healthy(site: Site, instance: str) -> None:
    clock = SystemClock()
    asked = clock.monotonic()
    pids: set[int] = set()

    async def healthy() -> bool:
        nonlocal asked
        if await is_healthy(site, instance):
            return True
        if clock.monotonic() - asked > 0.5:
            asked = clock.monotonic()
            with contextlib.suppress(Unavailable):
                known = (await site.supervisor(instance).info())[instance]
                pids.update([known.pid] if known.pid else [])
            if len(pids) >= CRASHES:
                raise OperationFailed(
                    f"{instance} ends again and again.",
                    hint="Its log says why; a taken port and a full disk are the usual causes.",
                    extra=site.evidence(instance),
                )
        return False

    what = f"{instance} to be healthy"
    try:
        await wait_until(clock, healthy, what=what, seconds=HEALTHY_SECONDS, every=0.1)
    except TimedOut as error:
        error.hint = f"regionctl logs {instance}"
        error.extra = site.evidence(instance)
        raise


async def is_healthy(site: Site, instance: str, seconds: float = 1.0) -> bool:
    """Whether it answers its own kind of question within `seconds`."""
    spec = site.spec(instance)
    checks: dict[str, Callable[[], Coroutine[Any, Any, bool]]] = {
        "valkey": lambda: _valkey(site, instance, seconds),
        "service": lambda: http_ok(site.port(instance), "/health/live", seconds),
        "envoy": lambda: http_ok(site.ports.admin[instance], "/ready", seconds),
        "objects": lambda: http_ok(site.port(instance), objects.HEALTH, seconds),
        "peer": lambda: http_ok(peers.http_port(site, instance), peers.HEALTH, seconds),
        "link": lambda: _relay(site, spec.region, seconds),
        "archiver": lambda: _archiver(site, spec.region),
    }
    return await checks[spec.kind]()


async def _archiver(site: Site, region: str) -> bool:
    return archiving.is_healthy(site, region)


async def _valkey(site: Site, instance: str, seconds: float) -> bool:
    try:
        return await valkey.command(site, instance, "PING", seconds=seconds) == "PONG"
    except (OSError, TimeoutError):
        return False


async def _relay(site: Site, region: str, seconds: float) -> bool:
    """The table's last port listens; only the listening is asked, nothing is sent on."""
    ports = [port for (own, _), port in site.ports.relays.items() if own == region]
    for port in ports[-1:]:
        try:
            async with asyncio.timeout(seconds):
                _, writer = await asyncio.open_connection(HOST, port)
        except (OSError, TimeoutError):
            return False
        writer.close()
    return True


async def http_ok(port: int, path: str, seconds: float) -> bool:
    """Whether GET `path` answers 200 within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                head = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                await writer.drain()
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def stop(site: Site, instances: Sequence[str]) -> None:
    async def one(instance: str) -> None:
        try:
            await site.supervisor(instance).stop_program(instance)
        except Unavailable:
            return

    await asyncio.gather(*(one(instance) for instance in instances))
    quota.forget(site, instances)


async def await_listed(site: Site, targets: Sequence[Address]) -> None:
    """The edge has exactly these gateways, well or not. Raises `TimedOut`."""

    async def listed() -> bool:
        return await envoy.listed(site.ports.edge_admin, envoy.REGION) == set(targets)

    await wait_until(SystemClock(), listed, what="the edge to take its new route", seconds=15)
