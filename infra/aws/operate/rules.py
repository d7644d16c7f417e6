"""The rules of security groups by which services reach databases, in their own region and from
others. They decide about new sessions only: what is open goes on.
"""

from __future__ import annotations

from infra.aws.clients import JSON
from infra.aws.site import Site
from infra.aws.spec import platform
from runtime.errors import NotFound, Unavailable

PORT = 5432
WRITERS, DATABASES = "service", "database"


async def barred(site: Site, region: str) -> bool:
    """Whether the region's databases let no service in. Raises `Unavailable`, `NotFound`."""
    return not await _rules(site, region)


async def revoke(site: Site, region: str) -> None:
    rules = await _rules(site, region)
    if rules:
        groups = await _groups(site, region)
        await site.cloud.call(
            "ec2",
            region,
            "revoke_security_group_ingress",
            GroupId=groups[DATABASES],
            SecurityGroupRuleIds=rules,
        )


async def let_in(site: Site, region: str) -> None:
    """Services of `region` may connect to its databases."""
    if await _rules(site, region):
        return
    groups = await _groups(site, region)
    await site.cloud.call(
        "ec2",
        region,
        "authorize_security_group_ingress",
        GroupId=groups[DATABASES],
        IpPermissions=[_permission(groups[WRITERS])],
    )


async def shut_others(site: Site, region: str) -> list[str]:
    """No other region's services get there; the regions of which that is not known."""
    still = []
    for other in others(site, region):
        try:
            if ways := await _ways(site, other, region):
                groups = await _groups(site, other)
                await site.cloud.call(
                    "ec2",
                    other,
                    "revoke_security_group_egress",
                    GroupId=groups[WRITERS],
                    SecurityGroupRuleIds=sorted(ways.values()),
                )
                ways = await _ways(site, other, region)
        except (Unavailable, NotFound):
            still.append(other)
        else:
            still += [other] if ways else []
    return still


async def open_way(site: Site, other: str, region: str) -> None:
    """Services of `other` reach the databases of `region` again."""
    missing = _blocks(site, region) - set(await _ways(site, other, region))
    if not missing:
        return
    groups = await _groups(site, other)
    ranges = [
        {"CidrIp": block, "Description": f"to the databases of {region}"}
        for block in sorted(missing)
    ]
    rule = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "IpRanges": ranges}
    await site.cloud.call(
        "ec2",
        other,
        "authorize_security_group_egress",
        GroupId=groups[WRITERS],
        IpPermissions=[rule],
    )


def others(site: Site, region: str) -> list[str]:
    return [other for other in site.regions if other != region]


def _permission(writers: str) -> JSON:
    pair = {"GroupId": writers, "Description": f"from {WRITERS}"}
    return {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": [pair]}


async def _groups(site: Site, region: str) -> JSON:
    """who → the id of its security group. Raises `NotFound`."""
    names = {site.group(who): who for who in (WRITERS, DATABASES)}
    found = await site.cloud.pages(
        "ec2",
        region,
        "describe_security_groups",
        "SecurityGroups",
        Filters=[{"Name": "group-name", "Values": list(names)}],
    )
    groups = {names[each["GroupName"]]: each["GroupId"] for each in found}
    if missing := sorted({WRITERS, DATABASES} - set(groups)):
        raise NotFound(
            f"{region} has no security group for {', '.join(missing)}.", hint="regionctl infra plan"
        )
    return groups


async def _rules(site: Site, region: str) -> list[str]:
    """The rules by which services reach databases."""
    groups = await _groups(site, region)
    return [
        rule["SecurityGroupRuleId"]
        for rule in await _rules_of(site, region, groups[DATABASES])
        if not rule["IsEgress"]
        and rule.get("ReferencedGroupInfo", {}).get("GroupId") == groups[WRITERS]
    ]


async def _rules_of(site: Site, region: str, group: str) -> list[JSON]:
    return await site.cloud.pages(
        "ec2",
        region,
        "describe_security_group_rules",
        "SecurityGroupRules",
        Filters=[{"Name": "group-id", "Values": [group]}],
    )


def _blocks(site: Site, region: str) -> set[str]:
    """The address ranges of the region's database subnets."""
    (spec,) = [one for one in platform(site.topology, "").regions if one.name == region]
    return set(spec.database)


async def _ways(site: Site, other: str, region: str) -> dict[str, str]:
    """address range → the rule by which services of `other` reach the databases of `region`."""
    groups = await _groups(site, other)
    blocks = _blocks(site, region)
    return {
        rule["CidrIpv4"]: rule["SecurityGroupRuleId"]
        for rule in await _rules_of(site, other, groups[WRITERS])
        if rule["IsEgress"] and rule.get("CidrIpv4") in blocks
    }
