"""A judged load run in Markdown, for the summary of a CI job or a ticket. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loadtests.gate import shown
from loadtests.histograms import WARM_UP

JSON = Mapping[str, Any]
WORDS = {True: "met", False: "missed", None: "unknown"}
# A summary is read at a glance; everything is in run.json.
MOST_ERRORS = 10


def markdown(run: JSON) -> str:
    """Verdict first, then why, then the figures."""
    offered = run["offered"]
    facts = f"{offered['started']} arrivals in {run['plan']['seconds']:g} s at {run['target']}"
    blocks = [
        f"## Load run {run['profile']}: {run['verdict']}",
        f"`{run['id']}`, {run['startedAt']}, {facts}, seed {run['seed']}.",
        "\n".join(f"- {why}" for why in _because(run)),
        *_gates(run),
        *_endpoints(run),
        *_budget(run),
        *_errors(run),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _because(run: JSON) -> Iterable[str]:
    if run["partial"] and "drill" not in run:
        yield "**partial**: the run ended before its plan did"
    for why in run["validity"]["because"]:
        yield f"**invalid**: {why}"
    if run["environment"]["colocated"]:
        yield "generator and platform share one machine: times, not capacity"


def _gates(run: JSON) -> list[str]:
    rows = [
        (
            f"`{each['metric']}`",
            where(each["where"]),
            f"{each['op']} {amount(each['limit'], each['unit'])}",
            amount(each["value"], each["unit"]),
            word(each["met"]) if each["met"] else f"**{word(each['met'])}**",
        )
        for each in run["gates"]
    ]
    reasons = [
        f"- `{each['metric']}`: {each['because']}" for each in run["gates"] if not each["met"]
    ]
    if not rows:
        return ["No gates."]
    return [table(("gate", "where", "limit", "measured", "is"), rows), "\n".join(reasons)]


def _endpoints(run: JSON) -> list[str]:
    rows = [
        (
            each["name"],
            each["journey"],
            each["phase"],
            str(each["ok"]),
            str(each["errors"]),
            *(milliseconds(each["intendedMs"][name]) for name in ("p50", "p95", "p99", "max")),
            milliseconds(each["serviceMs"]["p99"]),
        )
        for each in run["endpoints"]
        if each["phase"] != WARM_UP
    ]
    head = (
        "endpoint",
        "journey",
        "phase",
        "ok",
        "errors",
        "p50 ms",
        "p95",
        "p99",
        "max",
        "service p99",
    )
    return [table(head, rows)] if rows else []


def _budget(run: JSON) -> list[str]:
    """All endpoints together, by phase."""
    rows = [
        (
            each["objective"],
            each["phase"].replace("*", "all"),
            f"{each['bad']} of {each['counted']}",
            times(each["burn"]),
            amount(each["spent"], "ratio"),
        )
        for each in run["budget"]
        if each["endpoint"] == "*"
    ]
    return [table(("objective", "phase", "bad", "burn", "budget spent"), rows)] if rows else []


def _errors(run: JSON) -> list[str]:
    worst = sorted(run["errors"], key=lambda each: -each["count"])[:MOST_ERRORS]
    rows = [(each["endpoint"], each["kind"], str(each["count"])) for each in worst]
    return [table(("endpoint", "error", "count"), rows)] if rows else []


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in row)} |"
        for row in lines
    )


def amount(value: float | None, unit: str | None) -> str:
    """A value in the unit of its metric; "-" when it is not known."""
    return "-" if value is None else shown(float(value), unit or "count")


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def times(burn: float | None) -> str:
    if burn is None:
        return "-"
    return f"{burn:,.2f}x" if burn < 100 else f"{burn:,.0f}x"


def where(selected: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in selected.items())


def word(met: bool | None) -> str:
    return WORDS[met]
