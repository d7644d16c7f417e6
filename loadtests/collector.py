"""Puts the reports of all workers together: what a run has measured so far, and in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtests.histograms import MICROSECONDS, NAMED, empty
from loadtests.recorder import ERROR, LIMITED, OK, WHOLE, Key, Second, Tally, quantiles

JSON = dict[str, Any]
Encoded = tuple[str, str]
# Seconds over which the live percentiles are taken, so that they do not jump.
WINDOW = 5


@dataclass
class Seen:
    """The latest reports of one worker."""

    tally: Tally = field(default_factory=Tally)
    pairs: dict[Key, Encoded] = field(default_factory=dict)
    seconds: dict[int, list[Any]] = field(default_factory=dict)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    lag: str = ""
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
            seen.errors = Counter({(a, b): count for a, b, count in report["errors"]})
            seen.seconds |= {int(number): each for number, each in report["seconds"].items()}
        for endpoint, journey, phase, outcome, intended, service in report.get("pairs", ()):
            seen.pairs[endpoint, journey, phase, outcome] = (intended, service)

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
        rows = self._rows()
        return {
            "offered": {"planned": planned, "started": tally.started, "dropped": tally.dropped},
            "generator": {
                "workers": self.expected,
                "missing": self.expected - self.walked,
                "lagP99Ms": lag["p99"],
                "lagMaxMs": lag["max"],
                "cpuMax": round(tally.cpu, 3),
                "clockJumps": tally.jumps,
            },
            "endpoints": [each for each in rows if each["name"] != WHOLE],
            "journeys": [each for each in rows if each["name"] == WHOLE],
            "timeline": [_moment(number, each) for number, each in self.seconds().items()],
            "errors": [
                {"endpoint": endpoint, "kind": kind, "count": count}
                for (endpoint, kind), count in sorted(errors.items())
            ],
        }

    def _rows(self) -> list[JSON]:
        merged: dict[Key, list[Encoded]] = defaultdict(list)
        for seen in self.workers.values():
            for key, encoded in seen.pairs.items():
                merged[key].append(encoded)
        found: dict[tuple[str, str, str], dict[str, list[Encoded]]] = defaultdict(dict)
        for (endpoint, journey, phase, outcome), each in sorted(merged.items()):
            found[endpoint, journey, phase][outcome] = each
        return [endpoint_row(*key, outcomes) for key, outcomes in found.items()]


def endpoint_row(
    name: str, journey: str, phase: str, outcomes: Mapping[str, Iterable[Encoded]]
) -> JSON:
    """One row of run.json. An error counts with the time that it took; what met a rate limit was
    not carried out, and counts apart."""
    pairs = {outcome: _add(encoded) for outcome, encoded in outcomes.items()}
    both = [pairs[outcome] for outcome in (OK, ERROR) if outcome in pairs]
    intended, service = empty(), empty()
    for pair in both:
        intended.add(pair[0])
        service.add(pair[1])
    counts = {outcome: int(pair[0].get_total_count()) for outcome, pair in pairs.items()}
    return {
        "name": name,
        "journey": journey,
        "phase": phase,
        "ok": counts.get(OK, 0),
        "errors": counts.get(ERROR, 0),
        "limited": counts.get(LIMITED, 0),
        "intended": intended.encode().decode(),
        "service": service.encode().decode(),
        "intendedMs": figures(intended),
        "serviceMs": figures(service),
        "outcomes": [
            {"outcome": outcome, "count": counts[outcome], "intendedMs": figures(pair[0])}
            for outcome, pair in pairs.items()
        ],
    }


def _add(encoded: Iterable[Encoded]) -> tuple[HdrHistogram, HdrHistogram]:
    intended, service = empty(), empty()
    for one, other in encoded:
        intended.decode_and_add(one)
        service.decode_and_add(other)
    return intended, service


def figures(histogram: HdrHistogram) -> JSON:
    """Percentiles, highest and mean in milliseconds; all None of nothing."""
    if not histogram.get_total_count():
        return dict.fromkeys((*NAMED, "max", "mean"))
    at = histogram.get_percentile_to_value_dict(list(NAMED.values()))
    found = {name: at[percent] / MICROSECONDS for name, percent in NAMED.items()}
    found["max"] = histogram.get_max_value() / MICROSECONDS
    found["mean"] = round(histogram.get_mean_value() / MICROSECONDS, 3)
    return found


def _moment(number: int, second: Second) -> JSON:
    p50, p99 = quantiles(second.slow, (0.5, 0.99))
    counts = {"started": second.started, "ok": second.ok, "errors": second.errors}
    return {"t": number, **counts, "p50Ms": p50, "p99Ms": p99}


def _lag_ms(lag: HdrHistogram) -> JSON:
    if not lag.get_total_count():
        return {"p99": 0.0, "max": 0.0}
    return {
        "p99": lag.get_value_at_percentile(99.0) / MICROSECONDS,
        "max": lag.get_max_value() / MICROSECONDS,
    }
