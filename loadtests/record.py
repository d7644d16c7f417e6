"""The record of a load run, run.json: what was planned, what was measured, and where."""

from __future__ import annotations

import ipaddress
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtests.arrivals import Plan
from loadtests.collector import Collector
from loadtests.validity import faults

JSON = dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """How a run ended. `finished` is wall clock time; `planned` counts the arrivals that were due.

    `partial`: before its plan did. `because` says why nothing could be measured at all, and
    `broke` at which rate, and by what, the plan's limits were passed.
    """

    begun: float
    finished: float
    planned: int
    partial: bool = False
    because: str = ""
    broke: Mapping[str, Any] | None = None


def compose(id: str, plan: Plan, url: str, seen: Collector, end: Ending, lag_limit: float) -> JSON:
    """run.json as it is before it is judged by gates."""
    measured = seen.measured(end.planned)
    measured["generator"]["lagLimitMs"] = lag_limit
    run: JSON = {
        "apiVersion": "regionctl/v1",
        "kind": "LoadRun",
        "schema": 1,
        "id": id,
        "profile": plan.profile,
        "seed": plan.seed,
        "startedAt": _iso(end.begun),
        "finishedAt": _iso(end.finished),
        "partial": end.partial,
        "target": url,
        "environment": {
            "python": platform.python_version(),
            "locust": version("locust"),
            "cpus": os.cpu_count(),
            "colocated": colocated(url),
            "workers": seen.expected,
        },
        "plan": {**plan.document(), "arrivals": end.planned},
        **measured,
        "gates": [],
        "budget": [],
    }
    if end.because:
        run["ended"] = end.because
    if end.broke:
        run["brokeAt"] = dict(end.broke)
    because = faults(run)
    run["validity"] = {"valid": not because, "because": because}
    run["verdict"] = "invalid" if because else "passed"
    return run


def colocated(url: str) -> bool:
    """Whether generator and target share this machine, so that the rate says little of either."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def write(folder: Path, run: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    draft = folder / "run.json.tmp"
    draft.write_text(json.dumps(run, indent=1), encoding="utf-8")
    draft.replace(folder / "run.json")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
