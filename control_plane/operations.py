"""The engine: a stored plan, carried out in order, each step recorded once.

    state      means                                       goes to
    pending    stored, nobody has claimed it               running, aborted
    running    claimed; exactly one step is in flight      succeeded, failed, aborted
    succeeded  every step is recorded as succeeded         -
    failed     a step raised; nothing after it was begun   pending (resume), aborted
    aborted    an operator stopped it between two steps    -

A worker owns an operation under a claim epoch that only grows. After a crash the next worker
claims with a higher epoch and runs the step in flight again (effects may be repeated); what the
old worker still wants to record is then refused with `Superseded`. One transaction records that a
step ended and that the next began, so a step costs one commit.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from control_plane.plan import Plan, Step
from infra.local.supervisor import tail
from runtime.errors import OperationFailed, Problem, Refused

if TYPE_CHECKING:
    from control_plane.operation_log import OperationLog
    from control_plane.world import World

log = logging.getLogger(__name__)

JSON = dict[str, Any]
State = Literal["pending", "running", "succeeded", "failed", "aborted"]
StepState = Literal["pending", "running", "succeeded", "failed"]
Handler = Callable[..., Awaitable[Any]]

ACTIVE: tuple[State, ...] = ("pending", "running")
FINISHED: tuple[State, ...] = ("succeeded", "failed", "aborted")
PLATFORM = "platform"
BESIDE_PLATFORM = frozenset({"drill", "backup", "restore", "restored"})
RESHARD = "reshard"
REGION_FAILOVER = "region-failover"
DRILL, SERVICE = "drill", "service"
BESIDE_REGION_FAILOVER = frozenset({RESHARD, SERVICE})


class Superseded(Refused):
    """Another worker has claimed the operation; this one's record no longer counts."""


@dataclass(frozen=True)
class StepRecord:
    """`number` counts from 0. `attempts` is how often it was begun; `result` what it returned."""

    number: int
    name: str
    args: Mapping[str, Any]
    state: StepState
    attempts: int = 0
    started_at: datetime | None = None
    started_monotonic: float | None = None
    finished_at: datetime | None = None
    finished_monotonic: float | None = None
    result: Any = None
    problem: JSON | None = None

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took."""
        if self.started_monotonic is None or self.finished_monotonic is None:
            return None
        return self.finished_monotonic - self.started_monotonic

    def to_json(self) -> JSON:
        return {
            "number": self.number,
            "name": self.name,
            "args": dict(self.args),
            "state": self.state,
            "attempts": self.attempts,
            "startedAt": _text(self.started_at),
            "startedMonotonic": self.started_monotonic,
            "finishedAt": _text(self.finished_at),
            "finishedMonotonic": self.finished_monotonic,
            "seconds": self.seconds,
            "result": self.result,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Operation:
    """A plan with what became of it. `problem` is the RFC 9457 document of what stopped it."""

    id: str
    plan: Plan
    state: State
    reason: str
    requested_by: str
    epoch: int
    created_at: datetime
    steps: tuple[StepRecord, ...] = ()
    idempotency_key: str | None = None
    worker: str | None = None
    heartbeat_at: datetime | None = None
    abort_requested: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    problem: JSON | None = None

    @property
    def kind(self) -> str:
        return self.plan.kind

    @property
    def target(self) -> str:
        return self.plan.target

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def next_step(self) -> StepRecord | None:
        """The first step that has not succeeded."""
        return next((step for step in self.steps if step.state != "succeeded"), None)

    @property
    def results(self) -> dict[int, Any]:
        return {step.number: step.result for step in self.steps if step.state == "succeeded"}

    def to_json(self) -> JSON:
        return {
            "id": self.id,
            "kind": self.kind,
            "target": self.target,
            "state": self.state,
            "reason": self.reason,
            "requestedBy": self.requested_by,
            "locks": list(self.plan.locks),
            "expected": dict(self.plan.expected),
            "epoch": self.epoch,
            "abortRequested": self.abort_requested,
            "createdAt": _text(self.created_at),
            "startedAt": _text(self.started_at),
            "heartbeatAt": _text(self.heartbeat_at),
            "finishedAt": _text(self.finished_at),
            "problem": self.problem,
            "steps": [step.to_json() for step in self.steps],
        }


@dataclass(frozen=True)
class Claim:
    """The right to record steps of `operation_id`, as long as nobody claims a higher epoch."""

    operation_id: str
    epoch: int
    worker: str


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def conflicts(one: Collection[str], other: Collection[str]) -> bool:
    """Whether two operations with these locks may not run at the same time.

    They may not when they share a lock, or when one holds "platform" and the other something that
    is not beside it: a drill runs beside the very recovery that it provokes, and no backup or
    restore to a new server ("backup:s1") is why a region does not fail over. The failover of a
    region ("platform" and "region-failover") is not refused because slots are being moved
    ("reshard") or a service gets more instances ("service:orders.us-east-1a"); nor is that of a
    database, whose lock is its own. Instances neither come nor go while a drill runs, whose plan
    names those that it breaks. An operation without locks disturbs nobody.
    """
    if not one or not other:
        return False
    mine, theirs = frozenset(one), frozenset(other)
    if mine & theirs or {DRILL, SERVICE} <= _kinds(mine | theirs):
        return True
    return _alone(mine, theirs) or _alone(theirs, mine)


def _alone(mine: frozenset[str], theirs: frozenset[str]) -> bool:
    """Whether `mine` has the whole platform and suffers `theirs` not beside it."""
    if PLATFORM not in mine or _kinds(theirs) <= BESIDE_PLATFORM:
        return False
    return not (REGION_FAILOVER in mine and _kinds(theirs) <= BESIDE_REGION_FAILOVER)


def _kinds(locks: frozenset[str]) -> set[str]:
    """What each lock is about: "service" of "service:orders.us-east-1a"."""
    return {lock.partition(":")[0] for lock in locks}


def problem_of(
    error: Exception, operation: Operation, step: Step | StepRecord, log_file: Path
) -> JSON:
    """What `error`, raised by `step`, says to a person, and how to go on from there.

    It names a log and its last lines: a server's own when the error does, else `log_file`. What a
    guard refused needs none.
    """
    if isinstance(error, Problem):
        document = error.document()
    else:
        document = Problem(
            f"{type(error).__name__}: {error}",
            hint="This is a defect of regionctl; the traceback is in the control plane's log "
            "(regionctl logs control-plane).",
        ).document()
    extra: JSON = document.get("extra", {})
    if "log" not in extra and not isinstance(error, Refused):
        extra = {"log": str(log_file), "lines": tail(log_file, 8), **extra}
    document["extra"] = {
        **extra,
        "operation": operation.id,
        "step": step.name,
        "resume": f"regionctl op resume {operation.id}",
    }
    return document


def unknown_step(name: str) -> OperationFailed:
    return OperationFailed(
        f"This version of regionctl has no step {name!r}.",
        hint="Start the regionctl version that made the plan and resume, or abort the operation.",
    )


async def run(
    log_of: OperationLog,
    claim: Claim,
    handlers: Mapping[str, Handler],
    world_of: Callable[[Operation, Mapping[int, Any]], World],
) -> Operation:
    """Carries out the rest of a claimed operation and returns how it ended.

    Raises `Superseded` when another worker has taken over; then nothing more is done here.
    """
    operation = await log_of.operation(claim.operation_id)
    results = operation.results
    world = world_of(operation, results)
    step = operation.next_step
    while step is not None:
        try:
            handler = handlers.get(step.name)
            if handler is None:
                raise unknown_step(step.name)
            result = await handler(world, **step.args)
            json.dumps(result)  # what cannot be stored is the step's failure, not the store's
        except Superseded:
            raise
        except Exception as error:
            problem = problem_of(error, operation, step, world.settings.log_file)
            log.warning("%s: step %s failed", operation.id, step.name, exc_info=error)
            await log_of.record_failure(claim, step.number, problem)
            break
        results[step.number] = result
        number = await log_of.record_success(claim, step.number, result)
        step = None if number is None else operation.steps[number]
    return await log_of.operation(claim.operation_id)
