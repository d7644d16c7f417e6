"""How much platform so many customers need, by what one instance was measured to bear. Pure.

Little's law (Little 1961): in a stable system L = λW. The L customers who are there at once each
spend W seconds in a journey and Z seconds thinking before the next, so journeys come at a rate of
λ = L / (W + Z); and of the requests λr that follow from it, λr·S are being answered at any moment,
where S is the time that one takes.

An instance stands for one process of each service. Rates are per second, times in seconds.
Of a zone that is lost the others carry the load: each zone has so many instances that without as
many zones as may be lost there still are enough (N+1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from statistics import median
from typing import Any

from runtime.errors import Invalid

JSON = Mapping[str, Any]
UTILISATION = 0.7
POOL_SHARE = 0.8
WRITES = ("POST", "PUT", "PATCH", "DELETE")
WARM_UP = "warm-up"
INSTANT = 1e-6


@dataclass(frozen=True)
class Stair:
    """One step of a breakpoint run: what was offered, and what became of it.

    `rate`: arrivals a second; `requests` of which the outcome is known, a second. `held`: neither
    latency nor errors were beyond the plan's limits. `late`: the generator was, so that the step
    says nothing of the platform. `begin`, `end`: seconds since the run began.
    """

    rate: float
    requests: float
    p99_ms: float | None
    errors: float
    held: bool
    late: bool = False
    begin: float = 0.0
    end: float = 0.0


@dataclass(frozen=True)
class Measured:
    """What a load run says of the platform that it ran against.

    `ceiling`: requests a second that it bore; `broke`: whether more was too much, or the run ended
    before that, so that the ceiling is at least this. `each`: requests of one journey, `writes` of
    them change something. `journey` and `request`: mean seconds. All of them are of the steps that
    held: a step that was too much says how long its queue was.
    """

    ceiling: float
    broke: bool
    each: float
    writes: float
    journey: float
    request: float


@dataclass(frozen=True)
class Assumed:
    """What nobody measures: how many customers, how long they think, and on how much the
    measurement was made.

    `utilisation`: of the ceiling, so much is used on an ordinary day (where autoscaling begins).
    `writes_per_shard`: a second; None: as many as each shard bore in the measurement. Of `zones`
    with as many instances each, `lost_zones` may be lost.
    """

    users: int = 100_000
    think: float = 30.0
    utilisation: float = UTILISATION
    instances: int = 1
    shards: int = 1
    writes_per_shard: float | None = None
    zones: int = 2
    lost_zones: int = 1


# The usual mix of journeys, for when nothing was measured.
USUAL_EACH = 3.05
USUAL_WRITES = 0.55


@dataclass(frozen=True)
class Needed:
    """What they need. `instances` in all zones together, `in_each_zone` of them in each.
    `connections`: to databases, in use at once; `pool`: all that there must be for these to be at
    most 80 % of it; `pool_of_instance`: of each instance, when only those serve that are left."""

    journeys: float
    requests: float
    writes: float
    in_flight: float
    instances: int
    in_each_zone: int
    shards: int
    connections: int
    pool: int
    pool_of_instance: int


Price = Callable[[Needed], Mapping[str, Any] | None]


def needed(measured: Measured, assumed: Assumed) -> Needed:
    """Raises `Invalid` for what cannot be: nobody, no time, no ceiling."""
    _check(measured, assumed)
    journeys = assumed.users / (measured.journey + assumed.think)
    requests = journeys * measured.each
    writes = journeys * measured.writes
    of_one = measured.ceiling / assumed.instances * assumed.utilisation
    left = assumed.zones - assumed.lost_zones
    in_each_zone = whole(requests / of_one / left)
    in_flight = requests * measured.request
    connections = whole(in_flight)
    pool = whole(connections / POOL_SHARE)
    return Needed(
        journeys=journeys,
        requests=requests,
        writes=writes,
        in_flight=in_flight,
        instances=in_each_zone * assumed.zones,
        in_each_zone=in_each_zone,
        shards=whole(writes / (writes_of_shard(measured, assumed) * assumed.utilisation)),
        connections=connections,
        pool=pool,
        pool_of_instance=whole(pool / (in_each_zone * left)),
    )


def writes_of_shard(measured: Measured, assumed: Assumed) -> float:
    """Writes a second that one shard bears; measured, it is at least this."""
    if assumed.writes_per_shard is not None:
        return assumed.writes_per_shard
    if not measured.writes:
        return math.inf
    return measured.ceiling * measured.writes / measured.each / assumed.shards


def whole(amount: float) -> int:
    """The fewest things that are enough, at least one."""
    return max(math.ceil(amount - 1e-9), 1)


def _check(measured: Measured, assumed: Assumed) -> None:
    above = {
        "users": assumed.users,
        "utilisation": assumed.utilisation,
        "instances": assumed.instances,
        "shards": assumed.shards,
        "ceiling": measured.ceiling,
        "requests of a journey": measured.each,
        "time between journeys": measured.journey + assumed.think,
        "writes of a shard": writes_of_shard(measured, assumed) if assumed.shards else 0,
    }
    for what, value in above.items():
        if not value > 0:
            raise Invalid(f"The {what} must be above 0, not {value:g}.", hint="load capacity -h")
    if not 0 <= assumed.lost_zones < assumed.zones:
        raise Invalid(
            f"Of {assumed.zones} zone(s) {assumed.lost_zones} cannot be lost: one must be left.",
            hint="--zones 2 --lost-zones 1; 0 counts on no loss",
        )
    if assumed.think < 0 or assumed.utilisation > 1:
        raise Invalid("Nobody thinks for less than no time, nothing is used by more than 100 %.")


def read(run: JSON) -> Measured:
    """What run.json says. Raises `Invalid` when it says nothing."""
    found = steps(run)
    if not run["offered"]["started"] or not run["endpoints"]:
        raise Invalid("The run has no samples.", hint="regionctl load capacity")
    ceiling, broke = ceiling_of(found)
    if not ceiling:
        raise Invalid(
            "Not one step of the run kept its limits: what an instance bears is not known.",
            hint="regionctl load capacity --rate-scale 0.2",
        )
    phases = held_phases(run, found)
    endpoints = [each for each in run["endpoints"] if each["phase"] in phases]
    journeys = [each for each in run["journeys"] if each["phase"] in phases]
    requests, played = _count(endpoints), _count(journeys)
    if not requests or not played:
        raise Invalid(
            "The run does not tell its steps apart: those that held have no phase of their own.",
            hint="regionctl load capacity makes a new one",
        )
    return Measured(
        ceiling=ceiling,
        broke=broke,
        each=requests / played,
        writes=_count(each for each in endpoints if each["name"].startswith(WRITES)) / played,
        journey=_mean(journeys, "intendedMs"),
        request=_mean(endpoints, "serviceMs"),
    )


def held_phases(run: JSON, found: Sequence[Stair]) -> set[str]:
    """The phases all of which lies within steps that held, up to the first that did not."""
    held = list(takewhile(lambda step: step.held, found))
    return {
        each["name"]
        for each in run["plan"]["phases"]
        if each["name"] != WARM_UP
        and any(
            step.begin <= each["from"] + INSTANT and each["to"] <= step.end + INSTANT
            for step in held
        )
    }


def steps(run: JSON) -> list[Stair]:
    """The plan's segments as they went. The first second of one still has the answers of the one
    before; one of which not half was played says nothing."""
    limits = run["plan"].get("limits") or {}
    found, begin = [], 0.0
    for segment in run["plan"]["segments"]:
        end = begin + segment["seconds"]
        seconds = [each for each in run["timeline"] if begin + 1 <= each["t"] < end]
        begin = end
        flat = segment["kind"] in ("step", "constant")
        if flat and seconds and len(seconds) >= (segment["seconds"] - 1) / 2:
            step = _step(segment["fromRate"], seconds, limits, _lag_limit(run))
            found.append(replace(step, begin=end - segment["seconds"], end=end))
    return found


def _lag_limit(run: JSON) -> float:
    return float(run["generator"]["lagLimitMs"])


def _step(rate: float, seconds: Sequence[JSON], limits: JSON, lag_limit: float) -> Stair:
    """Its p99 is the median of those of its seconds: one slow second is not yet the ceiling."""
    answered = sum(each["ok"] + each["errors"] for each in seconds)
    errors = sum(each["errors"] for each in seconds) / answered if answered else 1.0
    slow = [each["p99Ms"] for each in seconds if each["p99Ms"] is not None]
    p99 = median(slow) if slow else None
    late = median(each["lateMs"] for each in seconds) > lag_limit
    held = (
        p99 is not None
        and p99 <= limits.get("p99Ms", math.inf)
        and errors <= limits.get("errors", 1.0)
    )
    return Stair(rate, answered / len(seconds), p99, errors, held and not late, late)


def ceiling_of(found: Sequence[Stair]) -> tuple[float, bool]:
    """The most requests a second of the steps before the first that did not hold; whether it was
    the platform that did not."""
    bore = 0.0
    for step in found:
        if not step.held:
            return bore, not step.late
        bore = max(bore, step.requests)
    return bore, False


def stated(ceiling: float, request: float, measured: Measured | None = None) -> Measured:
    """With a ceiling that somebody knows better; all else as measured, or the usual mix with
    `request` seconds for each request."""
    if measured is not None:
        return replace(measured, ceiling=ceiling, broke=True)
    journey = USUAL_EACH * request
    return Measured(ceiling, True, USUAL_EACH, USUAL_WRITES, journey, request)


def _count(rows: Iterable[JSON]) -> int:
    return sum(each["ok"] + each["errors"] for each in rows)


def _mean(rows: Sequence[JSON], clock: str) -> float:
    """Of all samples of these rows, in seconds."""
    pairs = [(each["ok"] + each["errors"], each[clock]["mean"] or 0.0) for each in rows]
    total = sum(count for count, _ in pairs)
    return sum(count * mean for count, mean in pairs) / total / 1000 if total else 0.0


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def document(
    measured: Measured, assumed: Assumed, found: Sequence[Stair], price: Price | None
) -> dict[str, Any]:
    """Everything as JSON, assumptions first. `price` says what the needed costs by the month."""
    need = needed(measured, assumed)
    cost = price(need) if price else None
    of_shard = writes_of_shard(measured, assumed)
    return {
        "apiVersion": "regionctl/v1",
        "kind": "Capacity",
        "assumed": asdict(assumed),
        "measured": asdict(measured),
        "shardBears": finite(of_shard),
        "steps": [asdict(step) for step in found],
        "needed": asdict(need),
        "cost": dict(cost) if cost else None,
    }
