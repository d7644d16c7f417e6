"""What a drill measured beside its objectives, as sentences for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JSON = Mapping[str, Any]
GIGABYTE = 1e9


def lines(report: JSON) -> list[str]:
    """Of each repeat that has figures; with several repeats each line says whose it is."""
    repeats = report["repeats"]
    found = []
    for repeat in repeats:
        told = _of(repeat.get("figures") or {})
        found += told if len(repeats) == 1 else [f"run {repeat['run']}: {line}" for line in told]
    return found


def _of(figures: JSON) -> list[str]:
    found = []
    if "handovers" in figures:
        found.append(_pauses(figures))
    if "merge" in figures:
        found.append(_merge(figures["merge"]))
    if figures.get("extrapolated"):
        found.append(_extrapolated(figures["extrapolated"]))
    return found


def _pauses(figures: JSON) -> str:
    told = ", ".join(f"{name} {_short(value)}" for name, value in figures["pauseSeconds"].items())
    return (
        f"{figures['handovers']} hand-overs; pause of writes {told}; not known of "
        f"{figures.get('unknownPauses', 0)} more; a client waited "
        f"{_short(figures.get('longestWaitSeconds'))} for a write at most"
    )


def _short(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.0f} ms"


def _merge(merge: JSON) -> str:
    back = _rows(merge["insertedRows"]), _rows(merge["restoredRows"])
    return (
        f"came back: {back[0]} that were deleted, {back[1]} that were changed; "
        f"{merge['keptLiveChanges']} of these rows kept what services did since"
    )


def _rows(counts: JSON) -> str:
    return ", ".join(f"{count} {table}" for table, count in counts.items()) or "no rows"


def _extrapolated(told: JSON) -> str:
    return (
        f"measured {told['megabytesPerSecond']:.1f} MB/s on {told['measuredBytes'] / 1e6:.1f} MB; "
        f"a database of {told['productionBytes'] / GIGABYTE:g} GB would take "
        f"{told['rtoSeconds'] / 3600:.1f} h at this speed"
    )
