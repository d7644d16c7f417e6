"""Clients are sent to another region, or to none.

A region that does not answer is only forced out by DNS: CloudFront asks for the name again within
a minute. Route 53 is changed in us-east-1, wherever the failed region is; while that is lost too,
only what its health checks find moves clients. AWS says so itself: its DNS goes on answering, its
control plane may not (Route 53 Developer Guide, "Best practices").
"""

from __future__ import annotations

import asyncio

from infra.aws import route
from infra.aws.clients import GLOBAL_REGION
from infra.aws.site import Site
from runtime.clock import wait_until
from runtime.errors import NotFound, Unavailable

SECONDS = 120.0


async def open_route(site: Site, region: str) -> None:
    """`region` gets every client. To the region that serves by design everything is as it was made;
    else the others are forced out and it is forced in, so that none comes back by itself."""
    site.topology.region(region)
    usual = region == site.topology.primary_region.name
    wanted = {name: "free" if usual else "in" if name == region else "out" for name in site.regions}
    await _close_balancer(site, region, shut=False)
    await _hold(site, wanted)
    others = [name for name in site.regions if name != region]
    if usual:
        await asyncio.gather(*(_try(_close_balancer(site, name, shut=False)) for name in others))
    await _read_back(site, region)


async def close_route(site: Site) -> None:
    """Nobody gets anything but a 503. A region whose balancer does not answer is forced out."""
    shut = await asyncio.gather(
        *(_try(_close_balancer(site, region, shut=True)) for region in site.regions)
    )
    silent = [region for region, done in zip(site.regions, shut, strict=True) if not done]
    if silent:
        await _hold(site, dict.fromkeys(silent, "out"))
    await _read_back(site, None)


async def _try(asked: object) -> bool:
    """Whether it was done; a region that does not answer is passed over."""
    try:
        await asked  # type: ignore[misc]
    except Unavailable:
        return False
    return True


async def _close_balancer(site: Site, region: str, *, shut: bool) -> None:
    """The rule that answers 503 is there (`shut`), or is not."""
    rule = await route.closing_rule(site, region)
    if shut and rule is None:
        await site.cloud.call(
            "elbv2",
            region,
            "create_rule",
            ListenerArn=await route.listener(site, region),
            Priority=route.CLOSED_PRIORITY,
            Conditions=[{"Field": "path-pattern", "Values": ["/*"]}],
            Actions=[
                {
                    "Type": "fixed-response",
                    "FixedResponseConfig": {"StatusCode": "503", "ContentType": "text/plain"},
                }
            ],
            Tags=[route.CLOSED_TAG],
        )
    elif not shut and rule is not None:
        await site.cloud.call("elbv2", region, "delete_rule", RuleArn=rule)


async def _hold(site: Site, wanted: dict[str, str]) -> None:
    known = await route.checks(site)
    for region, way in wanted.items():
        check = known[region]
        if route.held(check) == way:
            continue
        await site.cloud.call(
            "route53",
            GLOBAL_REGION,
            "update_health_check",
            HealthCheckId=check["Id"],
            # Refused when somebody else has changed it since it was read.
            HealthCheckVersion=check["HealthCheckVersion"],
            Disabled=way != "free",
            Inverted=way == "out",
        )


async def _read_back(site: Site, wanted: str | None) -> None:
    async def so() -> bool:
        try:
            return await route.read(site) == wanted
        except (Unavailable, NotFound):
            return False

    await wait_until(
        site.cloud.clock,
        so,
        what=f"clients to be sent to {wanted or 'nobody'}",
        seconds=SECONDS,
        every=site.cloud.pause,
        hint="regionctl status; aws route53 list-health-checks",
    )
