"""Tasks of ECS: what runs in which zone, and how many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from infra.aws.clients import JSON
from infra.aws.site import Site
from infra.provider import InstanceView
from infra.topology import InstanceSpec
from runtime.errors import NotFound

AT_ONCE = 10  # services that one DescribeServices takes; DescribeTasks takes 100
TASKS_AT_ONCE = 100


async def services(site: Site, region: str, components: Sequence[str]) -> dict[str, JSON]:
    """component → its ECS service; one that is not there, or was deleted, is missing."""
    names = {site.names.ecs_service(component): component for component in components}
    found: dict[str, JSON] = {}
    for start in range(0, len(names), AT_ONCE):
        try:
            answer = await site.cloud.call(
                "ecs",
                region,
                "describe_services",
                cluster=site.names.ecs_cluster(region),
                services=list(names)[start : start + AT_ONCE],
            )
        except NotFound:
            return {}
        for each in answer["services"]:
            if each["status"] != "INACTIVE":
                found[names[each["serviceName"]]] = each
    return found


async def tasks(site: Site, region: str, component: str) -> list[JSON]:
    """The tasks that ECS runs or is starting, or has been told to stop and has not yet."""
    cluster = site.names.ecs_cluster(region)
    service = site.names.ecs_service(component)
    arns: list[str] = []
    for wanted in ("RUNNING", "STOPPED"):
        # A task that was told to stop counts as STOPPED, and lives until its lastStatus says so.
        arns += await site.cloud.pages(
            "ecs",
            region,
            "list_tasks",
            "taskArns",
            cluster=cluster,
            serviceName=service,
            desiredStatus=wanted,
        )
    found: list[JSON] = []
    for start in range(0, len(arns), TASKS_AT_ONCE):
        answer = await site.cloud.call(
            "ecs",
            region,
            "describe_tasks",
            cluster=cluster,
            tasks=arns[start : start + TASKS_AT_ONCE],
        )
        found += [task for task in answer["tasks"] if task["lastStatus"] != "STOPPED"]
    return found


async def views(site: Site, region: str, specs: Sequence[InstanceSpec]) -> list[InstanceView]:
    """A component of a zone runs when a task of it runs there. Raises `Unavailable`."""
    known = await services(site, region, sorted({spec.component for spec in specs}))
    running: dict[str, Counter[str]] = {}
    for component in known:
        running[component] = Counter(
            task.get("availabilityZone", "")
            for task in await tasks(site, region, component)
            if task["lastStatus"] == "RUNNING"
        )
    found = []
    for spec in specs:
        if spec.component not in known:
            found.append(InstanceView(spec.id, "absent"))
            continue
        here = running[spec.component][f"{region}{spec.zone}"]
        wanted = known[spec.component]["desiredCount"]
        state = "running" if here else "failed" if wanted else "stopped"
        found.append(InstanceView(spec.id, state))  # type: ignore[arg-type]
    return found
