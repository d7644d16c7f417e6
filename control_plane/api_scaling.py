"""How many instances each service has in each zone, what they use, and why there are so many."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from control_plane.autoscaler import Group, groups, instances
from control_plane.plane import ControlPlane, plane_of
from infra.provider import Observed

JSON = dict[str, Any]

router = APIRouter()


@router.get("/scaling")
async def get_scaling(request: Request) -> JSON:
    plane = plane_of(request)
    services = [spec.id for spec in plane.topology.instances(kind="service")]
    observed = await plane.provider.observe(services)
    policy = plane.topology.scaling
    return {
        "apiVersion": "regionctl/v1",
        "kind": "Scaling",
        "automatic": policy.automatic,
        "least": policy.min_instances,
        "most": policy.max_instances,
        "cpuPercent": policy.cpu_percent,
        "idlePercent": policy.idle_percent,
        "items": [_item(plane, group, observed) for group in groups(plane.topology)],
    }


def _item(plane: ControlPlane, group: Group, observed: Observed) -> JSON:
    """`usedPercent`: the mean of what processes use of their core, or the part in `cpuLimits`;
    None: unknown."""
    scaler = plane.autoscaler
    ids = instances(plane.topology, group)
    looks = scaler.looks.get(group)
    used = looks[-1].used if looks else ()
    decision = scaler.decisions.get(group)
    known = [scaler.usage[id] for id in ids if id in scaler.usage]
    return {
        "service": group.service,
        "zone": group.zone,
        "desired": len(ids),
        "running": sum(observed.running(id) for id in ids),
        "usedPercent": round(sum(used) / len(used), 1) if used else None,
        "memoryBytes": sum(each.memory_bytes for each in known),
        "threads": sum(each.threads for each in known),
        "why": decision.because if decision else "it has not been looked at yet",
    }
