"""What the gateways and the edge have counted, from Envoy's own statistics.

A gateway counts what it sent on to services for clients: health checks of the edge, which it
answers itself, and its own requests for keys are not among them. The edge counts every request.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from infra.local.ports import HOST
from infra.local.site import Site
from infra.topology import EDGE
from infra.traffic import Traffic

SECONDS = 1.0
CLIENTS = r"^http\.edge\.downstream_rq_(completed|5xx|time)$"
SERVED = r"^cluster\.[^.]+\.external\.upstream_rq_(completed|5xx|time)$"
JSON = Mapping[str, Any]


async def traffic(site: Site) -> dict[str, Traffic]:
    """By door; one that does not say is not there, but for an edge that lets no client in."""
    doors = {spec.id: site.ports.admin[spec.id] for spec in site.topology.instances(kind="envoy")}
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # no root certificates, which take long to load
    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False, verify=plain) as client:
        found = await asyncio.gather(
            *(_ask(client, port, CLIENTS if id == EDGE else SERVED) for id, port in doors.items())
        )
    counted = {id: count(said) for id, said in zip(doors, found, strict=True) if said is not None}
    authority = site.layout.ca / "ca.pem"
    if EDGE not in counted and authority.exists() and not await lets_in(site.ports.edge, authority):
        counted[EDGE] = Traffic(serves=False)
    return counted


async def lets_in(port: int, authority: Path) -> bool:
    """Whether a client gets TLS there: a frozen edge still takes connections, but says nothing."""
    trust = ssl.create_default_context(cafile=str(authority))
    try:
        async with asyncio.timeout(SECONDS):
            _, writer = await asyncio.open_connection(HOST, port, ssl=trust)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _ask(client: httpx.AsyncClient, port: int, names: str) -> JSON | None:
    asked = {"format": "json", "histogram_buckets": "cumulative", "usedonly": "", "filter": names}
    try:
        answer = await client.get(f"http://127.0.0.1:{port}/stats", params=asked)
        said: JSON = answer.raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return None
    return said


def count(said: JSON) -> Traffic:
    """The sum of all counters, and of all histograms, in an answer of Envoy's /stats."""
    requests = errors = 0
    buckets: dict[float, int] = {}
    for stat in said.get("stats", ()):
        name = stat.get("name", "")
        requests += stat["value"] if name.endswith("_completed") else 0
        errors += stat["value"] if name.endswith("_5xx") else 0
        for histogram in stat.get("histograms", ()):
            for bucket in histogram["buckets"]:
                bound = float(bucket["upper_bound"])
                buckets[bound] = buckets.get(bound, 0) + bucket["cumulative"]
    return Traffic(requests, errors, tuple(sorted(buckets.items())))
