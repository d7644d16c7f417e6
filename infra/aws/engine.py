"""Drives Pulumi's engine: `python -m infra.aws.engine ACTION < request.json`.

A process of its own, because it imports pulumi, and because an engine that fails takes its process
with it. The program runs inline (Automation API); the Pulumi CLI, the AWS provider's plugin, a
backend for the state and credentials must be there. What is missing is refused with the way to mend
it: nothing here ever pretends.

stdout is JSON lines, each with an `event`: `step`, `diagnostic`, `policy`, `summary`, and `ended`
with the result; after a failure the last line is a problem document (RFC 9457).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.aws.engine_request import ACTIONS, Request
from infra.aws.engine_troubles import CLI, no_backend, no_cli, problem
from infra.aws.spec import Platform, platform
from infra.topology import parse, read
from runtime.errors import Problem, Refused

JSON = dict[str, Any]
PACK = Path(__file__).parent / "policy_pack"


@dataclass
class Told:
    """What the engine has said so far, passed on line by line."""

    changes: dict[str, int] = field(default_factory=dict)
    steps: list[JSON] = field(default_factory=list)
    violations: list[JSON] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, event: Any) -> None:
        """One event of the engine; called from threads of the SDK."""
        for line in _lines(event):
            with self._lock:
                self._keep(line)
                emit(line)

    def _keep(self, line: JSON) -> None:
        match line["event"]:
            case "step" if line["phase"] == "begin" and line["op"] != "same":
                self.steps.append({key: line[key] for key in ("op", "urn", "type")})
            case "policy":
                self.violations.append(line)
            case "summary":
                self.changes = line["changes"]


def _lines(event: Any) -> list[JSON]:
    if event.summary_event is not None:
        changes = _counted(event.summary_event.resource_changes)
        return [{"event": "summary", "changes": changes}]
    if event.diagnostic_event is not None:
        said = event.diagnostic_event
        text = str(said.message).strip()
        if said.ephemeral or said.severity == "debug" or not text:
            return []
        line = {"event": "diagnostic", "severity": said.severity, "urn": said.urn or ""}
        return [{**line, "message": text}]
    if event.policy_event is not None:
        policy = event.policy_event
        line = {"event": "policy", "policy": policy.policy_name, "urn": policy.resource_urn or ""}
        return [{**line, "level": policy.enforcement_level, "message": policy.message}]
    phases = {
        "begin": event.resource_pre_event,
        "done": event.res_outputs_event,
        "failed": event.res_op_failed_event,
    }
    return [
        {
            "event": "step",
            "phase": phase,
            "op": _word(found.metadata.op),
            "urn": found.metadata.urn,
            "type": found.metadata.type,
        }
        for phase, found in phases.items()
        if found is not None
    ]


def emit(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def open_stack(request: Request, project: str, name: str, program: Callable[[], None]) -> Any:
    """The stack of that name, made if need be. Raises what the SDK raises, and `Refused`."""
    if shutil.which(CLI) is None:
        raise no_cli()
    environment = _environment(request)
    from pulumi import automation

    request.work_dir.mkdir(parents=True, exist_ok=True)
    options = automation.LocalWorkspaceOptions(
        work_dir=str(request.work_dir),
        env_vars=environment,
        secrets_provider=request.secrets_provider or None,
        project_settings=automation.ProjectSettings(name=project, runtime="python"),
    )
    find = automation.create_or_select_stack if request.may_create else automation.select_stack
    return find(stack_name=name, project_name=project, program=program, opts=options)


def _environment(request: Request) -> dict[str, str]:
    backend = request.backend or os.environ.get("PULUMI_BACKEND_URL", "")
    if not backend:
        raise no_backend()
    secrets = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
    by_passphrase = not request.secrets_provider or request.secrets_provider == "passphrase"
    if by_passphrase and not any(name in os.environ for name in secrets):
        raise Refused(
            "Pulumi encrypts the secrets in a stack's state, and nothing says with what.",
            hint="--secrets-provider awskms://alias/NAME?region=REGION, or "
            "PULUMI_CONFIG_PASSPHRASE_FILE",
        )
    # The policy pack is run with "python3": this one, which has what the pack imports.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {"PULUMI_BACKEND_URL": backend, "PULUMI_SKIP_UPDATE_CHECK": "true", "PATH": path}


def _program(wanted: Platform) -> Callable[[], None]:
    def declare() -> None:
        import pulumi

        from infra.aws.program import main

        for name, value in main.declare(wanted).items():
            pulumi.export(name, value)

    return declare


def carry_out(action: str, request: Request, stack: Any, told: Told) -> JSON:
    """The result of an action on an open stack. Raises what the SDK raises."""
    shared: JSON = {"on_event": told.hear, "color": "never"}
    if request.targets:
        shared["target"] = list(request.targets)
    applies: JSON = {**shared, "policy_packs": [str(PACK)], "message": request.message or None}
    match action:
        case "preview":
            told.changes = _counted(stack.preview(**applies).change_summary)
        case "up":
            done = stack.up(**applies, show_secrets=False)
            return {"mode": "applied", "version": done.summary.version, **_shown(stack)}
        case "preview-destroy":
            stack.preview_destroy(**shared, exclude_protected=request.keep_data)
        case "destroy":
            stack.destroy(**shared, exclude_protected=request.keep_data, show_secrets=False)
        case "drift":
            stack.preview_refresh(**shared)
        case "outputs":
            return _shown(stack)
        case "export":
            return {"export": _asked(stack, "stack", "export")}
    return {}


def _counted(changes: Mapping[Any, int]) -> dict[str, int]:
    return {_word(op): count for op, count in changes.items()}


def _word(op: Any) -> str:
    """An operation's name, which the SDK has as an enum or as text."""
    return str(getattr(op, "value", op))


def _shown(stack: Any) -> JSON:
    """The outputs, secret ones masked by Pulumi itself."""
    return {"outputs": _asked(stack, "stack", "output", "--json")}


def _asked(stack: Any, *words: str) -> JSON:
    """What the CLI answers. The SDK's own calls would have the secrets shown."""
    space = stack.workspace
    arguments = [*words, "--stack", stack.name]
    done = space.pulumi_command.run(arguments, space.work_dir, space.env_vars)
    answer = json.loads(done.stdout or "{}")
    return dict(answer)


def run(
    action: str,
    request: Request,
    project: str,
    name: str,
    program: Callable[[], None],
) -> int:
    """Carries an action out, tells of it on stdout, and returns the exit code."""
    told = Told()
    try:
        stack = open_stack(request, project, name, program)
        result = carry_out(action, request, stack, told)
    except Problem as trouble:
        return _failed(trouble)
    except Exception as error:
        return _failed(problem(error, name, told.violations))
    emit({"event": "ended", "stack": name, "changes": told.changes, "steps": told.steps, **result})
    return 0


def _failed(trouble: Problem) -> int:
    emit(trouble.document())
    return int(trouble.exit)


def main() -> int:
    """Exit codes are those of the problems."""
    # Ctrl-C is for the CLI, which finishes what it is at; this process waits for it.
    signal.signal(signal.SIGINT, lambda *_: None)
    action = sys.argv[1] if len(sys.argv) == 2 else ""
    try:
        if action not in ACTIONS:
            raise Refused(f"There is no action {action!r}.", hint=f"one of {', '.join(ACTIONS)}")
        request = Request.read(json.load(sys.stdin))
        text, source = read(request.topology)
        wanted = platform(parse(text, source), text)
    except Problem as trouble:
        return _failed(trouble)
    return run(action, request, wanted.project, wanted.stack, _program(wanted))


if __name__ == "__main__":
    sys.exit(main())
