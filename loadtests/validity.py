"""Whether a load run measured the platform, or its own generator. Pure: run.json in, reasons out.

A run that fails here proves nothing about the platform, good or bad, so it is looked at before any
gate. Whether there are samples enough for a gated quantile is for the gate to say.

The limits: k6's guide asks for at most 80 % of the processor; a start 5 ms late is a twentieth of
the latency target. A machine on which that cannot be kept states another lag limit, and the run
says so. A run that was to go on until the target breaks ended with both at their limits: which of
its steps can be trusted is for `regionctl load capacity` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JSON = Mapping[str, Any]

LAG_LIMIT_MS = 5.0
CPU_LIMIT = 0.8
OFFERED_WITHIN = 0.01
LIMITED_WITHIN = 0.01


def faults(run: JSON) -> list[str]:
    """Why the measurement cannot be trusted, the plainest reason first; empty when it can."""
    if run.get("ended"):
        return [str(run["ended"])]
    answered = _answered(run)
    found = [*_workers(run), *_samples(run, answered)]
    if answered:
        found += [*_offered(run), *_limited(run, answered)]
        if (run.get("brokeAt") or {}).get("by", "generator") == "generator":
            found += _pace(run)
    return found


def _answered(run: JSON) -> int:
    """Requests of which the outcome is known."""
    return sum(each["ok"] + each["errors"] for each in run["endpoints"])


def _workers(run: JSON) -> list[str]:
    generator, found = run["generator"], []
    if generator["missing"]:
        found.append(f"{generator['missing']} of {generator['workers']} workers were lost")
    if run["partial"] and not run.get("brokeAt"):
        found.append("the run was broken off")
    if jumps := generator["clockJumps"]:
        found.append(f"the clock jumped {jumps} times: what was when is not known")
    return found


def _samples(run: JSON, answered: int) -> list[str]:
    if not answered:
        return ["there are no samples at all"]
    measured = [each for each in run["endpoints"] if each["ok"]]
    if not measured:
        return ["not one request was answered as it should: the target was down from the start"]
    return []


def _offered(run: JSON) -> list[str]:
    offered, found = run["offered"], []
    planned, started = offered["planned"], offered["started"]
    if offered["dropped"]:
        found.append(f"{offered['dropped']} arrivals were dropped: more were in flight than fit")
    if abs(started - planned) > OFFERED_WITHIN * planned:
        found.append(f"{started} arrivals were started, {planned} were planned")
    return found


def _pace(run: JSON) -> list[str]:
    generator, found = run["generator"], []
    limit = generator.get("lagLimitMs", LAG_LIMIT_MS)
    if generator["lagP99Ms"] > limit:
        found.append(
            f"the generator was late: 1 % of arrivals more than {generator['lagP99Ms']:.1f} ms, "
            f"the limit is {limit:g} ms"
        )
    if generator["cpuMax"] > CPU_LIMIT:
        share, most = f"{generator['cpuMax']:.0%}", f"{CPU_LIMIT:.0%}"
        found.append(f"the generator was saturated: {share} of a processor, the limit is {most}")
    return found


def _limited(run: JSON, answered: int) -> list[str]:
    limited = sum(each.get("limited", 0) for each in run["endpoints"])
    if limited > LIMITED_WITHIN * (answered + limited):
        return [f"{limited} requests met the platform's rate limit: more users are needed"]
    return []
