"""Restore points: one moment of all databases together, with the shard map of that moment."""

from __future__ import annotations

import re
from typing import Any

from control_plane.plan import Plan, Step
from control_plane.plans.backup import backup_lock
from control_plane.plans.nodes import known_map
from control_plane.plans.restore import LSN, TIME
from infra.provider import Observed
from infra.topology import Topology
from runtime.errors import Invalid, Refused
from runtime.shardmap import ShardMap

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    name: str,
    **asked: Any,
) -> Plan:
    """Every slot is held for some milliseconds; writers wait inside their requests.

    The provider refuses it in the instant in which slots are handed over; beside the rest of a
    reshard, which may take hours, a point is made.
    """
    known = known_map(shard_map)
    if not NAME.fullmatch(name) or TIME.match(name) or LSN.fullmatch(name):
        raise Invalid(
            f"{name!r} is no name for a restore point.",
            hint="at most 63 letters, digits, '.', '_', '-'; such as before-release-7",
        )
    for database, shard in known.shards.items():
        if not observed.running(shard.primary.instance):
            raise Refused(
                f"{shard.primary.instance}, the primary of {database}, does not answer.",
                hint="regionctl status",
                runbook="database-failure",
            )
    step = Step("mark-point", {"name": name})
    return Plan("restore-point", name, (step,), locks=(backup_lock("points"),))
