"""How many tasks of a component run in a region, and whether load may change that."""

from __future__ import annotations

from infra.aws import compute
from infra.aws.clients import JSON
from infra.aws.site import Site
from runtime.clock import wait_until
from runtime.errors import Invalid, NotFound

SECONDS = 900.0
DIMENSION = "ecs:service:DesiredCount"
SUSPENSIONS = (
    "DynamicScalingInSuspended",
    "DynamicScalingOutSuspended",
    "ScheduledScalingSuspended",
)


async def scale(
    site: Site, region: str, component: str, count: int, *, seconds: float = SECONDS
) -> JSON:
    """At least `count` tasks run: {"component", "region", "desired", "changed"}.

    A deployment that ECS has given up, as of a service that came before its image or before the
    first shard map, is begun again.
    Load may add more and take none of these away. Raises `Invalid` beyond the topology's maximum.
    """
    aws = site.topology.aws
    size = aws and (aws.gateway if component == "gateway" else aws.services)
    if size and not 1 <= count <= size.maximum:
        raise Invalid(
            f"{component} runs 1 to {size.maximum} tasks in {region}, not {count}.",
            hint="aws.services.maximum in the topology",
        )
    before = await _service(site, region, component)
    await _bounds(site, region, component, least=count)
    changed = bool(before["desiredCount"] < count)
    if _given_up(before):
        desired = max(count, before["desiredCount"])
        await _desire(site, region, component, desired, forceNewDeployment=True)
    elif changed:
        await _desire(site, region, component, count)
    await _await(site, region, component, count, seconds)
    desired = max(count, before["desiredCount"])
    return {"component": component, "region": region, "desired": desired, "changed": changed}


async def stop(site: Site, region: str, component: str, *, seconds: float = SECONDS) -> JSON:
    """No task of it lives, and no load starts one: {"component", "region", "changed"}."""
    before = await _service(site, region, component)
    await _suspend(site, region, component, so=True)
    if before["desiredCount"]:
        await _desire(site, region, component, 0)

    async def gone() -> bool:
        return not await compute.tasks(site, region, component)

    await wait_until(
        site.cloud.clock,
        gone,
        what=f"every task of {component} in {region} to end",
        seconds=seconds,
        every=site.cloud.pause,
        hint=f"aws ecs list-tasks --cluster {site.names.ecs_cluster(region)} --region {region}",
    )
    return {"component": component, "region": region, "changed": bool(before["desiredCount"])}


async def _service(site: Site, region: str, component: str) -> JSON:
    found = (await compute.services(site, region, [component])).get(component)
    if found is None:
        raise NotFound(f"There is no service {component} in {region}.", hint="regionctl infra plan")
    return found


def _given_up(service: JSON) -> bool:
    """The circuit breaker has ended the newest deployment: ECS starts no task of it any more."""
    newest = [each for each in service.get("deployments", []) if each["status"] == "PRIMARY"]
    return any(each.get("rolloutState") == "FAILED" for each in newest)


async def _desire(site: Site, region: str, component: str, count: int, **more: bool) -> None:
    await site.cloud.call(
        "ecs",
        region,
        "update_service",
        cluster=site.names.ecs_cluster(region),
        service=site.names.ecs_service(component),
        desiredCount=count,
        **more,
    )


async def _await(site: Site, region: str, component: str, count: int, seconds: float) -> None:
    async def runs() -> bool:
        return bool((await _service(site, region, component))["runningCount"] >= count)

    await wait_until(
        site.cloud.clock,
        runs,
        what=f"{count} tasks of {component} in {region}",
        seconds=seconds,
        every=site.cloud.pause,
        hint=f"aws ecs describe-services --cluster {site.names.ecs_cluster(region)} "
        f"--services {component} --region {region}",
    )


async def _bounds(site: Site, region: str, component: str, *, least: int) -> None:
    """Load may add tasks to `least`; nothing is suspended."""
    target = await _target(site, region, component)
    if target is None:
        return
    suspended = any(target.get("SuspendedState", {}).get(name) for name in SUSPENSIONS)
    if target["MinCapacity"] == least and not suspended:
        return
    await _register(
        site,
        region,
        component,
        MinCapacity=least,
        MaxCapacity=max(least, target["MaxCapacity"]),
        SuspendedState=dict.fromkeys(SUSPENSIONS, False),
    )


async def _suspend(site: Site, region: str, component: str, *, so: bool) -> None:
    """Without this, load or the target's minimum would start tasks again."""
    if await _target(site, region, component) is not None:
        state = dict.fromkeys(SUSPENSIONS, so)
        await _register(site, region, component, SuspendedState=state)


async def _target(site: Site, region: str, component: str) -> JSON | None:
    answer = await site.cloud.call(
        "application-autoscaling",
        region,
        "describe_scalable_targets",
        ServiceNamespace="ecs",
        ResourceIds=[site.names.scaling_target(component, region)],
    )
    found: list[JSON] = answer["ScalableTargets"]
    return found[0] if found else None


async def _register(site: Site, region: str, component: str, **what: object) -> None:
    await site.cloud.call(
        "application-autoscaling",
        region,
        "register_scalable_target",
        ServiceNamespace="ecs",
        ResourceId=site.names.scaling_target(component, region),
        ScalableDimension=DIMENSION,
        **what,
    )
