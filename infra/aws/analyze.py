"""Asks the policy pack about a plan, offline: `python -m infra.aws.analyze < plan.json`.

A process of its own, because it imports pulumi. The pack is run untouched, as the Pulumi engine
runs it: a process that serves the Analyzer protocol (gRPC) on a port of 127.0.0.1 that it prints.
So one pack judges a plan without an account and every `pulumi up --policy-pack`. The pack is
started before the plan has been read, which takes about as long.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from google.protobuf.struct_pb2 import Struct
from pulumi.runtime.proto import analyzer_pb2, analyzer_pb2_grpc

from infra.aws.plan import COMPUTED, UNKNOWN

JSON = dict[str, Any]
PACK = Path(__file__).parent / "policy_pack"
ANSWER_SECONDS = 60.0
LEVELS = {
    analyzer_pb2.EnforcementLevel.Value(name): name.lower()
    for name in analyzer_pb2.EnforcementLevel.keys()  # noqa: SIM118
}
MESSAGE_BYTES = 64 * 1024 * 1024


@contextmanager
def pack(folder: Path) -> Iterator[analyzer_pb2_grpc.AnalyzerStub]:
    """The running pack of `folder`; it ends with the block. Raises `RuntimeError`."""
    command = [sys.executable, "-u", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port.isdecimal():
                raise RuntimeError(f"the policy pack {folder} ended before it served")
            options = [("grpc.max_receive_message_length", MESSAGE_BYTES)]
            with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                yield analyzer_pb2_grpc.AnalyzerStub(channel)
        finally:
            process.kill()


def judge(stub: analyzer_pb2_grpc.AnalyzerStub, resources: Sequence[Mapping[str, Any]]) -> JSON:
    """The policies of the pack, and what in the plan is against them."""
    info = stub.GetAnalyzerInfo(empty_pb2.Empty(), timeout=ANSWER_SECONDS)
    request = analyzer_pb2.AnalyzeStackRequest(resources=list(_translated(resources)))
    answer = stub.AnalyzeStack(request, timeout=ANSWER_SECONDS)
    policies = [
        {
            "name": policy.name,
            "level": LEVELS[policy.enforcementLevel],
            "description": policy.description,
        }
        for policy in info.policies
    ]
    violations = [
        {
            "policy": each.policyName,
            "level": LEVELS[each.enforcementLevel],
            "urn": each.urn,
            "message": _said(each),
        }
        for each in answer.diagnostics
    ]
    violations.sort(key=lambda each: (each["policy"], each["urn"], each["message"]))
    return {"pack": info.name, "policies": policies, "violations": violations}


def _said(diagnostic: Any) -> str:
    """Its message without the policy's description, which the SDK puts in front of it."""
    return str(diagnostic.message).removeprefix(diagnostic.description).strip()


def _translated(resources: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """The resources of a plan as the engine would send them."""
    by_urn = {resource["urn"]: resource for resource in resources}
    for resource in resources:
        provider = by_urn.get(resource["provider"])
        yield analyzer_pb2.AnalyzerResource(
            type=resource["type"],
            urn=resource["urn"],
            name=resource["name"],
            parent=resource["parent"],
            properties=_struct(resource["inputs"]),
            options=analyzer_pb2.AnalyzerResourceOptions(
                protect=bool(resource["options"].get("protect")),
                ignoreChanges=resource["options"].get("ignoreChanges", ()),
            ),
            provider=None if provider is None else _provider(provider),
            dependencies=resource["dependencies"],
            propertyDependencies={
                key: analyzer_pb2.AnalyzerPropertyDependencies(urns=urns)
                for key, urns in resource["propertyDependencies"].items()
            },
        )


def _provider(resource: Mapping[str, Any]) -> Any:
    return analyzer_pb2.AnalyzerProviderResource(
        type=resource["type"],
        urn=resource["urn"],
        name=resource["name"],
        properties=_struct(resource["inputs"]),
    )


def _struct(values: Mapping[str, Any]) -> Struct:
    struct = Struct()
    struct.update(_unknowns(values))
    return struct


def _unknowns(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _unknowns(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unknowns(each) for each in value]
    return UNKNOWN if value == COMPUTED else value


def main() -> int:
    """Reads a plan from stdin; stdout is what `judge` says of it."""
    # Whoever ends this process ends the pack with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # The pack's own process takes its modules from where this one does.
    os.environ["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    with pack(PACK) as stub:
        plan = json.load(sys.stdin)
        result = judge(stub, plan["resources"])
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
