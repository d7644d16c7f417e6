"""What to do, decided purely: one verb a file.

Each planner is `plan(topology, observed, shard_map, **asked) -> Plan`; asking for something that a
guard forbids raises `Refused`, and nothing has been touched.
"""

from __future__ import annotations

from collections.abc import Callable

from control_plane.plan import Plan
from control_plane.plans import (
    decommission,
    failback,
    failover,
    provision,
    rejoin,
    relax,
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
}
