"""The tables of the screens, from the documents of the control plane. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from cli.dash.view import JSON, RUNNING, Cell, ago, between, meter, number, percent, state

NARROW = 100


@dataclass(frozen=True)
class Row:
    """`command` is what to type to see the same, or the cure when something is wrong with it."""

    key: str
    cells: tuple[Cell, ...]
    faulty: bool = False
    command: str = ""
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return " ".join((*(cell.text for cell in self.cells), *self.notes))


@dataclass(frozen=True)
class Sheet:
    """`columns` are headings; those that begin with ">" are aligned to the right."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def regions(document: JSON, width: int) -> Sheet:
    """Every region, the most important columns first; a narrow terminal leaves out some."""
    narrow = width < NARROW
    columns: tuple[str, ...] = (
        "REGION",
        "STATE",
        "ROLE",
        "TRAFFIC",
        ">RATE/s",
        ">P99 ms",
        ">ERR%",
        ">LAG s",
        ">PRIM",
    )
    columns += () if narrow else (">RUNNING", ">BUDGET")
    return Sheet(columns, tuple(_region(each, narrow) for each in document["regions"]))


def _region(region: JSON, narrow: bool) -> Row:
    traffic, instances = region["traffic"], region["instances"]
    bar = "" if narrow else " " + meter(traffic["share"], 5)
    errors, lag = traffic["errorRatio"], region["lagSeconds"]
    cells = [
        Cell(region["name"]),
        state(region["state"]),
        Cell(region["role"]),
        Cell(percent(traffic["share"], 0).rjust(4) + bar),
        Cell(number(traffic["rate"], "{:.1f}")),
        Cell(number(traffic["p99Ms"]), "warn" if (traffic["p99Ms"] or 0) > 500 else ""),
        Cell(percent(errors, 2).removesuffix("%"), "warn" if (errors or 0) > 0.01 else ""),
        Cell(number(lag, "{:.2f}")),
        Cell(str(region["primaries"])),
    ]
    if not narrow:
        short = instances["running"] < instances["all"]
        cells += [
            Cell(f"{instances['running']}/{instances['all']}", "warn" if short else ""),
            Cell(percent(region["budgetLeft"])),
        ]
    return Row(
        region["name"],
        tuple(cells),
        faulty=region["state"] != "healthy",
        command=_cure(region, f"regionctl region show {region['name']}"),
        notes=explained(region),
    )


def explained(thing: JSON) -> tuple[str, ...]:
    """ "why: …" and "try: …" in turn, of what is not as it should be."""
    pairs = zip_longest(thing.get("why") or (), thing.get("try") or ())
    lines = (each for why, cure in pairs for each in (("why", why), ("try", cure)))
    return tuple(f"{word}: {line}" for word, line in lines if line)


def _cure(thing: JSON, otherwise: str) -> str:
    cures: Sequence[str] = thing.get("try") or ()
    return cures[0] if cures else otherwise


def databases(document: JSON, width: int) -> Sheet:
    columns: tuple[str, ...] = (
        "DATABASE",
        "STATE",
        ">SLOTS",
        "PRIMARY",
        ">EPOCH",
        "IN SYNC",
        ">LAG s",
    )
    columns += () if width < NARROW else ("HOME", "REPLICAS")
    return Sheet(columns, tuple(_database(each, width < NARROW) for each in document["shards"]))


def _database(shard: JSON, narrow: bool) -> Row:
    standbys = shard["standbys"]
    lags = [each["lagSeconds"] for each in standbys if each.get("lagSeconds") is not None]
    sync = ", ".join(
        each["id"].partition(".")[2] or each["id"] for each in standbys if each["sync"]
    )
    streaming = sum(bool(each.get("streaming", True)) for each in standbys)
    cells = [
        Cell(shard["name"]),
        state(shard.get("state", "healthy")),
        Cell(str(shard.get("slots", "-"))),
        Cell(shard["primary"].partition(".")[2] or shard["primary"]),
        Cell(str(shard["epoch"])),
        Cell(sync or "none", "" if sync else "bad"),
        Cell(number(max(lags, default=None), "{:.2f}")),
    ]
    if not narrow:
        word = f"{streaming} of {len(standbys)} stream"
        cells += [Cell(shard["home"]), Cell(word, "" if streaming == len(standbys) else "warn")]
    return Row(
        shard["name"],
        tuple(cells),
        faulty=shard.get("state", "healthy") != "healthy",
        command=_cure(shard, "regionctl shard map"),
        notes=explained(shard),
    )


def operations(document: JSON, width: int) -> Sheet:
    columns: tuple[str, ...] = ("OPERATION", "STATE", "WHAT", "TARGET", "STEP", ">TOOK", ">BEGAN")
    columns += () if width < NARROW else ("BY", "REASON")
    rows = [_operation(each, document["at"], width < NARROW) for each in document["operations"]]
    return Sheet(columns, tuple(rows))


def _operation(operation: JSON, at: str, narrow: bool) -> Row:
    running = operation["state"] in RUNNING
    took = between(operation["startedAt"], at if running else operation["finishedAt"])
    began = between(operation["startedAt"], at)
    problem = operation.get("problem")
    detail = problem.get("detail", "") if isinstance(problem, dict) else problem or ""
    cells = [
        Cell(operation["id"]),
        state(operation["state"]),
        Cell(operation["kind"]),
        Cell(operation["target"]),
        Cell(f"{operation['step']}/{operation['steps']}"),
        Cell("-" if took is None else ago(took)),
        Cell("-" if began is None else f"{ago(began)} ago"),
    ]
    if not narrow:
        cells += [Cell(operation["requestedBy"]), Cell(operation["reason"] or "-")]
    return Row(
        operation["id"],
        tuple(cells),
        faulty=operation["state"] in ("failed", "running"),
        command=f"regionctl op {'watch' if running else 'show'} {operation['id']}",
        notes=(f"why: {detail}",) if detail else (),
    )


def objectives(document: JSON) -> Sheet:
    columns = ("OBJECTIVE", ">TARGET", ">GOOD", "BUDGET LEFT", ">BURN 5m", ">BURN 1h")
    rows = []
    for each in document["slo"]:
        burn, left = each.get("burn") or {}, each.get("budgetLeft")
        low = left is not None and left < 0.25
        cells = (
            Cell(each["name"]),
            Cell(f"{each['objective'] * 100:g}%"),
            Cell(percent(each["good"], 3)),
            Cell(f"{meter(left, 10)} {percent(left)}", "bad" if low else ""),
            Cell(number(burn.get("5m"), "{:.1f}x"), "warn" if (burn.get("5m") or 0) > 1 else ""),
            Cell(number(burn.get("1h"), "{:.1f}x"), "warn" if (burn.get("1h") or 0) > 1 else ""),
        )
        rows.append(Row(each["name"], cells, faulty=low, command="regionctl status"))
    return Sheet(columns, tuple(rows))


def instances(status: JSON, region: str | None = None) -> Sheet:
    """The servers of PlatformStatus: those of one region, or all with edge and peers."""
    found = [
        (each["name"], instance)
        for each in status["regions"]
        if region in (None, each["name"])
        for instance in each["instances"]
    ]
    if region is None:
        found += [("-", each) for each in (status["edge"], *status.get("peers", []))]
    rows = []
    for place, each in found:
        running = each["state"] == "running"
        cells = (
            Cell(each["id"]),
            Cell(f"{'●' if running else '✖'} {each['state']}", "ok" if running else "bad"),
            Cell(each["kind"]),
            Cell(each.get("role") or "-"),
            Cell(each.get("zone") or place),
            Cell(str(each.get("pid") or "-")),
            Cell(each.get("address") or "-"),
        )
        command = f"regionctl logs {each['id']} -n 100"
        rows.append(Row(each["id"], cells, faulty=not running, command=command))
    return Sheet(("INSTANCE", "STATE", "KIND", "ROLE", "ZONE", ">PID", "ADDRESS"), tuple(rows))


def server(status: JSON | None, id: str) -> dict[str, Any] | None:
    """What PlatformStatus says about one server."""
    if status is None:
        return None
    found = [*(each for region in status["regions"] for each in region["instances"])]
    found += [status["edge"], *status.get("peers", ())]
    return next((dict(each) for each in found if each["id"] == id), None)
