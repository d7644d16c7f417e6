"""The double's engine: runs the program over gRPC as Pulumi does, and keeps a state file.

It speaks LanguageRuntime.Run to the inline program and ResourceMonitor to its registrations, and
sends engine events to the Automation API. A resource is the same, updated or created by comparing
its inputs; no provider is asked, and nothing is made.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import (
    events_pb2,
    events_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

from infra.aws.analyze import judge, pack
from infra.aws.plan import SECRET, plain
from tests.infra.aws.double import world
from tests.infra.aws.double.cli import Failed

JSON = dict[str, Any]
STACK = "pulumi:pulumi:Stack"
PROJECT = "regionctl"
PAUSE_SECONDS = 60
# As the CLI shows an output that nobody may see.
HIDDEN = "[secret]"


class Events:
    """Sends engine events where `--event-log tcp://…` says."""

    def __init__(self, target: str) -> None:
        self._queue: SimpleQueue[JSON | None] = SimpleQueue()
        self._channel = grpc.insecure_channel(target.removeprefix("tcp://"))
        stub = events_pb2_grpc.EventsStub(self._channel)
        self._thread = threading.Thread(target=lambda: stub.StreamEvents(self._requests()))
        self._thread.start()

    def send(self, **event: Any) -> None:
        self._queue.put({"sequence": 1, "timestamp": 1, **event})

    def end(self) -> None:
        self.send(cancelEvent={})
        self._queue.put(None)
        self._thread.join(10)
        self._channel.close()

    def _requests(self) -> Iterator[Any]:
        while (event := self._queue.get()) is not None:
            yield events_pb2.EventRequest(event=json.dumps(event))


class Engine:
    """One operation on a stack."""

    def __init__(self, stack: str, state: JSON, event_log: str, client: str) -> None:
        self.stack, self.state, self.client = stack, state, client
        self.events = Events(event_log)
        self.before: dict[str, JSON] = {each["urn"]: each for each in state["resources"]}
        self.seen: dict[str, JSON] = {}
        self.outputs: JSON = {}
        self.changes: Counter[str] = Counter()
        self.dry = False
        self.targets: list[str] = []
        self.skipped: set[str] = set()
        self.kept: dict[str, str] = dict(state.get("kept", {}))
        self._trouble = ""
        self._lock = threading.Lock()
        self._canceled = threading.Event()
        self._steps = 0
        self.pause: Path | None = None

    def update(self, *, dry: bool, packs: list[str], targets: list[str]) -> None:
        self.dry, self.targets = dry, targets
        try:
            self._run_program()
            self._judge(packs)
            self._delete([] if targets else [urn for urn in self.before if urn not in self.seen])
            self._summary()
            self.state["outputs"] = self.outputs
        finally:
            self._remember()
            self.events.end()

    def destroy(self, *, dry: bool, keep_protected: bool) -> None:
        self.dry = dry
        try:
            kept = _kept(self.before) if keep_protected else set()
            self._delete([urn for urn in self.before if urn not in kept])
            self._summary()
        finally:
            self._remember()
            self.events.end()

    def cancel(self) -> None:
        """As after ^C: no step is begun any more, and what was done is remembered."""
        self._canceled.set()

    def _remember(self) -> None:
        """Whatever came in between: what was done stays done."""
        resources = [*({**self.before, **self.seen}).values()]
        self.state |= {"version": self.state["version"] + 1, "resources": resources}
        self.state["kept"] = self.kept

    def refresh(self) -> None:
        """A resource whose state says `drifted` has been changed by somebody else."""
        try:
            for each in self.before.values():
                self._step("update" if each.get("drifted") else "same", each["urn"], each["type"])
            self._summary()
        finally:
            self.events.end()

    def _delete(self, urns: list[str]) -> None:
        """What is protected is found before anything is deleted."""
        for urn in reversed(urns):
            if self.before[urn]["protect"]:
                raise Failed(f"error: resource {urn} cannot be deleted: it is protected")
        for urn in reversed(urns):
            self._step("delete", urn, self.before[urn]["type"])
            if not self.dry:
                del self.before[urn]

    def _summary(self) -> None:
        self.events.send(
            summaryEvent={
                "maybeCorrupt": False,
                "durationSeconds": 1,
                "resourceChanges": dict(self.changes),
                "PolicyPacks": {},
            }
        )

    def _judge(self, packs: list[str]) -> None:
        hard = False
        for folder in packs:
            with pack(Path(folder)) as stub:
                found = judge(stub, [*self.seen.values()])["violations"]
            for each in found:
                hard = hard or each["level"] == "mandatory"
                self.events.send(
                    policyEvent={
                        "message": each["message"],
                        "color": "raw",
                        "policyName": each["policy"],
                        "policyPackName": "regionctl-aws",
                        "policyPackVersion": "1.0.0",
                        "policyPackVersionTag": "1.0.0",
                        "enforcementLevel": each["level"],
                        "resourceUrn": each["urn"],
                    }
                )
        if hard:
            raise Failed("error: update failed", "Policy Violations: mandatory")

    def _run_program(self) -> None:
        server = grpc.server(ThreadPoolExecutor(max_workers=8))
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(Monitor(self), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(self.client) as channel:
                done = language_pb2_grpc.LanguageRuntimeStub(channel).Run(
                    language_pb2.RunRequest(
                        project=PROJECT,
                        stack=self.stack,
                        monitor_address=f"127.0.0.1:{port}",
                        # No engine to log to: the SDK says five things of each resource.
                        args=[],
                        dryRun=self.dry,
                        parallel=4,
                    )
                )
        finally:
            server.stop(0)
        if self._trouble:
            raise Failed(self._trouble)
        if done.error:
            raise Failed("error: an unhandled error occurred", done.error)

    def register(self, request: Any) -> JSON | None:
        """What the program is told of its resource; None when it is not among the targets, and is
        not there."""
        urn = self.urn(request)
        inputs = json_format.MessageToDict(request.object)
        with self._lock:
            if urn in self.seen or urn in self.skipped:
                raise Failed(f"error: duplicate resource URN '{urn}'")
            old = self.before.get(urn)
            wanted = request.type == STACK or not self.targets or urn in self.targets
            if not wanted and old is None:
                self.skipped.add(urn)
                return None
            resource = _resource(request, urn, inputs) if wanted or old is None else old
            self._needs(resource)
            if wanted and request.type != STACK:
                same = old is not None and old["inputs"] == resource["inputs"]
                op = "create" if old is None else "same" if same else "update"
                self._step(op, urn, request.type)
            self.seen[urn] = resource
            if request.type == world.SECRET and not self.dry:
                self._keep(inputs, old)
        if not request.custom or (self.dry and old is None):
            return {"urn": urn, "id": "", "state": inputs}
        known = world.made_up(request.type, request.name, inputs)
        return {"urn": urn, "id": known["id"], "state": {**inputs, **known}}

    def _needs(self, resource: JSON) -> None:
        """Pulumi makes nothing of which a part is left out by --target."""
        for missing in sorted(_needed(resource) & self.skipped):
            self._trouble = (
                f"error: Resource '{resource['urn']}' depends on '{missing}' which was was not "
                "specified in --target list."
            )
            raise Failed(self._trouble)

    def _keep(self, inputs: JSON, old: JSON | None) -> None:
        """A secret's text, when it is new or said to be another version."""
        version = inputs["secretStringWoVersion"]
        if old is None or old["inputs"]["secretStringWoVersion"] != version:
            self.kept[inputs["secretId"]] = world.written(inputs)

    def urn(self, request: Any) -> str:
        above = request.parent.split("::")[2] if request.parent else STACK
        kind = request.type if above == STACK else f"{above}${request.type}"
        return f"urn:pulumi:{self.stack}::{PROJECT}::{kind}::{request.name}"

    def _step(self, op: str, urn: str, type: str) -> None:
        if self._canceled.is_set():
            self._trouble = "error: update canceled"
            raise Failed(self._trouble)
        self.changes[op] += 1
        metadata = {"op": op, "urn": urn, "type": type, "provider": "", "old": None, "new": None}
        self.events.send(resourcePreEvent={"metadata": metadata, "planning": self.dry})
        if not self.dry:
            self.events.send(resOutputsEvent={"metadata": metadata, "planning": False})
            self._steps += 1
            if self.pause and self._steps == int(self.pause.read_text()):
                self.pause.with_name("paused").touch()
                self._canceled.wait(PAUSE_SECONDS)


def _kept(resources: dict[str, JSON]) -> set[str]:
    """What is protected, and what that needs."""
    kept: set[str] = set()
    left = [urn for urn, each in resources.items() if each["protect"]]
    while left:
        urn = left.pop()
        if urn in resources and urn not in kept:
            kept.add(urn)
            left += _needed(resources[urn])
    return kept


def _needed(resource: JSON) -> set[str]:
    """What must be there before it: also what says where it goes, and what it is a part of."""
    return {resource["parent"], resource["provider"], *resource["dependencies"]}


def _resource(request: Any, urn: str, inputs: JSON) -> JSON:
    return {
        "urn": urn,
        "type": request.type,
        "name": request.name,
        "parent": request.parent,
        "inputs": plain(inputs),
        "dependencies": list(request.dependencies),
        "propertyDependencies": {
            key: list(found.urns) for key, found in request.propertyDependencies.items()
        },
        "provider": request.provider.rpartition("::")[0],
        "protect": request.protect,
        "options": {"protect": request.protect},
    }


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def GetDeploymentInfo(self, request: Any, context: Any) -> Any:
        features = (
            resource_pb2.RESOURCE_MONITOR_FEATURE_SECRETS,
            resource_pb2.RESOURCE_MONITOR_FEATURE_RESOURCE_REFERENCES,
            resource_pb2.RESOURCE_MONITOR_FEATURE_ALIAS_SPECS,
            resource_pb2.RESOURCE_MONITOR_FEATURE_DELETED_WITH,
            resource_pb2.RESOURCE_MONITOR_FEATURE_TRANSFORMS,
        )
        return resource_pb2.DeploymentInfo(supportedFeatures=list(features))

    def SupportsFeature(self, request: Any, context: Any) -> Any:
        known = request.id in ("secrets", "resourceReferences", "aliasSpecs", "transforms")
        return resource_pb2.SupportsFeatureResponse(hasSupport=known)

    def RegisterResource(self, request: Any, context: Any) -> Any:
        try:
            done = self.engine.register(request)
        except Failed as error:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, str(error))
        if done is None:
            urn = self.engine.urn(request)
            return resource_pb2.RegisterResourceResponse(urn=urn, unknown=True)
        state = struct_pb2.Struct()
        state.update(done["state"])
        return resource_pb2.RegisterResourceResponse(urn=done["urn"], id=done["id"], object=state)

    def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:
        if request.urn.split("::")[2] == STACK:
            outputs = plain(json_format.MessageToDict(request.outputs))
            self.engine.outputs = {
                key: HIDDEN if value == SECRET else value for key, value in outputs.items()
            }
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        try:
            asked = json_format.MessageToDict(request.args)
            found = world.answer(request.tok, asked, self.engine.kept)
        except KeyError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.tok}: AWS has no {error}")
        answer = struct_pb2.Struct()
        answer.update(found)
        return resource_pb2.ResourceInvokeResponse(**{"return": answer})

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()
