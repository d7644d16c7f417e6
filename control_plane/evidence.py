"""One repeat of a drill, judged from its files. Pure: the verifier runs the very same code.

The files of a run, by name (`*` are written only by drills that have that step):

    journal.jsonl     the probe's journal
    notrun.json     * because, fault: the run was left out, and why; then no fault was injected
    fault.json        fault, databases, began, effective (CLOCK_MONOTONIC), at, lagSeconds, sampled.
                      It began no earlier and took effect no later: recovery is timed from the
                      first, loss up to the second
    recovery.json   * operations: id, kind, target, state, steps with their times
    redundancy.json * restored, at
    readback.json     what `loadtests.readback` found
    invariants.json   what the provider checked in the databases
    selftest.json   * planted failures: kind, file, readback; and the planted journals themselves

The files of drills about data are in `control_plane/evidence_data.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from control_plane import evidence_data
from control_plane import ledger as ledgers
from control_plane.drills import Drill
from control_plane.evidence_data import held
from control_plane.ledger import CREATE_ORDER, Counts, Ledger, Loss, Tally
from control_plane.objectives import Evidence
from control_plane.writers import two_writers
from runtime.errors import MeasurementVoid

JSON = dict[str, Any]
Outcome = Literal["passed", "failed", "void"]

NOTHING = Counts(Tally(0, 0, 0, 0), Tally(0, 0, 0, 0))
CONTROLS = ("lost", "stall", "second-writer")
LEFT_OUT = "notrun.json"
SHOWN = 5
OFFERED = 0.9
STALL_SECONDS = 29.0
PHASES: Mapping[str, str] = {
    "confirm-lost": "decide",
    "record-unsynced": "decide",
    "close-route": "fence",
    "fence-instance": "fence",
    "fence-region": "fence",
    "promote": "promote",
    "advance-map": "route",
    "set-epochs": "route",
    "publish-map": "route",
    "open-route": "route",
}


@dataclass(frozen=True)
class Run:
    """What one repeat proves. `because` says why it is not "passed". `pause`: of the hand-overs,
    in seconds, the 99th percentile; `figures`: what else the drill measured."""

    number: int
    verdict: Outcome
    because: tuple[str, ...]
    fault: JSON
    rto: Mapping[str, float | None]
    loss: Loss
    counts: Counts
    offered: float
    longest_write_gap: float | None
    phases: tuple[JSON, ...]
    invariants: tuple[JSON, ...]
    controls: tuple[JSON, ...]
    resolved: JSON
    pause: float | None = None
    figures: JSON = field(default_factory=dict)

    @property
    def rto_seconds(self) -> float | None:
        """Until orders were taken again; None when any kind of operation did not recover.

        The other kinds are in `rto`: of one shard's reads there are about three a second, so
        their time is mostly the wait for the next one.
        """
        if None in self.rto.values():
            return None
        known = [seconds for seconds in self.rto.values() if seconds is not None]
        return self.rto.get(CREATE_ORDER, max(known, default=None))

    @property
    def evidence(self) -> Evidence:
        lost = self.loss.count if self.rto else None  # a run that could not be judged has no rto
        return Evidence(self.rto_seconds, max(self.loss.seconds or 0.0, 0.0), lost, self.pause)


def judge(spec: Drill, number: int, files: Mapping[str, bytes]) -> Run:
    """The judgement of one run; void when a file is missing or damaged."""
    try:
        return _judge(spec, number, files)
    except MeasurementVoid as problem:
        why = problem.detail
    except (KeyError, TypeError, ValueError) as error:
        why = f"the evidence is damaged: {error!r}"
    return Run(
        number=number,
        verdict="void",
        because=(why,),
        fault=_fault_of(files),
        rto={},
        loss=Loss(0, 0, None, (), 0, 0),
        counts=_counts_of(files),
        offered=0.0,
        longest_write_gap=None,
        phases=(),
        invariants=(),
        controls=(),
        resolved={"present": 0, "absent": 0},
    )


def _fault_of(files: Mapping[str, bytes]) -> JSON:
    """The fault as far as the files tell of one; `at` is None when it was not injected."""
    told: JSON = {"kind": None, "target": None}
    at = None
    for name in ("fault.json", LEFT_OUT):
        with suppress(MeasurementVoid, AttributeError, TypeError):
            document = load(files, name)
            told |= {key: document["fault"].get(key) for key in told if document.get("fault")}
            at = document.get("at")
            break
    return {"fault": told, "at": at}


def _counts_of(files: Mapping[str, bytes]) -> Counts:
    """What the probe counted, also when it cannot be judged."""
    try:
        return ledgers.counts(parse_journal(files))
    except (MeasurementVoid, KeyError, TypeError, ValueError):
        return NOTHING


def _judge(spec: Drill, number: int, files: Mapping[str, bytes]) -> Run:
    if LEFT_OUT in files:
        raise MeasurementVoid(f"it was left out: {load(files, LEFT_OUT)['because']}")
    book = parse_journal(files)
    fault = load(files, "fault.json")
    readback = load(files, "readback.json")
    times = {"began": fault["began"], "effective": fault["effective"]}
    rto = ledgers.rto(book, fault["databases"], **times)
    loss = ledgers.loss(book, readback, until=fault["effective"])
    found = evidence_data.find(spec, book, fault, _documents(files))
    invariants = (*_invariants(spec, book, fault, loss, files), *found.invariants)
    controls = (*_controls(spec, book, rto, readback, fault, files), *found.controls)
    rto_missing = [
        kind for kind, seconds in {**rto, **(found.rto or {})}.items() if seconds is None
    ]
    missed = [each["name"] for each in invariants if not each["held"]]
    missed += [f"{kind}: no recovery" for kind in rto_missing]
    doubts = _doubts(book, readback, controls)
    verdict: Outcome = "void" if doubts else "failed" if missed else "passed"
    run = Run(
        number=number,
        verdict=verdict,
        because=(*doubts, *missed),
        fault=fault,
        rto=rto if found.rto is None else found.rto,
        loss=found.loss or loss,
        counts=ledgers.counts(book),
        offered=round(book.offered(), 4),
        longest_write_gap=ledgers.longest_write_gap(book, fault["databases"]),
        phases=found.phases,
        invariants=invariants,
        controls=controls,
        resolved={
            "present": readback["unknown_present"],
            "absent": readback["unknown_absent"],
        },
        pause=found.pause,
        figures=found.figures,
    )
    return run if found.rto is not None else _with_phases(run, files)


def _documents(files: Mapping[str, bytes]) -> JSON:
    """Every whole JSON document of the run. One that is missing or damaged is not there."""
    found: JSON = {}
    for name in files:
        if name.endswith(".json"):
            with suppress(MeasurementVoid):
                found[name] = load(files, name)
    return found


def parse_journal(files: Mapping[str, bytes], name: str = "journal.jsonl") -> Ledger:
    if name not in files:
        raise MeasurementVoid(f"The file {name} is missing.", hint="Run the drill again.")
    return ledgers.parse(files[name].decode("utf-8", "replace").splitlines())


def load(files: Mapping[str, bytes], name: str) -> Any:
    """The JSON document of that name. Raises `MeasurementVoid` when it cannot be read."""
    try:
        return json.loads(files[name])
    except (KeyError, ValueError) as error:
        raise MeasurementVoid(
            f"The file {name} is missing or damaged.", hint="Run the drill again."
        ) from error


def _doubts(book: Ledger, readback: JSON, controls: Sequence[JSON]) -> list[str]:
    """Why the measurement cannot be trusted; none when it can."""
    doubts = []
    if book.planned is None:
        doubts.append("the probe died before the drill's end")
    elif book.offered() < OFFERED:
        doubts.append(f"the probe sent only {book.offered():.0%} of its arrivals on time")
    if readback["unanswered"]:
        doubts.append(f"{len(readback['unanswered'])} read-backs got no answer")
    doubts += [f"the meter missed a planted {c['kind']}" for c in controls if not c["caught"]]
    return doubts


def _invariants(
    spec: Drill, book: Ledger, fault: JSON, loss: Loss, files: Mapping[str, bytes]
) -> tuple[JSON, ...]:
    """What the databases say, then what the ledger says."""
    found = [dict(each) for each in load(files, "invariants.json")]
    writers = two_writers(book)
    told = [f"{w.shard}: {w.older} after {w.newer}, {w.seconds:.2f} s" for w in writers]
    said = "; ".join(told[:SHOWN]) + (f" and {len(told) - SHOWN} more" if told[SHOWN:] else "")
    found.append(held("one writer per shard at a time", not writers, said))
    double = f"{loss.duplicated} orders that no single attempt accounts for"
    found.append(held("one order for one idempotency key", not loss.duplicated, double))
    altered = f"{loss.wrong} orders read back with another owner or amount"
    found.append(held("orders read back as acknowledged", not loss.wrong, altered))
    if spec.lossless:
        lost = f"{loss.count} lost: {', '.join(loss.records[:5])}"
        found.append(held("no acknowledged write lost", loss.count == 0, lost))
        denied = sum(ledgers.denied(attempt) for attempt in book.arrivals)
        text = f"{denied} reads of acknowledged orders were answered with 404"
        found.append(held("no reader is denied an acknowledged order", not denied, text))
    else:
        found.append(_within_lag(fault, loss))
    if spec.unharmed:
        harmed = sum(not a.ok and a.key is not None for a in book.arrivals)
        text = f"{harmed} requests with an idempotency key did not succeed"
        found.append(held("no request with an idempotency key failed", not harmed, text))
    if "recovery.json" in files:
        ended = load(files, "recovery.json")["operations"]
        bad = [f"{op['id']} ({op['kind']} {op['target']})" for op in ended if not _done(op)]
        found.append(held("every recovery operation succeeded", not bad, ", ".join(bad)))
    if "redundancy.json" in files:
        redundancy = load(files, "redundancy.json")
        found.append(
            held("redundancy restored", redundancy["restored"], redundancy.get("detail", ""))
        )
    return tuple(found)


def _done(operation: JSON) -> bool:
    return operation.get("state") == "succeeded"


def _within_lag(fault: JSON, loss: Loss) -> JSON:
    """What was lost is no older than what the replica had not confirmed at the last look."""
    name = "loss within the replication lag"
    if loss.seconds is None:
        return {"name": name, "held": True, "detail": "nothing was lost"}
    if fault["lagSeconds"] is None:
        return held(name, False, "the lag at the fault is not known")
    bound = fault["lagSeconds"] + fault["effective"] - fault["sampled"]
    detail = f"{loss.count} lost over {loss.seconds:.3f} s; lag at the fault {bound:.3f} s"
    return {"name": name, "held": loss.seconds <= bound, "detail": detail}


def _controls(
    spec: Drill,
    book: Ledger,
    rto: Mapping[str, float | None],
    readback: JSON,
    fault: JSON,
    files: Mapping[str, bytes],
) -> tuple[JSON, ...]:
    """Each planted failure, and whether the meter that judged the real run sees it."""
    if "selftest.json" not in files:
        return ()
    controls = []
    for planted in load(files, "selftest.json"):
        kind = planted["kind"]
        if "error" in planted:
            controls.append({"kind": kind, "caught": False, "saw": planted["error"]})
            continue
        copy = parse_journal(files, planted["file"])
        if kind == "lost":
            found = load(files, planted["readback"])
            new = set(found["missing"]) - set(readback["missing"])
            caught, saw = new == {planted["order"]}, f"{len(new)} more lost"
        elif kind == "stall":
            times = {"began": fault["began"], "effective": fault["effective"]}
            stalled = ledgers.rto(copy, fault["databases"], **times)
            caught = all(_later(stalled[each], rto[each]) for each in stalled)
            saw = ", ".join(f"{each}: {seconds}" for each, seconds in stalled.items())
        else:
            more = len(two_writers(copy))
            more -= len(two_writers(book))
            caught, saw = more > 0, f"{more} more two-writer windows"
        controls.append({"kind": kind, "caught": caught, "saw": saw})
    return tuple(controls)


def _later(stalled: float | None, real: float | None) -> bool:
    return stalled is None or stalled >= (real or 0.0) - 3.0 + STALL_SECONDS


def _with_phases(run: Run, files: Mapping[str, bytes]) -> Run:
    """The run with the time of each phase: `seconds` long, ended so many seconds after the fault.

    Where several operations recovered side by side, the last one to finish its routing is shown.
    """
    began = run.fault["began"]
    phases: list[JSON] = []
    at = 0.0
    operation = _critical(files)
    if operation is not None:
        at = operation["steps"][0]["started"] - began
        phases.append(_phase("detect", at, at))
        for name in ("decide", "fence", "promote", "route"):
            steps = [s for s in operation["steps"] if PHASES.get(s["name"]) == name]
            if steps:
                seconds = sum(step["finished"] - step["started"] for step in steps)
                at = max(step["finished"] for step in steps) - began
                phases.append(_phase(name, seconds, at))
    rto = run.rto_seconds
    if rto is not None:
        phases.append(_phase("first-ack", max(rto - at, 0.0), rto))
        steady = rto + ledgers.HOLD_SECONDS
        phases.append(_phase("steady", ledgers.HOLD_SECONDS, steady))
        if (
            "redundancy.json" in files
            and (redundancy := load(files, "redundancy.json"))["restored"]
        ):
            whole = redundancy["at"] - began
            phases.append(_phase("redundancy", max(whole - rto, 0.0), whole))
    return replace(run, phases=tuple(phases))


def _critical(files: Mapping[str, bytes]) -> JSON | None:
    if "recovery.json" not in files:
        return None
    timed = []
    for operation in load(files, "recovery.json")["operations"]:
        steps = [s for s in operation["steps"] if s["started"] and s["finished"]]
        routed = [s["finished"] for s in steps if PHASES.get(s["name"]) == "route"]
        if routed:
            timed.append((max(routed), {**operation, "steps": steps}))
    return max(timed, key=lambda pair: pair[0])[1] if timed else None


def _phase(name: str, seconds: float, ended: float) -> JSON:
    return {"name": name, "seconds": round(seconds, 4), "endedAtSeconds": round(ended, 4)}
