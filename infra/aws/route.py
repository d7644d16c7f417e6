"""Which region clients are sent to: the failover pair of Route 53 behind CloudFront.

Each region's half of the pair has a health check. As it was made, the check looks at the region's
load balancer. To force a region out, its check is disabled and inverted: a disabled check counts as
healthy, an inverted one as the opposite, so together they mean unhealthy whatever the region does.
(Inverted alone would send clients to a region at the moment it dies.) With every check forced out,
Route 53 answers with the first region all the same: DNS cannot close. So each region that can be
reached also gets a rule in front of its load balancer's others, which answers 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.aws.clients import GLOBAL_REGION, JSON
from infra.aws.site import Site
from runtime.errors import NotFound, Unavailable

CLOSED_PRIORITY = 1
HEALTHY_SHARE = 0.18
CLOSED_TAG = {"Key": "regionctl", "Value": "closed"}


@dataclass(frozen=True)
class Door:
    """`held`: "out" and "in" are forced, "free" is what the health check finds: `healthy`.
    `closed`: its load balancer answers 503; None when nobody knows."""

    region: str
    held: str
    healthy: bool
    closed: bool | None


async def zone(site: Site) -> str:
    """The id of the hosted zone. Raises `NotFound`."""
    domain = f"{site.names.domain}."
    answer = await site.cloud.call(
        "route53", GLOBAL_REGION, "list_hosted_zones_by_name", DNSName=domain, MaxItems="1"
    )
    for each in answer["HostedZones"]:
        if each["Name"] == domain:
            return str(each["Id"])
    raise NotFound(f"There is no hosted zone {domain}", hint="regionctl infra plan")


async def records(site: Site) -> dict[str, JSON]:
    """region → its half of the failover pair. Raises `NotFound` without a hosted zone."""
    found = await site.cloud.pages(
        "route53",
        GLOBAL_REGION,
        "list_resource_record_sets",
        "ResourceRecordSets",
        HostedZoneId=await zone(site),
    )
    names = {site.names.record_set(region): region for region in site.regions}
    origin = f"{site.names.origin()}."
    return {
        names[each["SetIdentifier"]]: each
        for each in found
        if each["Name"] == origin and each.get("SetIdentifier") in names
    }


async def checks(site: Site) -> dict[str, JSON]:
    """region → the health check of its record. Raises `NotFound` when a record has none."""
    found = await records(site)
    missing = [region for region in site.regions if "HealthCheckId" not in found.get(region, {})]
    if missing:
        raise NotFound(
            f"{', '.join(missing)} has no record with a health check.", hint="regionctl infra plan"
        )

    async def one(region: str) -> JSON:
        id = found[region]["HealthCheckId"]
        answer = await site.cloud.call(
            "route53", GLOBAL_REGION, "get_health_check", HealthCheckId=id
        )
        check: JSON = answer["HealthCheck"]
        return check

    known = await asyncio.gather(*(one(region) for region in site.regions))
    return dict(zip(site.regions, known, strict=True))


def held(check: Mapping[str, Any]) -> str:
    config = check["HealthCheckConfig"]
    if not config.get("Disabled"):
        return "free"
    return "out" if config.get("Inverted") else "in"


async def read(site: Site) -> str | None:
    """The region that clients are sent to; None: nowhere. Raises `NotFound`, `Unavailable`."""
    known = await checks(site)
    return leads_to(
        await asyncio.gather(*(_door(site, region, check) for region, check in known.items()))
    )


async def _door(site: Site, region: str, check: JSON) -> Door:
    way = held(check)
    healthy, shut = await asyncio.gather(_healthy(site, check["Id"], way), closed(site, region))
    return Door(region, way, healthy, shut)


async def _healthy(site: Site, id: str, way: str) -> bool:
    """What Route 53's checkers see: healthy is what more than 18 % of them say is."""
    if way != "free":
        return way == "in"
    answer = await site.cloud.call(
        "route53", GLOBAL_REGION, "get_health_check_status", HealthCheckId=id
    )
    seen = [
        each["StatusReport"]["Status"].startswith("Success")
        for each in answer["HealthCheckObservations"]
    ]
    return not seen or sum(seen) / len(seen) > HEALTHY_SHARE


def leads_to(doors: Sequence[Door]) -> str | None:
    """The first healthy door, or the first of all, as Route 53 answers it; None: what answers there
    says 503 to everybody."""
    chosen = next((door for door in doors if door.healthy), doors[0])
    return None if chosen.closed else chosen.region


async def listener(site: Site, region: str) -> str:
    """The ARN of the region's listener. Raises `NotFound`, `Unavailable`."""
    name = site.names.balancer(region)
    found = await site.cloud.call("elbv2", region, "describe_load_balancers", Names=[name])
    arn = found["LoadBalancers"][0]["LoadBalancerArn"]
    listeners = await site.cloud.pages(
        "elbv2", region, "describe_listeners", "Listeners", LoadBalancerArn=arn
    )
    if not listeners:
        raise NotFound(f"{name} listens nowhere.", hint="regionctl infra plan")
    return str(listeners[0]["ListenerArn"])


async def closing_rule(site: Site, region: str) -> str | None:
    """The ARN of the rule that answers everybody with 503."""
    rules = await site.cloud.pages(
        "elbv2", region, "describe_rules", "Rules", ListenerArn=await listener(site, region)
    )
    for rule in rules:
        fixed = [each.get("FixedResponseConfig", {}) for each in rule["Actions"]]
        if rule["Priority"] == str(CLOSED_PRIORITY) and fixed[0].get("StatusCode") == "503":
            return str(rule["RuleArn"])
    return None


async def closed(site: Site, region: str) -> bool | None:
    try:
        return await closing_rule(site, region) is not None
    except (Unavailable, NotFound):
        return None
