"""Puts the reports of all workers together: what a run has measured so far, and in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtests.histograms import MICROSECONDS, NAMED, empty
from loadtests.recorder import ERROR, LIMITED, OK, WHOLE, Key, Pair, Second, Tally, quantiles

JSON = dict[str, Any]
Report = list[Any]
# Seconds over which the live percentiles are taken, so that they do not jump.
WINDOW = 5


@dataclass
class Seen:
    """The latest reports of one worker."""

    tally: Tally = field(default_factory=Tally)
    pairs: dict[Key, Report] = field(default_factory=dict)
    seconds: dict[int, list[Any]] = field(default_factory=dict)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    lag: str = ""
    niceness: int = 0
    walked: bool = False


class Collector:
    """Of the whole run. `expected` workers share the plan."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.workers: dict[str, Seen] = defaultdict(Seen)

    def add(self, worker: str, report: Mapping[str, Any]) -> None:
        """A piece of a worker's report, as `Recorder.report` makes them."""
        seen = self.workers[worker]
        if "tally" in report:
            seen.tally = Tally(**report["tally"])
            seen.lag = report["lag"]
            seen.niceness = report["niceness"]
            seen.errors = Counter({(a, b): count for a, b, count in report["errors"]})
            seen.seconds |= {int(number): each for number, each in report["seconds"].items()}
        for endpoint, journey, phase, outcome, pair in report.get("pairs", ()):
            seen.pairs[endpoint, journey, phase, outcome] = pair

    @property
    def tally(self) -> Tally:
        """Sums; of the processor's share the highest."""
        whole = Tally()
        for seen in self.workers.values():
            for name, value in vars(seen.tally).items():
                before = getattr(whole, name)
                setattr(whole, name, max(before, value) if name == "cpu" else before + value)
        return whole

    @property
    def walked(self) -> int:
        """How many workers have come to their share's end."""
        return sum(seen.walked for seen in self.workers.values())

    def seconds(self, begin: int = 0) -> dict[int, Second]:
        """Each second from `begin` on."""
        found: dict[int, Second] = defaultdict(Second)
        for seen in self.workers.values():
            for number, report in seen.seconds.items():
                if number >= begin:
                    found[number].add(report)
        return dict(sorted(found.items()))

    def progress(self, at: float) -> JSON:
        """One line for whoever watches, at `at` seconds. Percentiles are of the last seconds."""
        tally, recent = self.tally, self.seconds(max(int(at) - WINDOW, 0))
        slow: Counter[int] = Counter()
        for second in recent.values():
            slow.update(second.slow)
        p50, p99 = quantiles(slow, (0.5, 0.99))
        last = [second.started for number, second in recent.items() if number < int(at)]
        return {
            "t": round(at, 1),
            "started": tally.started,
            "ok": tally.ok,
            "errors": tally.errors,
            "inFlight": tally.in_flight,
            "dropped": tally.dropped,
            "p50Ms": p50,
            "p99Ms": p99,
            "rate": round(sum(last) / max(min(int(at), WINDOW), 1), 1),
            "lagMs": _lag_ms(self.lag())["p99"],
            "cpu": round(tally.cpu, 2),
        }

    def lag(self) -> HdrHistogram:
        whole = empty()
        for seen in self.workers.values():
            if seen.lag:
                whole.decode_and_add(seen.lag)
        return whole

    def measured(self, planned: int) -> JSON:
        """The parts of run.json that only the workers know."""
        tally, lag = self.tally, _lag_ms(self.lag())
        errors: Counter[tuple[str, str]] = sum(
            (seen.errors for seen in self.workers.values()), Counter()
        )
        found = self._rows()
        return {
            "offered": {"planned": planned, "started": tally.started, "dropped": tally.dropped},
            "generator": {
                "workers": self.expected,
                "missing": self.expected - self.walked,
                "lagP99Ms": lag["p99"],
                "lagMaxMs": lag["max"],
                "cpuMax": round(tally.cpu, 3),
                "clockJumps": tally.jumps,
                "niceness": max((seen.niceness for seen in self.workers.values()), default=0),
            },
            "endpoints": [each for each in found if each["name"] != WHOLE],
            "journeys": [each for each in found if each["name"] == WHOLE],
            "timeline": [_moment(number, each) for number, each in self.seconds().items()],
            "errors": [
                {"endpoint": endpoint, "kind": kind, "count": count}
                for (endpoint, kind), count in sorted(errors.items())
            ],
        }

    def _rows(self) -> list[JSON]:
        merged: dict[Key, Pair] = defaultdict(Pair)
        for seen in self.workers.values():
            for key, report in seen.pairs.items():
                merged[key].add(report)
        return rows(merged)


def rows(merged: Mapping[Key, Pair]) -> list[JSON]:
    """The rows of run.json: one for each endpoint, journey and phase."""
    found: dict[tuple[str, str, str], dict[str, Pair]] = defaultdict(dict)
    for (endpoint, journey, phase, outcome), pair in sorted(merged.items(), key=lambda e: e[0]):
        found[endpoint, journey, phase][outcome] = pair
    return [_row(*key, outcomes) for key, outcomes in found.items()]


def _row(name: str, journey: str, phase: str, outcomes: Mapping[str, Pair]) -> JSON:
    """An error counts with the time that it took; what met a rate limit was not carried out, and
    counts apart."""
    whole = Pair()
    for outcome in (OK, ERROR):
        if outcome in outcomes:
            whole.add(outcomes[outcome].report())
    counts = {outcome: int(pair.intended.get_total_count()) for outcome, pair in outcomes.items()}
    return {
        "name": name,
        "journey": journey,
        "phase": phase,
        "ok": counts.get(OK, 0),
        "errors": counts.get(ERROR, 0),
        "limited": counts.get(LIMITED, 0),
        "intended": whole.intended.encode().decode(),
        "service": whole.service.encode().decode(),
        "intendedOk": outcomes.get(OK, Pair()).intended.encode().decode(),
        "intendedMs": figures(whole.intended, whole.intended_sum),
        "serviceMs": figures(whole.service, whole.service_sum),
        "outcomes": [
            {
                "outcome": outcome,
                "count": counts[outcome],
                "intendedMs": figures(pair.intended, pair.intended_sum),
            }
            for outcome, pair in outcomes.items()
        ],
    }


def figures(histogram: HdrHistogram, total: int) -> JSON:
    """Percentiles, highest and mean in milliseconds; all None of nothing. `total`: the sum."""
    count = histogram.get_total_count()
    if not count:
        return dict.fromkeys((*NAMED, "max", "mean"))
    at = histogram.get_percentile_to_value_dict(list(NAMED.values()))
    found = {name: at[percent] / MICROSECONDS for name, percent in NAMED.items()}
    found["max"] = histogram.get_max_value() / MICROSECONDS
    found["mean"] = round(total / count / MICROSECONDS, 3)
    return found


def _moment(number: int, second: Second) -> JSON:
    p50, p99 = quantiles(second.slow, (0.5, 0.99))
    counts = {"started": second.started, "ok": second.ok, "errors": second.errors}
    late = round(second.late * 1000, 3)
    return {"t": number, **counts, "p50Ms": p50, "p99Ms": p99, "lateMs": late}


def _lag_ms(lag: HdrHistogram) -> JSON:
    if not lag.get_total_count():
        return {"p99": 0.0, "max": 0.0}
    return {
        "p99": lag.get_value_at_percentile(99.0) / MICROSECONDS,
        "max": lag.get_max_value() / MICROSECONDS,
    }
