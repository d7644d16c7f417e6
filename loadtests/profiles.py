"""The profiles: which load, how long, and what for.

    python -m loadtests.profiles [NAME] [--rate-scale X] [--seconds S] [--seed N]

Prints all of them, or the plan of one, as JSON; exit code 2 and a problem document (RFC 9457) for
what cannot be. Rates are arrivals (journeys) a second; one journey
is about three requests.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from loadtests.arrivals import STEADY, WARM_UP, Plan, Segment, Spacing, due, hottest, phases

JSON = dict[str, Any]
MIX = {"checkout": 0.35, "refresh": 0.35, "search": 0.2, "cancel": 0.1}
ORDERING = ("checkout", "cancel")
# What the platform lets one user do in a minute; of the rest of requests, 300.
ORDERS_PER_MINUTE = 30
REQUESTS_PER_MINUTE = 300
REQUESTS_EACH = 4
# A Poisson process now and then has half as many again in a minute.
MARGIN = 1.5
MOST_USERS = 20_000
# When most come for the users of one shard: there are enough of them on one of so many shards.
HOT_USERS = 4


@dataclass(frozen=True)
class Profile:
    """`warm_up` seconds at its beginning are not judged. `purpose` is for people."""

    name: str
    purpose: str
    segments: tuple[Segment, ...]
    warm_up: float
    skew: float = 0.3
    hot: float = 0.0
    spacing: Spacing = "poisson"
    limits: Mapping[str, float] | None = None


def constant(rate: float, seconds: float) -> Segment:
    return Segment("constant", rate, rate, seconds)


def ramp(begin: float, end: float, seconds: float) -> Segment:
    return Segment("ramp", begin, end, seconds)


def steps(first: float, last: float, by: float, seconds: float) -> tuple[Segment, ...]:
    """A staircase from `first` to `last`, both included, with `seconds` on each step."""
    count = math.floor((last - first) / by) + 1
    rates = (first + number * by for number in range(count))
    return tuple(Segment("step", rate, rate, seconds) for rate in rates)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            "whether everything works, and keeps its levels at a low rate",
            (constant(20, 70),),
            warm_up=10,
        ),
        Profile(
            "baseline",
            "an ordinary day; what drills run under",
            (ramp(5, 30, 30), constant(30, 300)),
            warm_up=40,
        ),
        Profile(
            "peak",
            "the busiest hour, reached slowly",
            (ramp(10, 60, 60), constant(60, 300)),
            warm_up=70,
        ),
        Profile(
            "spike",
            "five times the load from one second to the next, and back again",
            (constant(15, 70), Segment("spike", 75, 75, 60), constant(15, 120)),
            warm_up=10,
        ),
        Profile(
            "soak",
            "an hour at an ordinary rate: what leaks, fills up or is forgotten",
            (ramp(5, 20, 30), constant(20, 3600)),
            warm_up=40,
        ),
        Profile(
            "hot-shard",
            "four arrivals of five are for users of one shard",
            (constant(30, 190),),
            warm_up=10,
            hot=0.8,
        ),
        Profile(
            "breakpoint",
            "more and more, until answers are late or wrong: where the ceiling is",
            (constant(10, 10), *steps(20, 400, 20, 20)),
            warm_up=10,
            skew=0.0,
            limits={"p99Ms": 500.0, "errors": 0.01},
        ),
    )
}


def plan_of(
    profile: Profile, *, rate_scale: float = 1.0, seconds: float | None = None, seed: int = 1
) -> Plan:
    """The profile with its rates times `rate_scale`, stretched or pressed into `seconds`.

    Raises `ValueError` for a scale or a time that is not above 0, and when so many users would be
    needed that it takes longer to register them than to test anything.
    """
    if not 0 < rate_scale < math.inf:
        raise ValueError(f"the rate scale must be above 0, not {rate_scale:g}")
    whole = sum(segment.seconds for segment in profile.segments)
    if seconds is not None and not 0 < seconds < math.inf:
        raise ValueError(f"the time must be above 0 seconds, not {seconds:g}")
    stretch = 1.0 if seconds is None else seconds / whole
    segments = tuple(
        Segment(
            each.kind,
            each.from_rate * rate_scale,
            each.to_rate * rate_scale,
            each.seconds * stretch,
        )
        for each in profile.segments
    )
    total, warm_up = whole * stretch, profile.warm_up * stretch
    peak = max(max(each.from_rate, each.to_rate) for each in segments)
    return Plan(
        profile=profile.name,
        seed=seed,
        spacing=profile.spacing,
        segments=segments,
        phases=phases([(WARM_UP, warm_up), *_judged(segments, total)]),
        mix=MIX,
        users=users_for(peak, MIX, profile.skew) * (HOT_USERS if profile.hot else 1),
        skew=profile.skew,
        hot=profile.hot,
        limits=profile.limits,
    )


def _judged(segments: Sequence[Segment], total: float) -> list[tuple[str, float]]:
    """What follows the warm-up: one phase, or where the load goes up by steps one for each of
    them, so that what a step that was too much did to latencies is told apart."""
    ends = accumulate(segment.seconds for segment in segments)
    stairs = [
        (f"{segment.from_rate:g}/s", end)
        for segment, end in zip(segments, ends, strict=True)
        if segment.kind == "step"
    ]
    return stairs or [(STEADY, total)]


def users_for(peak: float, mix: Mapping[str, float], skew: float) -> int:
    """How many users keep the hottest of them within what the platform lets one user do.

    A power of two, at least 16. Raises `ValueError` when it is more than `MOST_USERS`.
    """
    whole = sum(mix.values())
    orders = peak * 60 * sum(mix.get(name, 0.0) for name in ORDERING) / whole
    requests = peak * 60 * REQUESTS_EACH
    users = 16
    while users <= MOST_USERS:
        most = hottest(users, skew) * MARGIN
        if orders * most <= ORDERS_PER_MINUTE and requests * most <= REQUESTS_PER_MINUTE:
            return users
        users *= 2
    raise ValueError(
        f"{peak:g} arrivals a second need more than {MOST_USERS} users, "
        "by what the platform lets one of them do"
    )


def listing() -> list[JSON]:
    """All profiles, for people."""
    found = []
    for profile in PROFILES.values():
        plan = plan_of(profile)
        found.append(
            {
                "name": profile.name,
                "purpose": profile.purpose,
                "seconds": plan.seconds,
                "warmUpSeconds": profile.warm_up,
                "peakRate": plan.peak,
                "users": plan.users,
                "segments": [segment.document() for segment in plan.segments],
                "mix": dict(plan.mix),
            }
        )
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """What changes a profile, for every program that takes one."""
    parser.add_argument("--rate-scale", type=float, default=1.0, help="times the profile's rates")
    parser.add_argument("--seconds", type=float, help="stretch or press the profile into them")
    parser.add_argument("--seed", type=int, default=1)


def named(name: str, rate_scale: float, seconds: float | None, seed: int) -> Plan:
    """Raises `ValueError` for a name that no profile has too."""
    if name not in PROFILES:
        raise ValueError(f"there is no profile {name!r}; there are {', '.join(PROFILES)}")
    return plan_of(PROFILES[name], rate_scale=rate_scale, seconds=seconds, seed=seed)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.profiles", description=__doc__)
    parser.add_argument("name", nargs="?")
    add_options(parser)
    asked = parser.parse_args(arguments)
    try:
        if asked.name:
            plan = named(asked.name, asked.rate_scale, asked.seconds, asked.seed)
            document: JSON = {**plan.document(), "arrivals": due(plan)}
        else:
            document = {"profiles": listing()}
    except ValueError as error:
        document = {"type": "urn:regionctl:problem:Invalid", "status": 422, "detail": f"{error}."}
    sys.stdout.write(json.dumps(document) + "\n")
    return 2 if "type" in document else 0


if __name__ == "__main__":
    sys.exit(main())
