"""The child processes that know Pulumi: a plan with what its types allow, the policies' judgement.

The console imports no pulumi. A plan takes seconds, so the policy pack is started at once and waits
for the plan to be recorded.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from cli import render
from cli.settings import child_environment
from runtime.errors import OperationFailed, Problem, Refused

JSON = dict[str, Any]
EXTRA = "pip install 'regionctl[aws]'"
NEEDED = ("pulumi", "pulumi_aws", "pulumi_policy", "cfnlint", "boto3")
LINE_BYTES = 64 * 1024 * 1024
LAST_LINES = 15


@dataclass(frozen=True)
class Planned:
    """`plan` has kind InfraPlan; `findings` are the validator's, `policies` what the pack said."""

    plan: JSON
    findings: tuple[JSON, ...]
    policies: JSON

    @property
    def wrong(self) -> list[JSON]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding["level"] == "error"]

    @property
    def violations(self) -> list[JSON]:
        """What is against mandatory policies."""
        return [each for each in self.policies["violations"] if each["level"] == "mandatory"]


def need_extra() -> None:
    """Raises `Refused` when the packages for AWS are not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise Refused(f"AWS needs packages that are missing: {', '.join(missing)}.", hint=EXTRA)


async def planned(topology: str) -> Planned:
    """The plan of a topology, validated and judged. Raises what is wrong with the topology."""
    need_extra()
    async with _child("infra.aws.analyze", stdin=True) as pack:
        survey = await answer("infra.aws.survey", "--topology", topology)
        plan = survey["plan"]
        asked = asyncio.create_task(_answered(pack, "infra.aws.analyze", plan))
        findings = _validated(plan, survey["schema"])
        policies = await asked
    return Planned(plan, findings, policies)


async def recorded(topology: str) -> JSON:
    """The plan of a topology, not judged. Raises what is wrong with the topology."""
    need_extra()
    return dict((await answer("infra.aws.survey", "--topology", topology))["plan"])


async def answer(module: str, *arguments: str, given: Mapping[str, Any] | None = None) -> JSON:
    """What `python -m MODULE ARGUMENTS` answers to `given`. Raises the `Problem` it reports."""
    async with _child(module, *arguments, stdin=given is not None) as process:
        return await _answered(process, module, given)


def _validated(plan: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[JSON, ...]:
    from infra.aws import catalogue, validate

    known = catalogue.read(resource["region"] for resource in plan["resources"])
    return tuple(each.document() for each in validate.validate(plan, schema, known))


@asynccontextmanager
async def _child(
    module: str, *arguments: str, stdin: bool = False, patient: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m MODULE ARGUMENTS`, which with its own children does not outlive the block.

    A `patient` one is only interrupted, as by Ctrl-C, and waited for until it has finished.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env=child_environment(),
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        start_new_session=True,  # a group, so that its children end with it
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            if patient:
                render.note(
                    "\nwaiting until Pulumi has finished what it is at; that may take minutes"
                )
            os.killpg(process.pid, signal.SIGINT if patient else signal.SIGTERM)
            await process.wait()


async def _answered(
    process: asyncio.subprocess.Process, module: str, given: Mapping[str, Any] | None
) -> JSON:
    asked = None if given is None else json.dumps(given).encode("utf-8")
    stdout, stderr = await process.communicate(asked)
    found = _document(stdout)
    if process.returncode == 0 and found is not None:
        return found
    raise _problem(module, process.returncode, found, stderr)


def _problem(module: str, code: int | None, answer: Any, stderr: bytes) -> Problem:
    if isinstance(answer, dict) and str(answer.get("type", "")).startswith("urn:regionctl:"):
        return Problem.from_document(answer)
    lines = stderr.decode("utf-8", "replace").strip().splitlines()[-LAST_LINES:]
    return OperationFailed(
        f"python -m {module} ended with exit code {code} and no answer.",
        hint="regionctl infra doctor",
        extra={"lines": lines},
    )


async def events(module: str, *arguments: str, given: bytes = b"") -> AsyncIterator[JSON]:
    """Each line of JSON that `python -m MODULE ARGUMENTS` prints, as it comes.

    Raises the `Problem` that it reports at its end. When the reader is cancelled (Ctrl-C), the
    module and its children are told as by Ctrl-C, and finish what they are at: this waits for them.
    """
    need_extra()
    async with _child(module, *arguments, stdin=True, patient=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.create_task(process.stderr.read())
        process.stdin.write(given)
        process.stdin.close()
        last: Any = None
        async for line in process.stdout:
            last = _document(line) or last
            if last is not None and "event" in last:
                yield last
        await process.wait()
        if process.returncode != 0:
            raise _problem(module, process.returncode, last, await errors)


def _document(text: bytes) -> JSON | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
