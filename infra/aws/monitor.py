"""Pulumi's engine for a plan: is told what a program declares, keeps it, and makes nothing.

It stands on the SDK's own test monitor (`pulumi.runtime.mocks`), which answers without a process
beside it. It runs in preview, so that what only AWS knows stays unknown and the edges are whole.
Two things are mended: URNs are those of the real engine, and a question to AWS that has no answer
here is an error. Imports pulumi: only `infra/aws/record.py` imports this, in a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
from google.protobuf import empty_pb2, json_format
from pulumi.runtime import mocks
from pulumi.runtime.settings import configure
from pulumi.runtime.stack import run_in_stack

from infra.aws.plan import ACCOUNT, COMPUTED, Registered
from runtime.errors import Invalid

STACK = "pulumi:pulumi:Stack"
ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "aws:index/getCallerIdentity:getCallerIdentity": {
        "accountId": ACCOUNT,
        "arn": f"arn:aws:iam::{ACCOUNT}:root",
        "id": ACCOUNT,
        "userId": ACCOUNT,
    },
    "aws:ec2/getManagedPrefixList:getManagedPrefixList": {"id": COMPUTED},
    "aws:secretsmanager/getRandomPassword:getRandomPassword": {
        "id": "-",
        "randomPassword": "planned",
    },
}


class Recorder(mocks.MockMonitor):
    """`registered` is what was declared, in no certain order; `outputs` what was exported."""

    def __init__(self, project: str, stack: str) -> None:
        super().__init__(_Answers())
        self.registered: list[Registered] = []
        self.outputs: dict[str, Any] = {}
        self._prefix = f"urn:pulumi:{stack}::{project}::"

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """As the engine does it: the types of all ancestors but the stack, then its own."""
        above = parent.split("::")[2] if parent else STACK
        qualified = type_ if above == STACK else f"{above}${type_}"
        return f"{self._prefix}{qualified}::{name}"

    def RegisterResource(self, request: Any) -> Any:
        if request.type != STACK:
            self.registered.append(_registered(request, self._urn(request)))
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]

    def RegisterResourceOutputs(self, request: Any) -> Any:
        if request.urn.split("::")[2] == STACK:
            self.outputs = json_format.MessageToDict(request.outputs)
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]

    def _urn(self, request: Any) -> str:
        return self.make_urn(request.parent, request.type, request.name)


class _Answers(mocks.Mocks):
    def call(self, args: mocks.MockCallArgs) -> Any:
        if args.token not in ANSWERS:
            raise Invalid(
                f"The program asks AWS ({args.token}), and a plan has nobody to ask.",
                hint="Say it in the topology, or give the resource a name of ours.",
            )
        return dict(ANSWERS[args.token])

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[None, dict[str, Any]]:
        return None, args.inputs


def _registered(request: Any, urn: str) -> Registered:
    known = request.parent.split("::")[2] != STACK if request.parent else False
    return Registered(
        urn=urn,
        type=request.type,
        name=request.name,
        parent=request.parent if known else "",
        inputs=json_format.MessageToDict(request.object),
        dependencies=tuple(request.dependencies),
        property_dependencies={
            name: tuple(found.urns) for name, found in request.propertyDependencies.items()
        },
        # "URN::ID", where the id is not known yet.
        provider=request.provider.rpartition("::")[0],
        options=_options(request),
    )


def _options(request: Any) -> dict[str, Any]:
    """What was asked for beyond the inputs; what is as usual is left out."""
    options: dict[str, Any] = {
        "protect": request.protect,
        "retainOnDelete": request.retainOnDelete,
        "deleteBeforeReplace": request.deleteBeforeReplace,
        "ignoreChanges": sorted(request.ignoreChanges),
        "replaceOnChanges": sorted(request.replaceOnChanges),
        "additionalSecretOutputs": sorted(request.additionalSecretOutputs),
    }
    return {name: value for name, value in options.items() if value}


def run(project: str, stack: str, program: Callable[[], Mapping[str, Any]]) -> Recorder:
    """What `program` declares; what it returns is exported. Raises what it raises."""
    recorder = Recorder(project, stack)
    told = recorder.GetDeploymentInfo(empty_pb2.Empty())  # type: ignore[no-untyped-call]
    configure(
        mocks.MockSettings(
            monitor=recorder,
            monitor_features=set(told.supportedFeatures),
            engine=mocks.MockEngine(None),
            project=project,
            stack=stack,
            dry_run=True,
            organization=None,
            callbacks=None,
        )
    )
    asyncio.run(_run(program))
    return recorder


async def _run(program: Callable[[], Mapping[str, Any]]) -> None:
    def declare() -> None:
        for name, value in program().items():
            pulumi.export(name, value)

    # A program that fails leaves tasks behind that nobody waits for; its own error says enough.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    await run_in_stack(declare)
