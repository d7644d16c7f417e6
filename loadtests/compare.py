"""Compares two load runs: how much slower or quicker the second one was, and how sure that is.

    python -m loadtests.compare A B [--seed N]

A and B are folders with run.json. One line of JSON on stdout. Exit: 0 compared, 9 one of the runs
is invalid (then nothing is said about latencies), 2 a file cannot be used.

Each figure has an interval of 95 %, by bootstrap. The k-th of n samples that are drawn again from
the same distribution is its quantile at a Beta(k, n − k + 1) variate, so drawing one number stands
for drawing all n (Efron and Tibshirani 1993, 13; David and Nagaraja, Order Statistics, 2.1).
Requests of a load run are not independent: what is slow now is slow a moment later. So n is taken
as smaller by (1 − ρ) / (1 + ρ), where ρ is the correlation of each second's latency with that of
the second before (Bartlett's effective sample size). What differs between runs of the same thing
on different days is in no interval: that takes several runs of each.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from loadtests import histograms
from loadtests.histograms import NAMED, WARM_UP

JSON = Mapping[str, Any]

QUANTILES = ("p50", "p95", "p99")
DRAWS = 1000
TAIL = 0.025
EVERYTHING = "*"
STILL = 1e-9  # a series that does not move, but for how numbers are rounded
VOID, USAGE = 9, 2


@dataclass(frozen=True)
class Sampled:
    """Latencies of one run: values (ms, ascending) with cumulated counts. `fewer` (0..1]: the
    share of the samples that count as independent."""

    values: tuple[float, ...]
    counts: tuple[int, ...]
    fewer: float

    @property
    def n(self) -> int:
        return self.counts[-1] if self.counts else 0

    def at(self, share: float) -> float:
        """The quantile at a share 0..1."""
        return self.values[min(bisect_left(self.counts, share * self.n), len(self.values) - 1)]

    def redrawn(self, share: float, draw: random.Random) -> float:
        """The quantile of a sample that is drawn again."""
        n = max(int(self.n * self.fewer), 2)
        k = min(max(math.ceil(share * n), 1), n)
        return self.at(draw.betavariate(k, n - k + 1))


def compare(a: JSON, b: JSON, seed: int = 1) -> dict[str, Any]:
    """What changed from run `a` to run `b`. Pure: the same seed, the same answer."""
    invalid = [run["id"] for run in (a, b) if not run["validity"]["valid"]]
    draw = random.Random(seed)  # noqa: S311  for intervals, not a secret
    rows = [] if invalid else [row for key in _keys(a, b) for row in _rows(a, b, key, draw)]
    return {
        "apiVersion": "regionctl/v1",
        "kind": "LoadComparison",
        "a": _side(a),
        "b": _side(b),
        "verdict": "invalid" if invalid else _verdict(rows),
        "notes": [*(f"{id} is invalid: it proves nothing" for id in invalid), *_notes(a, b)],
        "items": rows,
    }


def _side(run: JSON) -> dict[str, Any]:
    return {name: run[name] for name in ("id", "profile", "seed", "startedAt", "verdict")}


def _notes(a: JSON, b: JSON) -> list[str]:
    """What makes the two runs less alike than they should be."""
    told = {
        "profile": (a["profile"], b["profile"]),
        "seed": (a["seed"], b["seed"]),
        "plan": (a["plan"]["segments"], b["plan"]["segments"]),
        **{
            name: (a["environment"][name], b["environment"][name])
            for name in ("cpus", "workers", "colocated", "locust", "python")
        },
    }
    return [
        f"{name}: {before} before, {after} after" if name != "plan" else "the plans differ"
        for name, (before, after) in told.items()
        if before != after
    ]


def _keys(a: JSON, b: JSON) -> list[tuple[str, str]]:
    """(endpoint, phase) that both runs have: first all endpoints of a phase, then each."""

    def of(run: JSON) -> dict[tuple[str, str], None]:
        measured = [each for each in run["endpoints"] if each["phase"] != WARM_UP]
        phases = {(EVERYTHING, str(each["phase"])): None for each in measured}
        return phases | {(str(each["name"]), str(each["phase"])): None for each in measured}

    theirs = of(b)
    return [key for key in of(a) if key in theirs]


def _rows(a: JSON, b: JSON, key: tuple[str, str], draw: random.Random) -> list[dict[str, Any]]:
    endpoint, phase = key
    where = {"phase": phase} | ({} if endpoint == EVERYTHING else {"endpoint": endpoint})
    found = []
    for name in QUANTILES:
        before, after = sampled(a, where, name), sampled(b, where, name)
        if histograms.enough(min(before.n, after.n), NAMED[name]):
            row = _latency(before, after, name, draw)
            found.append({"endpoint": endpoint, "phase": phase, **row})
    found.append({"endpoint": endpoint, "phase": phase, **_errors(a, b, where, draw)})
    return found


def sampled(run: JSON, where: Mapping[str, str], quantile: str) -> Sampled:
    whole = histograms.merged(histograms.selected(run, where), "intended")
    buckets = histograms.buckets(whole)
    return Sampled(
        tuple(value for value, _ in buckets),
        tuple(accumulate(count for _, count in buckets)),
        independent(run, "p50Ms" if quantile == "p50" else "p99Ms"),
    )


def independent(run: JSON, name: str) -> float:
    """The share of the samples that tell something of their own, from how much a second's latency
    says of the next one's."""
    series = [math.log(each[name]) for each in run["timeline"] if each[name]]
    if len(series) < 3:
        return 1.0
    mean = sum(series) / len(series)
    spread = sum((each - mean) ** 2 for each in series)
    together = sum((one - mean) * (other - mean) for one, other in pairwise(series))
    rho = min(max(together / spread, 0.0), 0.99) if spread > STILL else 0.0
    return (1 - rho) / (1 + rho)


def _latency(a: Sampled, b: Sampled, name: str, draw: random.Random) -> dict[str, Any]:
    """The relative change; 0.1 is a tenth slower."""
    share = NAMED[name] / 100
    changes = sorted(b.redrawn(share, draw) / a.redrawn(share, draw) - 1 for _ in range(DRAWS))
    low, high = _interval(changes)
    return {
        "metric": f"latency.{name}",
        "a": a.at(share),
        "b": b.at(share),
        "unit": "ms",
        "change": b.at(share) / a.at(share) - 1,
        "low": low,
        "high": high,
        "is": "slower" if low > 0 else "quicker" if high < 0 else "the same",
    }


def _errors(a: JSON, b: JSON, where: Mapping[str, str], draw: random.Random) -> dict[str, Any]:
    """The difference of the shares that failed, by draws from their Beta(e + ½, n − e + ½)."""
    counts = []
    for run in (a, b):
        chosen = histograms.selected(run, where)
        errors = sum(each["errors"] for each in chosen)
        counts.append((errors, errors + sum(each["ok"] for each in chosen)))
    shares = [errors / n if n else 0.0 for errors, n in counts]
    differences = sorted(_share(counts[1], draw) - _share(counts[0], draw) for _ in range(DRAWS))
    low, high = _interval(differences)
    return {
        "metric": "errors.ratio",
        "a": shares[0],
        "b": shares[1],
        "unit": "ratio",
        "change": shares[1] - shares[0],
        "low": low,
        "high": high,
        "is": "more" if low > 0 else "fewer" if high < 0 else "the same",
    }


def _share(counts: tuple[int, int], draw: random.Random) -> float:
    errors, n = counts
    return draw.betavariate(errors + 0.5, n - errors + 0.5)


def _interval(ordered: Sequence[float]) -> tuple[float, float]:
    last = len(ordered) - 1
    return ordered[round(TAIL * last)], ordered[round((1 - TAIL) * last)]


def _verdict(rows: Sequence[JSON]) -> str:
    """Of all endpoints together: worse when anything is, better when only that."""
    found = {row["is"] for row in rows if row["endpoint"] == EVERYTHING}
    if found & {"slower", "more"}:
        return "worse"
    return "better" if found & {"quicker", "fewer"} else "the same"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtests.compare", description=__doc__)
    parser.add_argument("a", type=Path, help="folder of the earlier run")
    parser.add_argument("b", type=Path, help="folder of the later one")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    try:
        a, b = (
            json.loads((folder / "run.json").read_text(encoding="utf-8"))
            for folder in (asked.a, asked.b)
        )
        found = compare(a, b, asked.seed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stdout.write(json.dumps({"error": f"no two load runs: {error!r}"}) + "\n")
        return USAGE
    sys.stdout.write(json.dumps(found) + "\n")
    return VOID if found["verdict"] == "invalid" else 0


if __name__ == "__main__":
    sys.exit(main())
