"""The links between regions: which relays each has, and what troubles them."""

from __future__ import annotations

from dataclasses import replace

from infra.local import relay
from infra.local.ports import HOST
from infra.local.site import Site


def routes(
    site: Site,
    region: str,
    *,
    to: str = "",
    cut: bool = False,
    delay_seconds: float = 0.0,
    expires_at: float | None = None,
) -> list[relay.Route]:
    """One relay for each database node of another region; those into region `to` are troubled."""
    latency = site.topology.inter_region_latency_milliseconds / 1000
    found = []
    for (own, node), port in site.ports.relays.items():
        if own == region:
            route = relay.Route(port, (HOST, site.port(node)), latency_seconds=latency)
            if site.spec(node).region == to:
                route = replace(route, delay_seconds=delay_seconds, cut=cut, expires_at=expires_at)
            found.append(route)
    return found


def write(site: Site, region: str) -> None:
    """The link table has a route to each foreign node; what is troubled now stays so."""
    path = site.layout.link_table(region)
    try:
        known = {route.listen: route for route in relay.read_table(path)}
    except (OSError, ValueError):
        known = {}
    areas = {port: site.spec(node).region for (_, node), port in site.ports.relays.items()}
    faults = {areas[port]: route for port, route in known.items() if port in areas}
    wanted = []
    for fresh in routes(site, region):
        old = known.get(fresh.listen)
        like = faults.get(areas[fresh.listen], fresh)
        route = replace(
            fresh, delay_seconds=like.delay_seconds, cut=like.cut, expires_at=like.expires_at
        )
        wanted.append(old if old is not None and old.target == fresh.target else route)
    if wanted != list(known.values()):
        relay.write_table(path, wanted)
