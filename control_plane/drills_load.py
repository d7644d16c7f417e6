"""Load that runs while a drill does: its steps, and what the drill's report says of it. Pure.

The probe proves what was lost and when service came back; the load shows what that was like for
everybody else, endpoint by endpoint, and what it cost of the error budgets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.plan import Step
from runtime.errors import Invalid

JSON = dict[str, Any]

RECORD = re.compile(r"run-(\d+)/load/run\.json")
# A p99 before the fault needs 3000 requests, and the profile baseline sends a hundred a second.
STEADY_SECONDS = 32.0
MORE_SECONDS = 10.0
PERCENTILES = ("p50", "p95", "p99", "max")
EVERYTHING = "*"


@dataclass(frozen=True)
class Load:
    """A profile of `loadtests.profiles`, with its rates times `rate_scale`, stretched or pressed
    into `seconds` unless that is None."""

    profile: str
    rate_scale: float
    seconds: float | None
    seed: int


def check(profile: str | None, rate_scale: float, seconds: float | None, seed: int) -> Load | None:
    """Raises `Invalid`. None: no load is asked for. Which profiles there are, the load program
    knows."""
    if profile is None:
        return None
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", profile):
        raise Invalid(f"{profile!r} is no load profile.", hint="regionctl load profiles")
    if not 0.01 <= rate_scale <= 100:
        raise Invalid("The rates of a load profile can be taken 0.01 to 100 times.")
    if seconds is not None and not 1 <= seconds <= 86_400:
        raise Invalid("A load profile can be stretched into 1 to 86400 seconds.")
    return Load(profile, rate_scale, seconds, seed)


def under(load: Load | None, number: int, drill: str, steps: Sequence[Step]) -> list[Step]:
    """The steps of one repeat, with this load around them: it is steady before the probe begins,
    goes on for a while after the recovery, and is judged when the repeat has been."""
    if load is None:
        return list(steps)
    this: JSON = {"run": number}
    begin = {
        **this,
        "profile": load.profile,
        "rate_scale": load.rate_scale,
        "seconds": load.seconds,
        "seed": load.seed + number,
        "steady_seconds": STEADY_SECONDS,
    }
    found = [Step("start-load", begin)]
    for step in steps:
        if step.name == "stop-probe":
            found.append(Step("end-load", {**this, "more_seconds": MORE_SECONDS}))
        found.append(step)
        if step.name == "judge":
            found.append(Step("judge-load", {**this, "drill": drill}))
    return found


def section(files: Mapping[str, bytes]) -> JSON | None:
    """What the report says of the load, from the record of each repeat; None without any."""
    runs = [
        _run(int(match[1]), json.loads(content))
        for path, content in sorted(files.items())
        if (match := RECORD.fullmatch(path))
    ]
    return {"profile": runs[0]["profile"], "runs": runs} if runs else None


def _run(number: int, record: Mapping[str, Any]) -> JSON:
    return {
        "run": number,
        "id": record["id"],
        "profile": record["profile"],
        "seed": record["seed"],
        "verdict": record["verdict"],
        "because": record["validity"]["because"],
        "offered": record["offered"],
        "phases": record["plan"]["phases"],
        "gates": record["gates"],
        "endpoints": [
            {
                **{key: each[key] for key in ("name", "journey", "phase", "ok", "errors")},
                **{f"{name}Ms": each["intendedMs"][name] for name in PERCENTILES},
            }
            for each in record["endpoints"]
        ],
        "budget": record["budget"],
    }


def sentences(report: Mapping[str, Any]) -> list[str]:
    """Of each repeat with load: what of which budget it spent."""
    load = report.get("load")
    return [_sentence(run) for run in load["runs"]] if load else []


def _sentence(run: Mapping[str, Any]) -> str:
    whole = [
        f"{100 * each['spent']:.3g} % of {each['objective']}"
        for each in run["budget"]
        if each["endpoint"] == each["phase"] == EVERYTHING and each["spent"] is not None
    ]
    spent = f"spent of the error budgets: {', '.join(whole)}" if whole else "spent is not known"
    why = f" ({'; '.join(run['because'])})" if run["because"] else ""
    return f"load {run['profile']}, run {run['run']}: {run['verdict']}{why}; {spent}"


def tables(
    report: Mapping[str, Any],
) -> Iterable[tuple[str, Sequence[str], list[Sequence[str]]]]:
    """(title, head, rows) of each repeat: latencies and errors, then budgets, by endpoint and
    phase."""
    for run in (report.get("load") or {"runs": []})["runs"]:
        yield (
            f"Load {run['profile']}, run {run['run']}: latency from the intended start",
            ("endpoint", "journey", "phase", "ok", "errors", "p50", "p95", "p99", "max"),
            [_endpoint(each) for each in run["endpoints"]],
        )
        yield (
            f"Load {run['profile']}, run {run['run']}: error budgets",
            ("objective", "endpoint", "phase", "bad", "of", "burn", "spent"),
            [_budget(each) for each in run["budget"] if each["counted"]],
        )


def _endpoint(each: Mapping[str, Any]) -> Sequence[str]:
    times = (each[f"{name}Ms"] for name in PERCENTILES)
    return (
        each["name"],
        each["journey"],
        each["phase"],
        str(each["ok"]),
        str(each["errors"]),
        *("-" if time is None else f"{time:.1f} ms" for time in times),
    )


def _budget(each: Mapping[str, Any]) -> Sequence[str]:
    return (
        each["objective"],
        each["endpoint"].replace(EVERYTHING, "all"),
        each["phase"].replace(EVERYTHING, "all"),
        str(each["bad"]),
        str(each["counted"]),
        "-" if each["burn"] is None else f"{each['burn']:.1f}x",
        "-" if each["spent"] is None else f"{100 * each['spent']:.3g} %",
    )
