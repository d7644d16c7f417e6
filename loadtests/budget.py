"""What a load run spent of the error budgets, by endpoint and phase. Pure.

An objective allows the share 1 − target to be bad over its window. How many requests the window
will have nobody knows; it is taken to go on at the rate of this run. Then of the window's budget

    spent = bad / ((1 − target) × requests) × seconds of the run / seconds of the window

where the first factor is the burn: at 1 the budget lasts exactly the window. Of an objective over
time slices the same holds with slices instead of requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loadtests import histograms
from loadtests.gatefile import Objective
from loadtests.histograms import WARM_UP

JSON = Mapping[str, Any]
EVERYTHING = "*"


@dataclass(frozen=True)
class Spent:
    """`bad` of `counted` requests or slices; `burn` and `spent` as above, None without any.

    `endpoint` and `phase` are "*" where it is about all of them (without the warm-up).
    """

    objective: str
    endpoint: str
    phase: str
    counted: int
    bad: int
    burn: float | None
    spent: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "endpoint": self.endpoint,
            "phase": self.phase,
            "counted": self.counted,
            "bad": self.bad,
            "burn": self.burn,
            "spent": self.spent,
        }


def of(run: JSON, objectives: Iterable[Objective]) -> list[Spent]:
    """Each objective: all together, then each phase, then each endpoint in each phase."""
    found: list[Spent] = []
    for objective in objectives:
        if objective.slice_seconds is None:
            found += _requests(run, objective)
        else:
            found += _slices(run, objective)
    return found


def burn(bad: float, counted: int, target: float) -> float | None:
    """How many times faster than allowed the budget burns; None without anything counted."""
    return bad / counted / (1 - target) if counted else None


def share(burning: float | None, seconds: float, window_seconds: float) -> float | None:
    """The share of the window's budget that burning for so long has spent."""
    return None if burning is None else burning * seconds / window_seconds


def _spent(run: JSON, objective: Objective, at: tuple[str, str], counted: int, bad: int) -> Spent:
    """A part of the run: it spends as its share of all requests has it, so that parts add up."""
    whole = measured_seconds(run)
    total = _total(run, objective)
    burning = burn(bad, counted, objective.target)
    seconds = whole * counted / total if total else 0.0
    spent = share(burning, seconds, objective.window_seconds)
    return Spent(objective.name, *at, counted, bad, burning, spent)


def _total(run: JSON, objective: Objective) -> int:
    if objective.slice_seconds is not None:
        return len(_tallies(run, objective))
    return sum(_counted(each) for each in histograms.selected(run, {}))


def _requests(run: JSON, objective: Objective) -> list[Spent]:
    """All together, each phase, then each endpoint by phase. One that several journeys ask is one
    endpoint here."""
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    for each in histograms.selected(run, {}):
        counted, bad = _counted(each), _bad(each, objective)
        for at in (
            (EVERYTHING, EVERYTHING),
            (EVERYTHING, each["phase"]),
            (each["name"], each["phase"]),
        ):
            so_far = groups.get(at, (0, 0))
            groups[at] = so_far[0] + counted, so_far[1] + bad
    place = {EVERYTHING: -1} | {each["name"]: n for n, each in enumerate(run["plan"]["phases"])}
    ordered = sorted(groups, key=lambda at: (at[0] != EVERYTHING, at[0], place.get(at[1], 99)))
    return [_spent(run, objective, at, *groups[at]) for at in ordered]


def _counted(endpoint: JSON) -> int:
    return int(endpoint["ok"]) + int(endpoint["errors"])


def _bad(endpoint: JSON, objective: Objective) -> int:
    """Errors; of latency also the answers that were too slow: an error is bad once."""
    errors = int(endpoint["errors"])
    if objective.milliseconds is None:
        return errors
    answered = histograms.decode(endpoint["intendedOk"])
    return errors + histograms.slower(answered, objective.milliseconds)


def _slices(run: JSON, objective: Objective) -> list[Spent]:
    """Slices of time know no endpoints: all together, and each phase."""
    tallies = _tallies(run, objective)
    phases = list(dict.fromkeys(phase for phase, _ in tallies))
    return [
        _spent(
            run,
            objective,
            (EVERYTHING, wanted),
            len(chosen := [bad for phase, bad in tallies if wanted in (EVERYTHING, phase)]),
            sum(chosen),
        )
        for wanted in (EVERYTHING, *phases)
    ]


def _tallies(run: JSON, objective: Objective) -> list[tuple[str, bool]]:
    """(phase, bad) of each slice in which something was answered, in order of time."""
    assert objective.slice_seconds is not None
    counted: dict[int, tuple[str, int, int]] = {}
    for point in run["timeline"]:
        phase = phase_at(run, point["t"])
        if phase == WARM_UP:
            continue
        number = int(point["t"] // objective.slice_seconds)
        first, answered, errors = counted.get(number, (phase, 0, 0))
        answered += point["ok"] + point["errors"]
        counted[number] = first, answered, errors + point["errors"]
    return [
        (phase, errors > (1 - objective.slice_target) * answered)
        for phase, answered, errors in counted.values()
        if answered
    ]


def phase_at(run: JSON, second: float) -> str:
    """The phase that a moment (seconds since the run's start) belongs to; the last one goes on."""
    phases = run["plan"]["phases"]
    for phase in phases:
        if second < phase["to"]:
            return str(phase["name"])
    return str(phases[-1]["name"]) if phases else "steady"


def measured_seconds(run: JSON) -> float:
    """How long the run was measured: from the end of the warm-up on, to where it was ended."""
    seconds = float(run["plan"]["seconds"])
    if run["partial"] and run["timeline"]:
        seconds = min(seconds, run["timeline"][-1]["t"] + 1.0)
    ends = [float(p["to"]) for p in run["plan"]["phases"] if p["name"] == WARM_UP]
    return max(seconds - max(ends, default=0.0), 0.0)
