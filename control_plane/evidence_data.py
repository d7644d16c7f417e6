"""What the drills about data prove beyond the ledger, from the files of one repeat. Pure.

moves-grow.json, moves-shrink.json   reshard: operation with its steps, finished, detail
detected.json, repaired.json         data-corruption: at, broken (invariants); held
merge.json                           data-corruption: what came back, what was kept
restore.json                         copies (times, bytes, LSN of each), productionBytes, at
copies.json                          backup-restore: at, asked, missing, copies (rows, problems)
damages.json                         kind, caught, saw of each planted damage
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from control_plane import ledger as ledgers
from control_plane.drills import Drill
from control_plane.ledger import Ledger, Loss, percentile

JSON = dict[str, Any]

LEAST_HANDOVERS = 20
WAYS = ("grow", "shrink")
BY_SIZE = ("download", "verify", "combine", "checksums")
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Findings:
    """`rto` and `loss` in place of the ledger's, when the drill measures something else."""

    rto: Mapping[str, float | None] | None = None
    loss: Loss | None = None
    pause: float | None = None
    invariants: tuple[JSON, ...] = ()
    phases: tuple[JSON, ...] = ()
    figures: JSON = field(default_factory=dict)
    controls: tuple[JSON, ...] = ()


def find(spec: Drill, book: Ledger, fault: JSON, documents: Mapping[str, Any]) -> Findings:
    """Raises `KeyError` for a document that is missing, as for one that is damaged."""
    controls = tuple(documents.get("damages.json", ()))
    if spec.name == "reshard":
        return _moves(book, documents)
    if spec.measure == "repair":
        return _repair(fault, documents, controls)
    if spec.measure == "restore":
        return _copies(book, fault, documents, controls)
    return Findings()


def _moves(book: Ledger, documents: Mapping[str, Any]) -> Findings:
    ways = [documents[f"moves-{way}.json"] for way in WAYS]
    steps = [step for way in ways for step in way["operation"]["steps"]]
    pauses = [pause for step in steps for pause in handovers(step)]
    unequal = [f"slots {slots}" for step in steps if (slots := _unequal(step))]
    bad = [each["operation"] for each in ways if each["operation"]["state"] != "succeeded"]
    unfinished = [each["detail"] for each in ways if not each["finished"]]
    enough = len(pauses) >= LEAST_HANDOVERS
    p99 = percentile(pauses, 99)
    return Findings(
        pause=p99,
        invariants=(
            held(
                "every move succeeded", not bad, ", ".join(f"{b['id']} {b['state']}" for b in bad)
            ),
            held("nothing of the moves is left", not unfinished, "; ".join(unfinished)),
            held("both sides equal after every hand-over", not unequal, "; ".join(unequal[:3])),
            held(f"at least {LEAST_HANDOVERS} hand-overs", enough, f"{len(pauses)} hand-overs"),
        ),
        figures={
            "handovers": len(pauses),
            "unknownPauses": sum(_unknown(step) for step in steps),
            "longestWaitSeconds": ledgers.longest_wait(book),
            "pauseSeconds": {
                "p50": percentile(pauses, 50),
                "p99": p99,
                "max": percentile(pauses, 100),
            },
        },
    )


def handovers(step: Mapping[str, Any]) -> list[float]:
    """The pauses, in seconds, that a step's hand-overs are known to have made."""
    if step["name"] != "hand-over" or not step["result"]:
        return []
    seconds = step["result"].get("pauseSeconds")
    return [] if seconds is None else [float(seconds)]


def _unknown(step: Mapping[str, Any]) -> bool:
    """Whether its hand-over was ended by another control plane than began it: nobody has timed
    how long its fence stood. The longest wait of a client has it."""
    result = step["result"] or {}
    return step["name"] == "hand-over" and "epoch" in result and "pauseSeconds" not in result


def _unequal(step: Mapping[str, Any]) -> list[int]:
    return list((step["result"] or {}).get("differentSlots", ()))


def _repair(fault: JSON, documents: Mapping[str, Any], controls: tuple[JSON, ...]) -> Findings:
    detected, repaired = documents["detected.json"], documents["repaired.json"]
    merge, restore = documents["merge.json"], documents["restore.json"]
    began = fault["began"]
    seconds = repaired["at"] - began if repaired["held"] else None
    back = sum(merge["insertedRows"].values()) + sum(merge["restoredRows"].values())
    hit = sum(fault["detail"]["changed"].values()) + sum(fault["detail"]["deleted"].values())
    marks = (
        ("detect", detected["at"]),
        ("restore", restore["at"]),
        ("merge", merge["at"]),
        ("repaired", repaired["at"]),
    )
    return Findings(
        rto={"repair": seconds},
        invariants=(
            held("the invariants found the corruption", bool(detected["broken"]), "none broke"),
            held("the invariants hold again", repaired["held"], ", ".join(repaired["broken"])),
            held("every bad row came back", back == hit, f"{hit} hit, {back} came back"),
        ),
        phases=phases(began, marks),
        figures={
            "detectedBy": detected["broken"],
            "corrupted": fault["detail"],
            "merge": {key: value for key, value in merge.items() if key != "at"},
            "extrapolated": extrapolate(restore, seconds),
        },
        controls=controls,
    )


def _copies(
    book: Ledger, fault: JSON, documents: Mapping[str, Any], controls: tuple[JSON, ...]
) -> Findings:
    copies, restore = documents["copies.json"], documents["restore.json"]
    began = fault["began"]
    seconds = copies["at"] - began
    problems = [f"{each['database']}: {p}" for each in copies["copies"] for p in each["problems"]]
    different = [
        f"{each['database']}: {each['different']}" for each in copies["copies"] if each["different"]
    ]
    unserved = copies["asked"] - len(copies["missing"]) - copies["served"]
    return Findings(
        rto={"restore": seconds},
        loss=_lost(book, copies["missing"], fault["effective"]),
        invariants=(
            held("the copies are right in themselves", not problems, "; ".join(problems[:5])),
            held("rows of the copies are those of the platform", not different, str(different)),
            held("the copies serve every order", unserved == 0, f"{unserved} are not served"),
        ),
        phases=phases(began, (("restore", restore["at"]), ("inspect", copies["at"]))),
        figures={
            "rows": {each["database"]: sum(each["rows"].values()) for each in copies["copies"]},
            "extrapolated": extrapolate(restore, seconds),
        },
        controls=controls,
    )


def _lost(book: Ledger, missing: Collection[str], until: float) -> Loss:
    """Of what was acknowledged before the loss, what the copies lack."""
    gone = set(missing)
    lost = [a for a in acknowledged(book, until) if a.record in gone]
    oldest = min((a.done for a in lost if a.done is not None), default=None)
    return Loss(
        count=len(lost),
        value_cents=sum(a.amount_cents or 0 for a in lost),
        seconds=None if oldest is None else until - oldest,
        records=tuple(str(a.record) for a in lost),
        wrong=0,
        duplicated=0,
    )


def acknowledged(book: Ledger, until: float) -> list[ledgers.Attempt]:
    """Writes that were acknowledged up to then."""
    return [
        a
        for a in book.attempts
        if a.ok and a.kind in ledgers.WRITES and a.done is not None and a.done <= until
    ]


def extrapolate(restore: Mapping[str, Any], seconds: float | None) -> JSON | None:
    """The recovery time for a database of the stated size, at the measured speed.

    What grows with the size (download, checks of inputs and pages, combining) is scaled by the
    slowest copy; all else is taken as it was. None when nothing was measured.
    """
    measured = [(copy["bytes"], _by_size(copy["seconds"])) for copy in restore["copies"]]
    known = [(size, took) for size, took in measured if size > 0 and took > 0]
    if seconds is None or not known:
        return None
    size, took = max(known, key=lambda each: each[1] / each[0])
    longest = max(took for _, took in known)
    wanted = restore["productionBytes"]
    return {
        "productionBytes": wanted,
        "measuredBytes": size,
        "megabytesPerSecond": round(size / took / MEGABYTE, 3),
        "rtoSeconds": round(max(seconds - longest, 0.0) + wanted * took / size, 1),
    }


def _by_size(seconds: Mapping[str, float]) -> float:
    return sum(seconds.get(name, 0.0) for name in BY_SIZE)


def phases(began: float, marks: Sequence[tuple[str, float]]) -> tuple[JSON, ...]:
    """Each phase from the end of the one before it; the first from the fault."""
    found, before = [], began
    for name, at in marks:
        told = {"seconds": round(at - before, 4), "endedAtSeconds": round(at - began, 4)}
        found.append({"name": name, **told})
        before = at
    return tuple(found)


def held(name: str, held: bool, otherwise: str) -> JSON:
    return {"name": name, "held": held, "detail": "" if held else otherwise}
