"""Overview documents of platforms in every state, made by the real document function.

Nothing is random and no clock is read: the same call gives the same document.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane import overview
from control_plane.glances import Glance
from control_plane.operations import Operation, State, StepRecord
from control_plane.plan import Plan, Step
from control_plane.traffic import ERRORS, LATENCY, Level, Measured, Rates, Series
from infra.provider import Follower, InstanceView, Observed, PostgresView, ValkeyView
from infra.provider import State as InstanceState
from infra.topology import InstanceSpec, RegionSpec, Topology, load
from runtime.shardmap import Endpoint, Move, Shard, ShardMap, SlotRange, even_ranges

JSON = dict[str, Any]
NOW = datetime(2026, 11, 23, 9, 14, 7, tzinfo=UTC)
HOME, DR = "us-east-1", "us-west-2"
ENTRY_URL, ADDRESS = "https://127.0.0.1:18001", "http://127.0.0.1:18000"
POINTS = 180


def healthy() -> JSON:
    """Both regions run, orders come in; the last operations were a backup and a drill."""
    return made(topology(), operations=[_backup(12), _drill(11, "succeeded")])


def degraded() -> JSON:
    """The standby of s2 is down, a service too, the serving region is slow, and a backup failed."""
    broken = {"s2.us-east-1b": "stopped", "orders.us-east-1b": "failed"}
    rates = {HOME: Rates(244.0, 910.4, 0.019), DR: IDLE}
    since = {(HOME, LATENCY): _ago(167), (HOME, ERRORS): _ago(45)}
    return made(
        topology(),
        broken=broken,
        unsynced=["s2"],
        lags={"s1.us-west-2a": 18.4},
        measured=_measured(rates, budget=0.88, burn=16.1, over_since=since),
        operations=[_backup(13, "failed"), _backup(12)],
        archives=[_archive("s1"), _archive("s2", gap="WAL was given up"), _archive("catalog")],
    )


def down() -> JSON:
    """No region is open to clients, and the primary region is gone."""
    gone = {spec.id: "stopped" for spec in topology().instances(region=HOME)}
    return made(topology(), broken=gone, route=None, measured=_measured({}), operations=[])


def drill_running() -> JSON:
    """A region-failure drill at its third step."""
    return made(topology(), operations=[_drill(14, "running", done=2), _backup(12)])


def failover_in_progress() -> JSON:
    """The primary of s1 was killed; the sentinel's failover is promoting, beside a drill."""
    return made(
        topology(),
        broken={"s1.us-east-1a": "stopped"},
        unsynced=["s1"],
        operations=[_failover(15), _drill(14, "running", done=4), _backup(12)],
    )


def reshard_in_progress() -> JSON:
    """From two to four shards: one move hands over, another one copies."""
    names = replace(topology(), shards=("s1", "s2", "s3", "s4"))
    moves = (Move(41, "s1", "s3", 256, 511), Move(42, "s2", "s4", 768, 1023))
    shown = [
        _move(moves[0], moved=96, copied=48_210, rows=48_210, lag=1_024),
        _move(moves[1], moved=0, copied=20_931, rows=47_777, lag=None),
    ]
    running = _operation(
        16,
        "reshard",
        "slots",
        ["adopt-shards", "create-primaries", "begin-move", "await-copy", "hand-over", "begin-soak"],
        done=4,
        reason="twice the users by spring",
    )
    owners = (
        *(SlotRange(0, 255, "s1", 7), SlotRange(256, 351, "s3", 8), SlotRange(352, 511, "s1", 7)),
        SlotRange(512, 1023, "s2", 7),
    )
    return made(names, ranges=owners, moves=moves, shown=shown, operations=[running, _backup(12)])


def empty() -> JSON:
    """A control plane over a topology of which nothing has been made yet."""
    nothing = Observed(NOW, {}, unreachable=frozenset({HOME, DR}))
    return _document(topology(), nothing, None)


def big(regions: int = 50, shards: int = 200) -> JSON:
    """A healthy platform of many regions; every shard has a replica in each of them."""
    return made(big_topology(regions, shards), operations=[_backup(12)])


def topology() -> Topology:
    return load("two-regions")


def big_topology(regions: int, shards: int) -> Topology:
    names = [f"region-{number:02}" for number in range(2, regions + 1)]
    more = (RegionSpec(name, "dr", ("a",)) for name in names)
    return replace(
        topology(),
        regions=(RegionSpec("region-01", "primary", ("a", "b")), *more),
        shards=tuple(f"s{number}" for number in range(1, shards + 1)),
    )


def made(
    topology: Topology,
    *,
    broken: Mapping[str, str] | None = None,
    unsynced: Collection[str] = (),
    lags: Mapping[str, float] | None = None,
    route: str | None = "",
    ranges: Sequence[SlotRange] | None = None,
    moves: tuple[Move, ...] = (),
    shown: Sequence[JSON] = (),
    measured: Measured | None = None,
    operations: Sequence[Operation] = (),
    archives: Sequence[JSON] | None = None,
) -> JSON:
    """The document of a provisioned platform, less what is said to be otherwise.

    `broken`: instance → its state; `lags`: standby → seconds; a `route` of "": to the home region.
    """
    return _document(
        topology,
        seen(topology, broken or {}, lags or {}, route),
        shard_map(topology, unsynced, ranges, moves),
        operations=[glance(each) for each in operations],
        measured=measured or _measured(_rates(topology)),
        archives=[_archive(name) for name in topology.databases] if archives is None else archives,
        moves=shown,
    )


def _document(topology: Topology, observed: Observed, map: ShardMap | None, **more: Any) -> JSON:
    known: JSON = {"operations": (), "measured": Measured(), "archives": (), "moves": ()} | more
    newest = int(known["operations"][0].id.rpartition("-")[2]) if known["operations"] else 0
    return overview.document(
        topology,
        observed,
        map,
        generation=newest + (map.version if map else 0),
        entry_url=ENTRY_URL,
        pid=4242,
        address=ADDRESS,
        **known,
    )


def shard_map(
    topology: Topology,
    unsynced: Collection[str] = (),
    ranges: Sequence[SlotRange] | None = None,
    moves: tuple[Move, ...] = (),
) -> ShardMap:
    """Every database at home in its designed primary's region."""
    nodes: dict[str, list[InstanceSpec]] = {}
    for spec in topology.by_id.values():
        if spec.kind == "postgres":
            nodes.setdefault(spec.component, []).append(spec)
    shards = {}
    for name, specs in nodes.items():
        ends = [Endpoint(s.id, s.region, s.zone, "127.0.0.1", 20_000) for s in specs]
        sync = () if name in unsynced else (ends[1].instance,)
        shards[name] = Shard(name, 7, ends[0].region, ends[0], tuple(ends[1:]), sync)
    owned = tuple(ranges) if ranges is not None else even_ranges(topology.shards, 7)
    return ShardMap(31, owned, shards, {}, moves)


def seen(
    topology: Topology,
    broken: Mapping[str, str],
    lags: Mapping[str, float],
    route: str | None = "",
) -> Observed:
    """Everything runs and every standby streams, but for what is broken."""
    nodes: dict[str, list[str]] = {}
    for spec in topology.by_id.values():
        if spec.kind == "postgres":
            nodes.setdefault(spec.component, []).append(spec.id)
    views = {
        spec.id: _view(spec, number, nodes.get(spec.component, ()), broken, lags)
        for number, spec in enumerate(topology.by_id.values())
    }
    home = topology.primary_region.name
    return Observed(NOW, views, route=home if route == "" else route)


def _view(
    spec: InstanceSpec,
    number: int,
    nodes: Sequence[str],
    broken: Mapping[str, str],
    lags: Mapping[str, float],
) -> InstanceView:
    state: InstanceState = broken.get(spec.id, "running")  # type: ignore[assignment]
    pid = 1000 + number if state == "running" else None
    view = InstanceView(spec.id, state, pid, f"127.0.0.1:{20_000 + number}")
    if spec.kind == "valkey":
        return replace(view, valkey=ValkeyView("primary"))
    if spec.kind != "postgres":
        return view
    if spec.id != nodes[0]:
        return replace(view, postgres=PostgresView("standby", upstream=nodes[0]))
    followers = tuple(
        Follower(
            id, streaming=True, sync=id == nodes[1], lag_bytes=0, lag_seconds=lags.get(id, 0.0)
        )
        for id in nodes[1:]
        if id not in broken and spec.id not in broken
    )
    return replace(view, postgres=PostgresView("primary", followers=followers, epoch=7))


IDLE = Rates(0.0)
_RATES = (Rates(411.6, 38.2, 0.0001), Rates(246.2, 41.0, 0.0), Rates(135.0, 55.4, 0.0002))


def _rates(topology: Topology) -> dict[str, Rates]:
    """Of two regions only the primary one serves; of many all do, so that much is seen."""
    many = len(topology.regions) > 2
    return {
        region.name: _RATES[number % 3] if many or region.role == "primary" else IDLE
        for number, region in enumerate(topology.regions)
    }


def _measured(
    rates: Mapping[str, Rates],
    *,
    budget: float = 0.972,
    burn: float = 0.3,
    over_since: Mapping[tuple[str, str], datetime] | None = None,
) -> Measured:
    whole = sum(each.rate or 0.0 for each in rates.values())
    since = _ago(3 * 3600)
    burns = {"5m": burn, "1h": round(burn * 0.8, 2)}
    levels = (
        Level("availability", 0.9999, since, 1 - 1e-4 * (1 - budget), budget, burns),
        Level("latency", 0.99, since, 0.9971, 0.71, burns),
        Level("errors", 0.99, since, 0.9999, 0.99, burns),
    )
    points = tuple(
        Rates(
            round(whole * (0.8 + 0.2 * math.sin(n / 20)), 1),
            round(46 + 6 * math.sin(n / 9), 1),
            0.0001 if n % 40 == 0 else 0.0,
        )
        for n in range(POINTS)
    )
    return Measured(
        regions=rates,
        shares={name: (each.rate or 0.0) / whole for name, each in rates.items()} if whole else {},
        budgets=dict.fromkeys(rates, budget),
        levels=levels,
        series=Series(NOW, points if whole else (Rates(),) * POINTS),
        over_since=over_since or {},
    )


def _ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def _archive(database: str, gap: str | None = None) -> JSON:
    return {
        "database": database,
        "running": True,
        "timeline": 1,
        "received": 50_331_648,
        "uploaded": 50_331_648,
        "spoolBytes": 0,
        "ageSeconds": 2.5,
        "gap": gap,
        "receivedLsn": "0/3000000",
        "uploadedLsn": "0/3000000",
    }


def _move(move: Move, *, moved: int, copied: int, rows: int, lag: int | None) -> JSON:
    return {
        "id": move.id,
        "source": move.source,
        "target": move.target,
        "first": move.first,
        "last": move.last,
        "slots": move.last - move.first + 1,
        "slotsMoved": moved,
        "soakUntil": move.soak_until,
        "rows": rows,
        "copied": copied,
        "lagBytes": lag,
        "healthy": True,
        "problem": None,
    }


def _operation(
    number: int,
    kind: str,
    target: str,
    steps: Sequence[str],
    *,
    done: int,
    state: State = "running",
    reason: str = "",
    by: str = "ana",
    ago: float = 41.0,
) -> Operation:
    """`done` steps have succeeded, and the next one runs or has failed, as `state` says."""
    records = []
    for at, name in enumerate(steps):
        here: Any = "pending" if at > done else "failed" if state == "failed" else "running"
        records.append(StepRecord(at, name, {}, "succeeded" if at < done else here, 1))
    problem = {
        "detail": "the object storage does not answer",
        "hint": f"regionctl op resume op-{number}",
    }
    return Operation(
        id=f"op-{number}",
        plan=Plan(kind, target, tuple(Step(name, {}) for name in steps)),
        state=state,
        reason=reason,
        requested_by=by,
        epoch=1,
        created_at=_ago(ago),
        steps=tuple(records),
        started_at=_ago(ago),
        finished_at=_ago(ago / 2) if state in ("succeeded", "failed") else None,
        problem=problem if state == "failed" else None,
    )


def glance(operation: Operation) -> Glance:
    """What `control_plane.glances` reads of it."""
    step = operation.next_step
    return Glance(
        id=operation.id,
        kind=operation.kind,
        target=operation.target,
        state=operation.state,
        steps=len(operation.steps),
        done=sum(each.state == "succeeded" for each in operation.steps),
        next_step=step.name if step else None,
        began_at=operation.started_at or operation.created_at,
        finished_at=operation.finished_at,
        requested_by=operation.requested_by,
        reason=operation.reason,
        problem=operation.problem,
    )


def _backup(number: int, state: State = "succeeded") -> Operation:
    return _operation(
        number,
        "backup",
        "s1",
        ["take-backup"],
        done=1 if state == "succeeded" else 0,
        state=state,
        reason="the next incremental backup is due",
        by="keeper",
        ago=900.0 + 60 * (20 - number),
    )


def _drill(number: int, state: State, done: int = 7) -> Operation:
    steps = [
        *("check-platform", "start-probe", "inject-fault", "await-recovery"),
        *("stop-probe", "read-back", "judge"),
    ]
    return _operation(
        number, "drill", "region-failure", steps, done=done, state=state, reason="quarterly drill"
    )


def _failover(number: int) -> Operation:
    steps = [
        *("confirm-lost", "record-unsynced", "fence-instance", "promote", "advance-map"),
        *("set-epochs", "publish-map", "record-failover", "return-standbys"),
    ]
    why = "s1.us-east-1a is lost, s1.us-east-1b is in sync"
    return _operation(number, "failover", "s1", steps, done=3, reason=why, by="sentinel", ago=1.2)
