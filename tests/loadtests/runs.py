"""Load runs made by hand: documents as `loadtests.run` writes them, of latencies that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loadtests import histograms

JSON = dict[str, Any]


def histogram(milliseconds: Sequence[float]) -> Any:
    found = histograms.empty()
    for each in milliseconds:
        found.record_value(max(1, round(each * histograms.MICROSECONDS)))
    return found


def encoded(found: Any) -> str:
    return str(found.encode().decode("ascii"))


def endpoint(
    name: str = "create-order",
    phase: str = "steady",
    *,
    intended: Sequence[float],
    service: Sequence[float] | None = None,
    errors: int = 0,
    journey: str = "buy",
) -> JSON:
    """`errors` of the given latencies, the last ones, are those of requests that failed."""
    late, busy = histogram(intended), histogram(intended if service is None else service)
    return {
        "name": name,
        "journey": journey,
        "phase": phase,
        "ok": len(intended) - errors,
        "errors": errors,
        "limited": 0,
        "intended": encoded(late),
        "service": encoded(busy),
        "intendedOk": encoded(histogram(intended[: len(intended) - errors])),
        "intendedMs": percentiles(late),
        "serviceMs": percentiles(busy),
    }


def percentiles(found: Any) -> JSON:
    if not found.get_total_count():
        return dict.fromkeys((*histograms.NAMED, "max", "mean"))
    return {
        **{name: histograms.milliseconds(found, at) for name, at in histograms.NAMED.items()},
        "max": found.get_max_value() / histograms.MICROSECONDS,
        "mean": found.get_mean_value() / histograms.MICROSECONDS,
    }


def run(
    *endpoints: JSON,
    seconds: int = 60,
    phases: Sequence[Mapping[str, Any]] | None = None,
    bad_seconds: Sequence[int] = (),
    each_second: int = 50,
    **own: Any,
) -> JSON:
    """A run.json before it is judged; in each of `bad_seconds` half of the requests failed."""
    timeline = [
        {
            "t": t,
            "started": each_second,
            "ok": each_second // 2 if t in bad_seconds else each_second,
            "errors": each_second - each_second // 2 if t in bad_seconds else 0,
            "p50Ms": 4.0,
            "p99Ms": 900.0 if t in bad_seconds else 12.0 + t % 5,
        }
        for t in range(seconds)
    ]
    return {
        "apiVersion": "regionctl/v1",
        "kind": "LoadRun",
        "id": "load-1",
        "profile": "baseline",
        "seed": 7,
        "startedAt": "2026-11-23T09:00:00+00:00",
        "finishedAt": "2026-11-23T09:01:00+00:00",
        "partial": False,
        "target": "https://127.0.0.1:18001",
        "environment": {
            "python": "3.11",
            "locust": "2.47",
            "cpus": 2,
            "colocated": True,
            "workers": 1,
        },
        "plan": {
            "arrivals": each_second * seconds,
            "seconds": seconds,
            "segments": [
                {"kind": "constant", "fromRate": 50, "toRate": 50, "seconds": seconds},
            ],
            "phases": list(phases or [{"name": "steady", "from": 0, "to": seconds}]),
        },
        "offered": {
            "planned": each_second * seconds,
            "started": each_second * seconds,
            "dropped": 0,
        },
        "generator": {
            "workers": 1,
            "missing": 0,
            "lagP99Ms": 1.0,
            "lagMaxMs": 3.0,
            "cpuMax": 0.4,
            "clockJumps": 0,
        },
        "endpoints": list(endpoints),
        "timeline": timeline,
        "errors": [],
        **own,
    }
