"""What to do, decided purely: a file has one verb, or those that belong together.

Each planner is `plan(topology, observed, shard_map, **asked) -> Plan`; asking for something that a
guard forbids raises `Refused`, and nothing has been touched.
"""

from __future__ import annotations

from collections.abc import Callable

from control_plane.plan import Plan
from control_plane.plans import (
    backup,
    decommission,
    failback,
    failover,
    points,
    provision,
    prune,
    rejoin,
    relax,
    reshard,
    reshard_end,
    restore,
    scale,
    switchover,
)

PLANNERS: dict[str, Callable[..., Plan]] = {
    "provision": provision.plan,
    "decommission": decommission.plan,
    "failover": failover.plan,
    "queue-failover": failover.queue,
    "switchover": switchover.plan,
    "failback": failback.plan,
    "relax-sync": relax.plan,
    "rejoin": rejoin.plan,
    "reshard": reshard.plan,
    "reshard-rollback": reshard_end.rollback,
    "reshard-finish": reshard_end.finish,
    "reshard-abort": reshard_end.abort,
    "backup": backup.plan,
    "backup-verify": backup.verify,
    "prune": prune.plan,
    "restore": restore.plan,
    "restore-discard": restore.discard,
    "restore-point": points.plan,
    "scale": scale.plan,
    "scale-hold": scale.hold,
}
