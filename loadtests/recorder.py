"""What one load worker has seen, and how several are put together.

A worker records latencies into HDR histograms by (endpoint, journey, phase, outcome), twice: from
the intended start, and from the real one. Once a second it reports what has changed; a report
repeats the whole of a histogram or a second, so one that is lost or comes twice does no harm.

A request's phase and second are those of its intended start. Times are seconds since the run's
start, histograms count microseconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtests.arrivals import WARM_UP, Plan
from loadtests.histograms import HIGHEST_MICROSECONDS, empty

JSON = dict[str, Any]
Key = tuple[str, str, str, str]
OK, ERROR, LIMITED = "ok", "error", "limited"
OUTCOMES = (OK, ERROR, LIMITED)
WHOLE = "(whole)"
# Fifty steps for a factor e: the percentiles of one second are right within 1 %.
STEPS = 50


@dataclass(frozen=True)
class Sample:
    """One request: when it was meant to start, did start and ended, and how it ended.

    `kind` says what was wrong; empty when nothing was.
    """

    endpoint: str
    journey: str
    intended: float
    start: float
    end: float
    outcome: str
    kind: str = ""


@dataclass
class Second:
    """One second of a run: `slow` counts latencies (from the intended start) by `step`, `late` is
    by how many seconds the generator was late at most."""

    started: int = 0
    ok: int = 0
    errors: int = 0
    late: float = 0.0
    slow: Counter[int] = field(default_factory=Counter)

    def report(self) -> list[Any]:
        return [self.started, self.ok, self.errors, self.late, dict(self.slow)]

    def add(self, report: list[Any]) -> None:
        self.started += report[0]
        self.ok += report[1]
        self.errors += report[2]
        self.late = max(self.late, report[3])
        self.slow.update({int(step): count for step, count in report[4].items()})


@dataclass
class Pair:
    """Both clocks of one key, and their sums in microseconds: a histogram's own mean is slow."""

    intended: HdrHistogram = field(default_factory=empty)
    service: HdrHistogram = field(default_factory=empty)
    intended_sum: int = 0
    service_sum: int = 0

    def record(self, intended: int, service: int) -> None:
        self.intended.record_value(intended)
        self.service.record_value(service)
        self.intended_sum += intended
        self.service_sum += service

    def report(self) -> list[Any]:
        encoded = [each.encode().decode() for each in (self.intended, self.service)]
        return [*encoded, self.intended_sum, self.service_sum]

    def add(self, report: Sequence[Any]) -> None:
        self.intended.decode_and_add(report[0])
        self.service.decode_and_add(report[1])
        self.intended_sum += report[2]
        self.service_sum += report[3]


@dataclass
class Tally:
    """What a worker counts. `due`: arrivals of its share whose time has come; `ok`, `errors`:
    requests; `cpu`: its highest share (0..1) of a processor; `jumps` of the clock."""

    due: int = 0
    started: int = 0
    dropped: int = 0
    in_flight: int = 0
    ok: int = 0
    errors: int = 0
    cpu: float = 0.0
    jumps: int = 0


class Recorder:
    """Of one worker. `raw`: keeps each sample for the next report. `niceness`: its process's."""

    def __init__(self, plan: Plan, *, raw: bool = False) -> None:
        self.plan = plan
        self.raw = raw
        self.niceness = 0
        self.tally = Tally()
        self._pairs: dict[Key, Pair] = {}
        self._seconds: dict[int, Second] = {}
        self._errors: Counter[tuple[str, str]] = Counter()
        self._lag = empty()
        self._samples: list[list[Any]] = []
        self._changed: set[Key] = set()
        self._changed_seconds: set[int] = set()

    def started(self, intended: float, lag: float) -> None:
        """An arrival began, `lag` seconds later than the generator could have begun it. How late
        those of the warm-up are does not count, as nothing of it does."""
        self.tally.started += 1
        second = self._second(intended)
        second.started += 1
        second.late = max(second.late, lag)
        if self.plan.phase_at(intended) != WARM_UP:
            self._lag.record_value(microseconds(lag))

    def request(self, sample: Sample) -> None:
        phase = self._record(sample)
        if sample.outcome != LIMITED:
            second = self._second(sample.intended)
            for counts in (second, self.tally):
                counts.ok += sample.outcome == OK
                counts.errors += sample.outcome == ERROR
            second.slow[step(sample.end - sample.intended)] += 1
        if sample.kind:
            self._errors[sample.endpoint, sample.kind] += 1
        if self.raw:
            self._samples.append(row(sample, phase))

    def journey(self, sample: Sample) -> None:
        """A whole journey, whose endpoint is `WHOLE`; kept apart from requests."""
        self._record(sample)
        if sample.kind:
            self._errors[f"{WHOLE} {sample.journey}", sample.kind] += 1

    def trouble(self, kind: str) -> None:
        """What kept the worker itself from doing its part."""
        self._errors["(worker)", kind] += 1

    def report(self) -> Iterator[JSON]:
        """What has changed since the last one, in pieces that each take a moment to make."""
        samples, self._samples = self._samples, []
        errors = [[*key, count] for key, count in self._errors.items()]
        changed, self._changed = self._changed, set()
        seconds, self._changed_seconds = self._changed_seconds, set()
        yield {
            "tally": vars(self.tally).copy(),
            "niceness": self.niceness,
            "errors": errors,
            "lag": self._lag.encode().decode(),
            "seconds": {number: self._seconds[number].report() for number in seconds},
            "samples": samples,
        }
        for key in changed:
            yield {"pairs": [[*key, self._pairs[key].report()]]}

    def _record(self, sample: Sample) -> str:
        phase = self.plan.phase_at(sample.intended)
        key = (sample.endpoint, sample.journey, phase, sample.outcome)
        pair = self._pairs.get(key) or self._pairs.setdefault(key, Pair())
        pair.record(
            microseconds(sample.end - sample.intended), microseconds(sample.end - sample.start)
        )
        self._changed.add(key)
        return phase

    def _second(self, at: float) -> Second:
        number = int(at)
        self._changed_seconds.add(number)
        return self._seconds.get(number) or self._seconds.setdefault(number, Second())


def microseconds(seconds: float) -> int:
    return min(max(round(seconds * 1e6), 0), HIGHEST_MICROSECONDS)


def step(seconds: float) -> int:
    return round(math.log(max(seconds, 1e-6)) * STEPS)


def quantiles(slow: Mapping[int, int], shares: Iterable[float]) -> list[float | None]:
    """The latency at each share (0..1), in milliseconds; None of nothing."""
    total = sum(slow.values())
    found: list[float | None] = []
    for share in shares:
        below, value = 0, None
        for number in sorted(slow):
            below += slow[number]
            if below >= share * total:
                value = round(math.exp(number / STEPS) * 1000, 3)
                break
        found.append(value)
    return found


COLUMNS = ("endpoint", "phase", "intendedNs", "startNs", "endNs", "outcome", "journey")


def row(sample: Sample, phase: str) -> list[Any]:
    """A line of samples.csv, by `COLUMNS`."""
    times = (round(each * 1e9) for each in (sample.intended, sample.start, sample.end))
    return [sample.endpoint, phase, *times, sample.outcome, sample.journey]
