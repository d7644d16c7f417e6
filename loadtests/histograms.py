"""Latencies of a load run, from the HDR histograms in its run.json. Pure.

A histogram counts microseconds, three significant figures; in run.json it is HDR V2 compressed
base64 (https://hdrhistogram.github.io/HdrHistogram/). `intended` counts from the moment at which a
request was meant to start, `service` from the one at which it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from hdrh.histogram import HdrHistogram

from loadtests.gatefile import NAMED as NAMED

JSON = Mapping[str, Any]
Clock = Literal["intended", "service"]

MICROSECONDS = 1000.0  # in a millisecond
HIGHEST_MICROSECONDS = 3_600_000_000
FIGURES = 3
WARM_UP = "warm-up"
ABOVE = 30  # samples that must lie above a quantile that is believed


def empty() -> HdrHistogram:
    return HdrHistogram(1, HIGHEST_MICROSECONDS, FIGURES)


def decode(encoded: str) -> HdrHistogram:
    """Raises `ValueError` for what is no histogram."""
    try:
        return HdrHistogram.decode(encoded)
    except Exception as error:  # the library raises what its parts do: zlib, ctypes, base64
        raise ValueError(f"no HDR histogram: {error!r}") from error


def merged(endpoints: Iterable[JSON], clock: Clock) -> HdrHistogram:
    """All samples of these endpoints as one histogram."""
    whole = empty()
    for endpoint in endpoints:
        whole.add(decode(endpoint[clock]))
    return whole


def selected(run: JSON, where: Mapping[str, str]) -> list[JSON]:
    """The endpoints that `where` names; without a phase all but the warm-up."""
    names = {"phase": "phase", "endpoint": "name", "journey": "journey"}
    return [
        each
        for each in run["endpoints"]
        if all(each[names[key]] == wanted for key, wanted in where.items())
        and ("phase" in where or each["phase"] != WARM_UP)
    ]


def milliseconds(histogram: HdrHistogram, percent: float) -> float:
    return float(histogram.get_value_at_percentile(percent)) / MICROSECONDS


def enough(samples: int, percent: float) -> bool:
    """Whether so many samples say something about this quantile: 30 must lie above it."""
    return samples * (1 - percent / 100) >= ABOVE - 1e-6


def needed(percent: float) -> int:
    """The fewest samples that are enough."""
    return round(ABOVE / (1 - percent / 100))


def buckets(histogram: HdrHistogram) -> list[tuple[float, int]]:
    """(highest value of the bucket in milliseconds, samples in it), ascending, none empty."""
    return [
        (item.value_iterated_to / MICROSECONDS, int(item.count_added_in_this_iter_step))
        for item in histogram.get_recorded_iterator()
    ]


def slower(histogram: HdrHistogram, limit_ms: float) -> int:
    """How many samples took longer."""
    return sum(count for value, count in buckets(histogram) if value > limit_ms)


def curve(histogram: HdrHistogram, shares: Sequence[float]) -> list[tuple[float, float]]:
    """(percentile, milliseconds) at each of these percentiles; nothing without samples."""
    if not histogram.get_total_count():
        return []
    return [(share, milliseconds(histogram, share)) for share in shares]
