"""The drill report: what was planned, what happened when, what that proves. Pure.

A report is one JSON document (`report.json`). It quotes the SHA-256 of every raw file beside it,
chains its events by hashes (each covers the one before), and carries a seal over everything else,
so that a later change of any part is found by `check`, which also judges the raw files anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from control_plane import drills, drills_load, emulated, evidence, objectives
from control_plane.emulated import APPLIED
from control_plane.evidence import Run
from control_plane.ledger import Tally, percentile
from control_plane.objectives import Evidence, Objective
from infra.topology import Topology
from runtime.errors import Problem

JSON = dict[str, Any]

SCHEMA_VERSION = 2
GENESIS = hashlib.sha256(b"regionctl/v1 DrillReport").hexdigest()
JUDGED = (
    "verdict",
    "fault",
    "phases",
    "objectives",
    "ledger",
    "invariants",
    "selfTest",
    "repeats",
    "distribution",
)


def document(
    spec: drills.Drill,
    runs: Sequence[Run],
    limits: Sequence[Objective],
    *,
    facts: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    files: Mapping[str, bytes],
) -> JSON:
    """The whole report. `facts`: operation, startedAt, finishedAt, faultKind, topology, versions,
    machine, plan. `files`: every raw file by its path in the report's folder."""
    chained = chain(events)
    load = drills_load.section(files)
    mode = str(facts.get("mode", APPLIED))
    report: JSON = {
        "apiVersion": "regionctl/v1",
        "kind": "DrillReport",
        "schemaVersion": SCHEMA_VERSION,
        "drill": spec.name,
        "title": spec.title,
        "hypothesis": spec.hypothesis,
        "runbook": spec.runbook,
        **facts,
        "mode": mode,
        **judgement(spec, runs, limits, mode=mode),
        **({"load": load} if load else {}),
        "files": {path: digest(content) for path, content in sorted(files.items())},
        "events": chained,
        "chainHead": chained[-1]["hash"] if chained else GENESIS,
    }
    return {**report, "seal": seal(report)}


def judgement(
    spec: drills.Drill,
    runs: Sequence[Run],
    limits: Sequence[Objective],
    *,
    mode: str = APPLIED,
) -> JSON:
    """Everything in a report that follows from its raw files. Raises `ValueError` without runs.

    The figures at the top are those of the worst repeat; the ledger's are sums. Of servers that
    only pretend (`mode` "emulated") no time and no loss means anything: there are none then.
    """
    judged = _judgement(spec, runs, limits)
    return judged if mode == APPLIED else emulated.untimed(judged)


def _judgement(spec: drills.Drill, runs: Sequence[Run], limits: Sequence[Objective]) -> JSON:
    worst = max(runs, key=_badness)
    verdicts = [objective.judge(_worst_evidence(runs)) for objective in limits]
    missed = [f"{v.name}: {v.because}" for v in verdicts if not v.met]
    kinds = {run.verdict for run in runs}
    tested = {control["kind"] for run in runs for control in run.controls}
    wanted = (*evidence.CONTROLS, *spec.damages)
    if untested := [kind for kind in wanted if kind not in tested]:
        kinds.add("void")
        missed.append(f"the meter was not tested by a planted {', '.join(untested)}")
    verdict = "void" if "void" in kinds else "failed" if "failed" in kinds or missed else "passed"
    times = [run.rto_seconds for run in runs if run.rto_seconds is not None]
    controls = [control for run in runs for control in run.controls]
    return {
        "verdict": verdict,
        "because": [*(f"run {r.number}: {why}" for r in runs for why in r.because), *missed],
        "fault": _fault(worst),
        "phases": list(worst.phases),
        "objectives": [each.to_json() for each in verdicts],
        "ledger": _ledger(runs),
        "invariants": _merged(runs),
        "selfTest": {
            "planted": len(controls),
            "caught": sum(control["caught"] for control in controls),
            "controls": controls,
        },
        "repeats": [_repeat(run) for run in runs],
        "distribution": {
            "rtoSeconds": {
                "p50": percentile(times, 50),
                "p95": percentile(times, 95),
                "max": percentile(times, 100),
            }
        },
    }


def _badness(run: Run) -> tuple[bool, bool, float]:
    seconds = run.rto_seconds
    return (run.verdict != "passed", seconds is None, seconds or 0.0)


def _worst_evidence(runs: Sequence[Run]) -> Evidence:
    times = [run.rto_seconds for run in runs]
    known = [seconds for seconds in times if seconds is not None]
    lost = [run.evidence.lost for run in runs]
    return Evidence(
        max(known) if known and len(known) == len(times) else None,
        max(run.evidence.loss_seconds for run in runs),
        None if None in lost else sum(count for count in lost if count is not None),
        max((run.pause for run in runs if run.pause is not None), default=None),
    )


def _fault(run: Run) -> JSON:
    fault = run.fault["fault"]
    return {"kind": fault["kind"], "target": fault["target"], "injectedAt": run.fault["at"]}


def _ledger(runs: Sequence[Run]) -> JSON:
    """Counts of writes: attempted = acknowledged + failed + unknown. Reads are counted apart."""
    return {
        **_summed([run.counts.writes for run in runs]),
        "lost": sum(run.loss.count for run in runs),
        "lostCents": sum(run.loss.value_cents for run in runs),
        "duplicated": sum(run.loss.duplicated for run in runs),
        "lossSeconds": max(run.evidence.loss_seconds for run in runs),
        "reads": _summed([run.counts.reads for run in runs]),
    }


def _summed(tallies: Sequence[Tally]) -> dict[str, int]:
    names = ("attempted", "acknowledged", "failed", "unknown")
    return {name: sum(getattr(tally, name) for tally in tallies) for name in names}


def _merged(runs: Sequence[Run]) -> list[JSON]:
    """Each invariant once: held if it held in every run; else what the first broken one says."""
    merged: dict[str, JSON] = {}
    for run in runs:
        for each in run.invariants:
            known = merged.setdefault(each["name"], dict(each))
            if known["held"] and not each["held"]:
                known.update(held=False, detail=f"run {run.number}: {each['detail']}")
    return list(merged.values())


def _repeat(run: Run) -> JSON:
    return {
        "run": run.number,
        "verdict": run.verdict,
        "because": list(run.because),
        "fault": _fault(run),
        "rtoSeconds": run.rto_seconds,
        "rtoByKind": dict(run.rto),
        "longestWriteGapSeconds": run.longest_write_gap,
        **asdict(run.counts.writes),
        "reads": asdict(run.counts.reads),
        "unknownResolved": run.resolved,
        "lost": run.loss.count,
        "lostRecords": list(run.loss.records),
        "lossSeconds": run.loss.seconds,
        "offered": run.offered,
        "phases": list(run.phases),
        **({"figures": run.figures} if run.figures else {}),
    }


def canonical(value: Any) -> bytes:
    """The one way in which a value is written when it is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def chain(events: Sequence[Mapping[str, Any]]) -> list[JSON]:
    """Each event with the hash of itself and of the hash before it."""
    chained = []
    last = GENESIS
    for event in events:
        last = hashlib.sha256(last.encode() + canonical(event)).hexdigest()
        chained.append({**event, "hash": last})
    return chained


def seal(report: Mapping[str, Any]) -> str:
    """SHA-256 over the report without its seal."""
    return digest(canonical({key: value for key, value in report.items() if key != "seal"}))


def check(report: Mapping[str, Any], files: Mapping[str, bytes]) -> list[str]:
    """What is wrong with a report and its raw files; nothing when both stand.

    The hashes say whether anything was changed; then the raw files are judged anew and must lead
    to what the report says.
    """
    version = report.get("schemaVersion")
    if version != SCHEMA_VERSION:
        return [f"the report has schema version {version}; this regionctl reads {SCHEMA_VERSION}"]
    try:
        return [*_check_hashes(report, files), *_check_judgement(report, files)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, Problem) as error:
        return [f"the report is damaged: {error!r}"]


def _check_hashes(report: Mapping[str, Any], files: Mapping[str, bytes]) -> list[str]:
    findings = []
    if report["seal"] != seal(report):
        findings.append("the seal does not fit the report")
    events = [{k: v for k, v in event.items() if k != "hash"} for event in report["events"]]
    for told, made in zip(report["events"], chain(events), strict=True):
        if told["hash"] != made["hash"]:
            findings.append(f"the chain of events is broken at event {told.get('sequence')}")
            break
    head = report["events"][-1]["hash"] if report["events"] else GENESIS
    if report["chainHead"] != head:
        findings.append("the chain of events has lost its end")
    for path, told in report["files"].items():
        if path not in files:
            findings.append(f"{path} is missing")
        elif digest(files[path]) != told:
            findings.append(f"{path} was changed")
    return findings


def _check_judgement(report: Mapping[str, Any], files: Mapping[str, bytes]) -> list[str]:
    spec = drills.find(report["drill"])
    limits = [Objective(each["name"], each["limitSeconds"]) for each in report["objectives"]]
    runs = [
        evidence.judge(spec, repeat["run"], run_files(files, repeat["run"]))
        for repeat in report["repeats"]
    ]
    mode = str(report.get("mode", APPLIED))
    made = json.loads(canonical(judgement(spec, runs, limits, mode=mode)))
    if drills_load.section(files) != report.get("load"):
        return ["load: the report does not say what its files say"]
    return [
        f"{name}: the report says {_short(report[name])}, its files say {_short(made[name])}"
        for name in JUDGED
        if report[name] != made[name]
    ]


def _short(value: Any) -> str:
    text = canonical(value).decode()
    return text if len(text) <= 200 else f"{text[:200]}…"


def run_folder(number: int) -> str:
    return f"run-{number:02d}"


def run_files(files: Mapping[str, bytes], number: int) -> dict[str, bytes]:
    """The files of one run, by their names within its folder."""
    prefix = f"{run_folder(number)}/"
    return {
        path.removeprefix(prefix): content
        for path, content in files.items()
        if path.startswith(prefix)
    }


def verdict_sheet(
    topology: Topology, reports: Sequence[Mapping[str, Any]], versions: Mapping[str, str]
) -> list[JSON]:
    """One row for each line of the disaster-recovery table. `reports`: newest first.

    `state` is that of the newest report of the row's drill that is not void: proven, missed (the
    drill failed, whatever passed before it), stale (proven, but the topology or a version has
    changed since), not proven (there is none). A void run proves nothing either way; that the
    newest one is void is said in `because`.
    """
    return [_row(topology, row.scenario, reports, versions) for row in topology.objectives]


def _row(
    topology: Topology,
    scenario: str,
    reports: Sequence[Mapping[str, Any]],
    versions: Mapping[str, str],
) -> JSON:
    rto, rpo = objectives.of(topology, scenario)
    row = next(each for each in topology.objectives if each.scenario == scenario)
    mine = [r for r in reports if r["drill"] == scenario]
    judged = next((r for r in mine if r["verdict"] != "void"), None)
    proven = next((r for r in mine if r["verdict"] == "passed"), None)
    told = judged["objectives"] if judged else []
    measured = {each["name"]: each["measuredSeconds"] for each in told}
    return {
        "scenario": scenario,
        "procedure": row.procedure,
        "rtoLimitSeconds": rto.limit_seconds,
        "rtoSeconds": measured.get("rto"),
        "rtoMarginSeconds": _margin(rto.limit_seconds, measured.get("rto")),
        "rpoLimitSeconds": rpo.limit_seconds,
        "rpoSeconds": measured.get("rpo"),
        "rpoMarginSeconds": _margin(rpo.limit_seconds, measured.get("rpo")),
        "lost": judged["ledger"]["lost"] if judged else None,
        "repeats": len(judged["repeats"]) if judged else 0,
        "lastProvenAt": proven["finishedAt"] if proven else None,
        "operation": judged["operation"] if judged else None,
        "state": _state(topology, judged, versions),
        "because": "; ".join(_because(topology, mine, judged, versions)),
    }


def _margin(limit: float, measured: float | None) -> float | None:
    return None if measured is None else limit - measured


def _state(
    topology: Topology, judged: Mapping[str, Any] | None, versions: Mapping[str, str]
) -> str:
    if judged is None:
        return "not proven"
    if judged["verdict"] == "failed":
        return "missed"
    return "stale" if _changes(topology, judged, versions) else "proven"


def _because(
    topology: Topology,
    mine: Sequence[Mapping[str, Any]],
    judged: Mapping[str, Any] | None,
    versions: Mapping[str, str],
) -> list[str]:
    void = bool(mine) and mine[0]["verdict"] == "void"
    why = [f"the newest run, {mine[0]['operation']}, is void"] if void else []
    if judged is None:
        return [*why, "no drill has proven it"]
    if judged["verdict"] == "failed":
        why += [f"the newest run, {judged['operation']}, missed", *judged["because"]]
    return [*why, *_changes(topology, judged, versions)]


def _changes(
    topology: Topology, judged: Mapping[str, Any], versions: Mapping[str, str]
) -> list[str]:
    """What is different since the proof."""
    changed = []
    if judged["topology"]["digest"] != topology.digest():
        changed.append("the topology changed")
    then = judged["versions"]
    changed += [
        f"{name} {then.get(name, 'none')} → {now}"
        for name, now in versions.items()
        if then.get(name) != now
    ]
    return changed
