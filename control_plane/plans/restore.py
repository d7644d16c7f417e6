"""Restore: a database as it was, beside the platform or in its place.

Beside (`to` = "new") it changes nothing that customers see. In place it gives up, on purpose, what
was written since: the old primary is stopped and kept while another node gets the restored data
and takes over under a new epoch, so that what only the old one has can be exported (`salvage`)
before it is copied over. The archive has received everything before that, so the way back is a
restore too.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from control_plane.plan import Plan, Step, premises
from control_plane.plans.backup import restore_lock
from control_plane.plans.failover import mend_rows, need_reason
from control_plane.plans.nodes import can_start, known_map, standby_beside, was_primary
from infra.backups import DATABASE, Target
from infra.lsn import parse_lsn
from infra.provider import Observed
from infra.topology import InstanceSpec, Topology
from runtime.errors import Invalid, NotFound, Refused
from runtime.shardmap import Shard, ShardMap

JSON = dict[str, Any]
NEW, IN_PLACE = "new", "in-place"
LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
ARCHIVED_SECONDS = 30.0


def target_of(at: str | None) -> Target:
    """The target that `--at` names: an ISO 8601 time, an LSN, or else a restore point.

    A time without a zone is UTC. Raises `Invalid` for what looks like a time and is none.
    """
    if at is None:
        return Target()
    if LSN.fullmatch(at):
        return Target(lsn=parse_lsn(at))
    if TIME.match(at):
        try:
            time = datetime.fromisoformat(at)
        except ValueError as error:
            raise Invalid(
                f"{at!r} is no time: {error}.", hint="such as 2026-01-31T23:59:59Z"
            ) from error
        return Target(time=time if time.tzinfo else time.replace(tzinfo=UTC))
    return Target(name=at)


def plan(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    database: str,
    to: str,
    at: str | None = None,
    id: str | None = None,
    server: str | None = None,
    accept_data_loss: bool = False,
    reason: str | None = None,
    **asked: Any,
) -> Plan:
    """`database` as it was at `at` (None: everything archived), from the backup `id`, or else from
    the newest one that reaches it.

    `server` names a restored server that stays beside the platform; by default the operation does.
    """
    known = known_map(shard_map)
    need_reason(accept_data_loss, reason)
    former = to == NEW and DATABASE.fullmatch(database)  # a shard that was given up, perhaps
    if database not in topology.databases and not former:
        names = ", ".join(topology.databases)
        raise NotFound(f"There is no database {database!r}.", hint=f"One of: {names}")
    target_of(at)
    goal: JSON = {"database": database, "at": at, "id": id}
    if to == NEW:
        steps = [
            Step("check-target", goal),
            Step("restore-aside", {**goal, "server": server}),
        ]
        return Plan("restore", database, tuple(steps), locks=(restore_lock(database),))
    if to != IN_PLACE:
        raise Invalid(f"A restore goes to {NEW} or {IN_PLACE}, not to {to!r}.", hint=f"--to {NEW}")
    if database not in known.shards:
        raise Refused(f"{database} is not in the shard map yet.", hint="regionctl shard map")
    return _in_place(topology, observed, known, goal, accept_data_loss=accept_data_loss)


def discard(
    topology: Topology,
    observed: Observed,
    shard_map: ShardMap | None,
    *,
    id: str,
    **asked: Any,
) -> Plan:
    """The restored server `id` ends, and its files are removed."""
    known_map(shard_map)
    step = Step("discard-restored", {"id": id})
    return Plan("restore-discard", id, (step,), locks=(f"restored:{id}",))


def _in_place(
    topology: Topology, observed: Observed, known: ShardMap, goal: JSON, *, accept_data_loss: bool
) -> Plan:
    """The steps in place. Raises `Refused` while slots move, or when the old primary may live on
    where nobody can stop it."""
    database, at = goal["database"], goal["at"]
    shard = known.shards[database]
    if known.moves:
        raise Refused(
            "Slots are being moved, or can still be taken back: a shard that went back in time "
            "would not fit its partner.",
            hint="regionctl shard finish, or restore with --to new",
        )
    _check_reach(topology, observed, shard)
    node = _taker(topology, observed, shard)
    home = topology.instance(node).region
    stops, fences = _silence(topology, observed, shard)
    others = [
        {"instance": each.id, "upstream": node}
        for each in topology.database_nodes(database)
        if each.id != node and can_start(observed, each)
    ]
    deposed = [
        entry
        for entry in others
        if entry["instance"] == shard.primary.instance and was_primary(observed, entry["instance"])
    ]
    change = {"database": database, "instance": node, "home": home, "renew": True}
    answers = observed.running(shard.primary.instance)
    archived = {
        "instance": shard.primary.instance,
        "others": [id for id in stops if id != shard.primary.instance],
        "seconds": ARCHIVED_SECONDS,
    }
    beside = standby_beside(topology, database, node)
    join = [{"database": database, "standby": beside.id}] if beside else []
    steps = [
        Step("check-target", {**goal, "in_place": True}),
        Step("record-unsynced", {"databases": [database]}),
        *(Step("stop-databases", {"instances": [each]}) for each in stops),
        *(Step("fence-instance", {"instance": each, "unfenced": False}) for each in fences),
        *([Step("await-archived", archived)] if answers and not accept_data_loss else []),
        Step("restore-into", {**goal, "instance": node}),
        Step("advance-map", {"changes": [change]}),
        Step("set-epochs", {"databases": [database]}),
        Step("publish-map"),
        Step("record-failover", {"databases": [database], "kind": "restore"}),
        *([Step("salvage", {"standbys": deposed})] if deposed else []),
        *([Step("clone-standbys", {"standbys": others})] if others else []),
        *(
            [Step("join-sync", {"standbys": join}), Step("publish-map")]
            if beside and can_start(observed, beside)
            else []
        ),
        *mend_rows(list(topology.shards)),
    ]
    return Plan(
        "restore",
        database,
        tuple(steps),
        locks=(f"database:{database}", "reshard", restore_lock(database)),
        expected={"primary": node, **_given_up(observed, shard, at)},
        premises=premises(known, [database]),
    )


def _check_reach(topology: Topology, observed: Observed, shard: Shard) -> None:
    region = topology.instance(shard.primary.instance).region
    if region in observed.unreachable:
        raise Refused(
            f"{region}, where the primary of {shard.name} is, cannot be reached.",
            hint=f"regionctl failover plan {region}, or restore with --to new",
            runbook="region-failure",
        )


def _taker(topology: Topology, observed: Observed, shard: Shard) -> str:
    """The node that gets the data: beside the old primary, whose own data is then kept.

    Nobody knows it as a primary before the new map, so no writer can come too early.
    """
    primary = topology.instance(shard.primary.instance)
    beside = standby_beside(topology, shard.name, primary.id)
    wanted: list[InstanceSpec] = [*([beside] if beside else []), primary]
    for node in wanted:
        if can_start(observed, node):
            return node.id
    raise Refused(
        f"No node of {shard.name} in {primary.region} can be started.",
        hint="regionctl up, or restore with --to new",
    )


def _silence(topology: Topology, observed: Observed, shard: Shard) -> tuple[list[str], list[str]]:
    """Whom to stop, the primary first (its standbys and the archive then have everything), and
    whom to end by force."""
    nodes = [node.id for node in topology.database_nodes(shard.name)]
    nodes.sort(key=lambda id: id != shard.primary.instance)
    stops = [id for id in nodes if observed.running(id)]
    return stops, [id for id in nodes if observed.state(id) in ("frozen", "failed")]


def _given_up(observed: Observed, shard: Shard, at: str | None) -> JSON:
    """What of the newest writes the restored database will not have, as far as it is known."""
    target = target_of(at)
    view = observed.postgres(shard.primary.instance)
    if target.time is not None:
        return {"at": at, "lossSeconds": max(0.0, (observed.at - target.time).total_seconds())}
    if target.lsn is not None and view is not None and view.position is not None:
        return {"at": at, "lossBytes": max(0, view.position - target.lsn)}
    return {"at": at or "everything archived"}
