"""How much of what a region wrote the others are known to have. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from infra.provider import Observed, PostgresView
from infra.topology import Topology

Looks = Sequence[tuple[float, Observed]]


def safe_until(topology: Topology, looks: Looks, region: str) -> float | None:
    """The time up to which the other regions have all that the primaries in `region` had written.

    `looks`: when each one began, and what it saw. A replica that has, in any look, what its primary
    had at an earlier one has everything that was acknowledged before that earlier look began:
    no report of a lag and no second clock is trusted. None when a replica has not shown that.
    """
    times: list[float] = []
    for node in topology.instances(kind="postgres", region=region):
        views = [
            (at, view) for at, observed in looks if (view := observed.postgres(node.id)) is not None
        ]
        if not any(view.role == "primary" for _, view in views):
            continue
        for replica in topology.database_nodes(node.component):
            if replica.region != region:
                shown = _shown(views, replica.id)
                if shown is None:
                    return None
                times.append(shown)
    return min(times, default=None)


def _shown(views: Sequence[tuple[float, PostgresView]], replica: str) -> float | None:
    """The last time at which the primary had no more than what the replica has confirmed since."""
    known = [(at, view.position, view) for at, view in views if view.position is not None]
    confirmed = max(
        (
            position - follower.lag_bytes
            for _, position, view in known
            for follower in view.followers
            if follower.instance == replica
        ),
        default=-1,
    )
    return max((at for at, position, _ in known if position <= confirmed), default=None)
