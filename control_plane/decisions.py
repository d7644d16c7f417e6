"""What the sentinel decides, without a clock or a socket.

    probes  →  health of each server  →  intents (operations to open)

A server is *lost* when both signals say so, the TCP connect and the query, in two probes in a row;
it is *frozen* when its queries are met with silence for `FREEZE_SECONDS`. One signal alone is
doubt, and doubt changes nothing. (Two independent signals: pg_auto_failover; no second automatic
failover within a quiet period unless a person acknowledges the first: orchestrator.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from control_plane.plans import reshard_end
from control_plane.plans.nodes import can_start, follows, others, standby_beside
from infra.provider import InstanceView, Observed, PostgresView, Signals, State, ValkeyView
from infra.topology import InstanceSpec, Topology
from runtime.shardmap import CATALOG, ShardMap

Health = Literal["healthy", "doubtful", "lost", "frozen"]
FREEZE_SECONDS = 1.5
PROBES_TO_LOSE = 2
REPAIR_MAX_SECONDS = 60.0


@dataclass(frozen=True)
class Probe:
    """One look at a server, begun and ended on CLOCK_MONOTONIC (seconds)."""

    began: float
    ended: float
    signals: Signals


@dataclass(frozen=True)
class Intent:
    """An operation that should be opened: a verb of `PLANNERS` and what it is asked."""

    verb: str
    target: str
    asked: Mapping[str, Any]
    because: str

    @property
    def key(self) -> tuple[str, str]:
        return self.verb, self.target


@dataclass(frozen=True)
class Tries:
    """How often a repair was begun without ending the need for it, and when the next may begin
    (seconds on CLOCK_MONOTONIC)."""

    count: int
    next_at: float

    def again(self, now: float) -> Tries:
        """A repair that goes on failing holds its database's lock ever more rarely."""
        return Tries(self.count + 1, now + min(REPAIR_MAX_SECONDS, 2.0**self.count))


@dataclass(frozen=True)
class PastFailover:
    database: str
    at: datetime
    acknowledged: bool


def health(probes: Sequence[Probe]) -> Health:
    """The verdict over a server's probes, oldest first. No probe at all is doubt."""
    if not probes:
        return "doubtful"
    last = probes[-1].signals
    if last.sql == "ok":
        return "healthy"
    recent = probes[-PROBES_TO_LOSE:]
    if len(recent) == PROBES_TO_LOSE and all(_refused(probe.signals) for probe in recent):
        return "lost"
    silent = []
    for probe in reversed(probes):
        if probe.signals.sql != "timeout":
            break
        silent.append(probe)
    if len(silent) >= PROBES_TO_LOSE and silent[0].ended - silent[-1].began >= FREEZE_SECONDS:
        return "frozen"
    return "doubtful"


def _refused(signals: Signals) -> bool:
    return signals.tcp == "refused" and signals.sql == "refused"


GONE: tuple[Health, ...] = ("lost", "frozen")


def urgent(
    topology: Topology,
    shard_map: ShardMap,
    verdicts: Mapping[str, Health],
    failovers: Iterable[PastFailover],
    now: datetime,
) -> list[Intent]:
    """What cannot wait: failovers of databases and queues, and standbys that commits wait for.

    A database fails over by itself only to a standby that is recorded in sync and healthy; when
    there is none, nothing is opened: losing data needs a person.
    """
    past = list(failovers)
    intents = []
    for name, shard in shard_map.shards.items():
        primary = verdicts.get(shard.primary.instance, "doubtful")
        standing = [verdicts.get(standby, "doubtful") for standby in shard.sync]
        if primary in GONE and "healthy" in standing:
            if not _quiet(topology, past, name, now):
                because = f"{shard.primary.instance} is {primary}"
                intents.append(Intent("failover", name, {"target": name}, because))
        elif primary == "healthy" and standing and all(each in GONE for each in standing):
            because = f"{shard.sync[0]} is {standing[0]}"
            intents.append(Intent("relax-sync", name, {"database": name}, because))
    for region, queue in shard_map.queues.items():
        if verdicts.get(queue.instance) in GONE and any(
            verdicts.get(node.id) == "healthy"
            for node in topology.instances(component="queue", region=region)
        ):
            because = f"{queue.instance} is {verdicts[queue.instance]}"
            intents.append(Intent("queue-failover", region, {"region": region}, because))
    return intents


def quiet_until(
    topology: Topology, failovers: Iterable[PastFailover], database: str
) -> datetime | None:
    """Until when no automatic failover of `database` may follow its last unacknowledged one."""
    open_ones = [
        past.at for past in failovers if past.database == database and not past.acknowledged
    ]
    period = timedelta(seconds=topology.failover.quiet_period_seconds)
    return max(open_ones) + period if open_ones else None


def _quiet(
    topology: Topology, failovers: Iterable[PastFailover], database: str, now: datetime
) -> bool:
    until = quiet_until(topology, failovers, database)
    return until is not None and now < until


def repairs(topology: Topology, observed: Observed, shard_map: ShardMap) -> list[Intent]:
    """What restores redundancy: nodes that can start and do not follow, standbys not in sync.

    And what ends a wait for a standby that is gone and not recorded: commits would hang for ever.
    """
    intents = []
    for name, shard in shard_map.shards.items():
        primary = shard.primary.instance
        if not observed.running(primary) or _is_being_made(topology, observed, shard_map, name):
            continue
        view = observed.postgres(primary)
        waits_for = view.sync_names if view else ()
        if waits_for and not shard.sync and not any(observed.running(id) for id in waits_for):
            # Left behind by a join or a relaxation that failed half way.
            because = f"{primary} waits for {waits_for[0]}, which does not run"
            intents.append(Intent("relax-sync", name, {"database": name}, because))
        astray = [
            node.id
            for node in others(topology, shard)
            if can_start(observed, node) and not follows(observed, node.id, primary)
        ]
        beside = standby_beside(topology, name, primary)
        if not astray and beside and can_start(observed, beside) and beside.id not in shard.sync:
            astray = [beside.id]
        if astray:
            because = f"{', '.join(astray)} does not stand by"
            intents.append(Intent("rejoin", name, {"database": name}, because))
    return intents


def _is_being_made(topology: Topology, observed: Observed, shard_map: ShardMap, name: str) -> bool:
    """A new shard that owns nothing yet gets its nodes from the reshard that makes it."""
    idle = not shard_map.slots_of(name) and name != CATALOG
    moves = any(name in (move.source, move.target) for move in shard_map.moves)
    absent = any(observed.state(n.id) == "absent" for n in topology.database_nodes(name))
    return idle and not moves and absent


def map_is_behind(observed: Observed, shard_map: ShardMap) -> bool:
    """Whether services of a region that answers read an older map."""
    return any(
        version < shard_map.version
        for region, version in observed.map_versions.items()
        if region not in observed.unreachable
    )


def observed_from(
    topology: Topology, shard_map: ShardMap, verdicts: Mapping[str, Health], at: datetime
) -> Observed:
    """The part of the world that an urgent plan needs, from what the probes already know."""

    def view(spec: InstanceSpec) -> InstanceView:
        state = _STATES[verdicts.get(spec.id, "doubtful")]
        if spec.kind == "valkey":
            return InstanceView(spec.id, state, valkey=ValkeyView("primary"))
        shard = shard_map.shards.get(spec.component)
        primary = shard is not None and shard.primary.instance == spec.id
        return InstanceView(
            spec.id, state, postgres=PostgresView("primary" if primary else "standby")
        )

    watched = [*topology.instances(kind="postgres"), *topology.instances(component="queue")]
    return Observed(at=at, instances={spec.id: view(spec) for spec in watched})


_STATES: dict[Health, State] = {
    "healthy": "running",
    "doubtful": "failed",
    "lost": "stopped",
    "frozen": "frozen",
}


@dataclass(frozen=True)
class Load:
    """What moving slots costs the platform now.

    `replica_lag_bytes` is the most that a standby or replica of source or target lacks,
    `backlog_bytes` WAL of the source that waits for the target, `failed_percent` the share of
    requests that failed lately; None: not known. `taker_lag_bytes` is the most that a standby or
    replica lacks of the shard that takes the slots; None: one of them does not follow.
    """

    replica_lag_bytes: int = 0
    backlog_bytes: int | None = None
    failed_percent: float | None = None
    taker_lag_bytes: int | None = 0


MOST_REPLICA_LAG_BYTES = 64 * 1024 * 1024
MOST_BACKLOG_BYTES = 1024 * 1024 * 1024
NEAR_BYTES = 4 * 1024 * 1024


def throttle(load: Load, *, held: bool, error_rate_percent: float) -> str | None:
    """Why copy and stream should wait now; None: they may go on.

    What is held goes on only when the lag is half of what held it, so that it does not flutter. A
    held stream keeps WAL on the source's disk: beyond `MOST_BACKLOG_BYTES` it goes on in any case.
    """
    if load.backlog_bytes is not None and load.backlog_bytes > MOST_BACKLOG_BYTES:
        return None
    lag = MOST_REPLICA_LAG_BYTES // (2 if held else 1)
    if load.replica_lag_bytes > lag:
        return f"a replica is {load.replica_lag_bytes / 2**20:.0f} MiB behind"
    if load.failed_percent is not None and load.failed_percent > error_rate_percent:
        return f"{load.failed_percent:.1f} % of requests fail"
    return None


def not_now(load: Load, *, error_rate_percent: float) -> str | None:
    """Why no slots should be handed over now; None: they may.

    The pause would be long. Or a region that is lost afterwards would take rows with it that the
    old owner's replica has, and the new owner's has not.
    """
    if load.backlog_bytes is None:
        return "the stream does not answer"
    if load.backlog_bytes > NEAR_BYTES:
        return f"the target is {load.backlog_bytes / 2**20:.0f} MiB behind"
    if load.taker_lag_bytes is None:
        return "a replica of the shard that takes the slots does not follow (regionctl status)"
    if load.taker_lag_bytes > NEAR_BYTES:
        behind = load.taker_lag_bytes / 2**20
        return f"a replica of the shard that takes the slots is {behind:.0f} MiB behind"
    return throttle(load, held=True, error_rate_percent=error_rate_percent)


def due_finish(shard_map: ShardMap, now: datetime) -> list[Intent]:
    """The end of a reshard whose soak is over: nobody has taken it back."""
    until = [move.soak_until for move in shard_map.moves]
    if not until or not all(each and datetime.fromisoformat(each) <= now for each in until):
        return []
    return [Intent("reshard-finish", "slots", {}, "the soak of the last reshard is over")]


def left_behind(topology: Topology, shard_map: ShardMap, kind: str, state: str) -> list[Intent]:
    """What is left of shards that the map has no more, because the end of their reshard failed.

    `kind` and `state` are of the newest operation that moved slots or ended a reshard. While one
    goes on, or a reshard failed before its new shards had slots, what is missing is its own matter.
    """
    left = [name for name in topology.shards if name not in shard_map.shards]
    if not left or shard_map.moves or kind not in reshard_end.VERBS or state != "failed":
        return []
    because = f"{kind} failed and left {', '.join(left)} behind, which the map has no more"
    return [Intent("reshard-abort", "slots", {}, because)]
