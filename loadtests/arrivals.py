"""When a load test asks for what: a plan of intended start times, made before anything is sent.

Open model: arrivals come at a rate λ(t) that no answer can slow down. λ is piecewise linear, so the
number of arrivals due by t, Λ(t) = ∫λ, is piecewise quadratic and can be inverted: the n-th arrival
is at Λ⁻¹(g₁ + … + gₙ). Gaps g of mean 1, exponential, make it a Poisson process of rate λ(t)
(time-change theorem: Lewis and Shedler 1979); gaps of exactly 1 space the arrivals evenly.

Everything follows from the plan and its seed, so a run can be repeated, by any number of workers:
each walks the same sequence and takes every n-th arrival of it. All times are seconds since the
run's start; nothing here reads a clock.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from math import sqrt
from typing import Any, Literal

JSON = dict[str, Any]
Kind = Literal["constant", "ramp", "step", "spike"]
Spacing = Literal["poisson", "uniform"]
KINDS = ("constant", "ramp", "step", "spike")
SPACINGS = ("poisson", "uniform")
STEADY = "steady"
WARM_UP = "warm-up"


@dataclass(frozen=True)
class Segment:
    """The rate goes from `from_rate` to `to_rate`, in arrivals a second, during `seconds`.

    `kind` says what it is for: a step and a spike are constant too, but not what was before.
    """

    kind: Kind
    from_rate: float
    to_rate: float
    seconds: float

    @property
    def area(self) -> float:
        """How many arrivals are expected in it."""
        return (self.from_rate + self.to_rate) / 2 * self.seconds

    def when(self, area: float) -> float:
        """Seconds into the segment by which `area` arrivals of it are due."""
        slope = (self.to_rate - self.from_rate) / self.seconds
        root = sqrt(max(self.from_rate**2 + 2 * slope * area, 0.0))
        # The usual formula divides by the slope, which may be 0; this one by a rate.
        total = self.from_rate + root
        return min(2 * area / total, self.seconds) if total > 0 else 0.0

    def document(self) -> JSON:
        rates = {"fromRate": self.from_rate, "toRate": self.to_rate}
        return {"kind": self.kind, **rates, "seconds": self.seconds}


@dataclass(frozen=True)
class Phase:
    """Arrivals intended at `begin` <= t < `end` count here."""

    name: str
    begin: float
    end: float

    def document(self) -> JSON:
        return {"name": self.name, "from": self.begin, "to": self.end}


@dataclass(frozen=True)
class Arrival:
    """`draws` are three numbers in [0, 1): what it takes of the users, the products, the rest."""

    n: int
    at: float
    journey: str
    draws: tuple[float, float, float]


@dataclass(frozen=True)
class Plan:
    """`mix`: the weight of each journey. `timeout`: of one request, in seconds.

    `users` are to be registered beforehand, and `skew` is the exponent of the Zipf law by which
    they are taken (0: all alike). `hot` is the share of arrivals whose user is of one shard.
    `limits`, where there are any, end the run early: {"p99Ms", "errors" (0..1)}.
    """

    profile: str
    seed: int
    spacing: Spacing
    segments: tuple[Segment, ...]
    phases: tuple[Phase, ...]
    mix: Mapping[str, float]
    users: int
    timeout: float = 10.0
    skew: float = 0.0
    hot: float = 0.0
    limits: Mapping[str, float] | None = None

    @property
    def seconds(self) -> float:
        return sum(segment.seconds for segment in self.segments)

    @property
    def peak(self) -> float:
        return max(max(each.from_rate, each.to_rate) for each in self.segments)

    def phase_at(self, at: float) -> str:
        """The last phase that has begun by then."""
        name = self.phases[0].name
        for phase in self.phases:
            if at >= phase.begin:
                name = phase.name
        return name

    def document(self) -> JSON:
        return {
            "profile": self.profile,
            "seed": self.seed,
            "spacing": self.spacing,
            "seconds": self.seconds,
            "segments": [segment.document() for segment in self.segments],
            "phases": [phase.document() for phase in self.phases],
            "mix": dict(self.mix),
            "users": self.users,
            "timeoutSeconds": self.timeout,
            "skew": self.skew,
            "hot": self.hot,
            "limits": dict(self.limits) if self.limits else None,
        }


def read(document: Mapping[str, Any]) -> Plan:
    """The plan that `document` describes. Raises `ValueError`, naming what is wrong."""
    try:
        plan = Plan(
            profile=str(document["profile"]),
            seed=int(document["seed"]),
            spacing=document["spacing"],
            segments=tuple(_segment(each) for each in document["segments"]),
            phases=tuple(
                Phase(str(each["name"]), float(each["from"]), float(each["to"]))
                for each in document["phases"]
            ),
            mix={str(name): float(weight) for name, weight in document["mix"].items()},
            users=int(document["users"]),
            timeout=float(document.get("timeoutSeconds", 10.0)),
            skew=float(document.get("skew", 0.0)),
            hot=float(document.get("hot", 0.0)),
            limits=document.get("limits") or None,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the plan has no good {error}") from error
    _check(plan)
    return plan


def _segment(document: Mapping[str, Any]) -> Segment:
    numbers = (float(document[key]) for key in ("fromRate", "toRate", "seconds"))
    return Segment(document["kind"], *numbers)


def _check(plan: Plan) -> None:
    wrong = {
        f"spacing {plan.spacing!r}": plan.spacing not in SPACINGS,
        "no segments": not plan.segments,
        "no phases": not plan.phases,
        "no journeys": not plan.mix or sum(plan.mix.values()) <= 0,
        "a weight below 0": any(weight < 0 for weight in plan.mix.values()),
        "fewer than one user": plan.users < 1,
        "a timeout that is not above 0": not plan.timeout > 0,
        "a share of one shard outside 0..1": not 0 <= plan.hot <= 1,
        "a skew below 0": not plan.skew >= 0,
    }
    for each in plan.segments:
        wrong[f"a segment of kind {each.kind!r}"] = each.kind not in KINDS
        wrong[f"a segment of {each.seconds} s"] = not 0 < each.seconds < float("inf")
        for rate in (each.from_rate, each.to_rate):
            wrong[f"a rate of {rate}"] = not 0 <= rate < float("inf")
    for what, bad in wrong.items():
        if bad:
            raise ValueError(f"the plan has {what}")


def arrivals(plan: Plan) -> Iterator[Arrival]:
    """Every arrival of the run, in order."""
    draw = random.Random(plan.seed)  # noqa: S311  replayable load, not a secret
    names = list(plan.mix)
    bounds = list(accumulate(plan.mix.values()))
    for n, at in enumerate(_times(plan, draw)):
        journey = names[min(bisect_right(bounds, draw.random() * bounds[-1]), len(names) - 1)]
        yield Arrival(n, at, journey, (draw.random(), draw.random(), draw.random()))


def share(plan: Plan, index: int, workers: int) -> Iterator[Arrival]:
    """The arrivals of one worker: 0 <= index < workers. Together they are all, and none twice."""
    return islice(arrivals(plan), index, None, workers)


def due(plan: Plan, until: float | None = None) -> int:
    """How many arrivals are intended before `until`, or at all."""
    end = plan.seconds if until is None else until
    return sum(1 for _ in _before(arrivals(plan), end))


def _before(all_: Iterator[Arrival], end: float) -> Iterator[Arrival]:
    for each in all_:
        if each.at >= end:
            return
        yield each


def _times(plan: Plan, draw: random.Random) -> Iterator[float]:
    """Intended starts. The draws of a gap and of its arrival take turns, by the one generator."""
    ends = list(accumulate(segment.area for segment in plan.segments))
    begins = list(accumulate((each.seconds for each in plan.segments), initial=0.0))
    areas = [0.0, *ends]
    target = -0.5 if plan.spacing == "uniform" else 0.0
    which = 0
    while True:
        target += 1.0 if plan.spacing == "uniform" else draw.expovariate(1.0)
        while which < len(ends) and target >= ends[which]:
            which += 1
        if which == len(ends):
            return
        yield begins[which] + plan.segments[which].when(target - areas[which])


def zipf(count: int, exponent: float) -> list[float]:
    """Cumulated shares, the last one 1: the i-th of `count` is taken in proportion to i^-s."""
    bounds = list(accumulate((rank + 1) ** -exponent for rank in range(count)))
    return [bound / bounds[-1] for bound in bounds]


def pick(bounds: Sequence[float], draw: float) -> int:
    """The index that `draw`, in [0, 1), falls on."""
    return min(bisect_right(bounds, draw), len(bounds) - 1)


def hottest(count: int, exponent: float) -> float:
    """The largest share that one of `count` gets."""
    return zipf(count, exponent)[0]


def phases(names_and_ends: Sequence[tuple[str, float]]) -> tuple[Phase, ...]:
    """Phases that follow each other from 0 on."""
    marks = [("", 0.0), *names_and_ends]
    return tuple(Phase(name, begin, end) for (_, begin), (name, end) in pairwise(marks))
