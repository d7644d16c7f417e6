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
    engine_pb2,
    engine_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
)

from infra.aws.analyze import judge, pack
from infra.aws.plan import plain
from tests.infra.aws.double.cli import Failed

JSON = dict[str, Any]
STACK = "pulumi:pulumi:Stack"
PROJECT = "regionctl"
ACCOUNT = "123456789012"


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
        self.seen: dict[str, JSON] = {}
        self.outputs: JSON = {}
        self.changes: Counter[str] = Counter()
        self.dry = False
        self.targets: list[str] = []
        self._lock = threading.Lock()

    @property
    def before(self) -> dict[str, JSON]:
        return {each["urn"]: each for each in self.state["resources"]}

    def update(self, *, dry: bool, packs: list[str], targets: list[str]) -> None:
        self.dry, self.targets = dry, targets
        try:
            self._run_program()
            self._judge(packs)
            gone = [each for urn, each in self.before.items() if urn not in self.seen]
            self._delete([] if targets else gone)
            self._finish([*self.seen.values()])
            self.state["outputs"] = self.outputs
        finally:
            self.events.end()

    def destroy(self, *, dry: bool, keep_protected: bool) -> None:
        self.dry = dry
        every = [*self.before.values()]
        kept = [each for each in every if each["protect"] and keep_protected]
        try:
            self._delete([each for each in every if each not in kept])
            self._finish(kept)
        finally:
            self.events.end()

    def refresh(self) -> None:
        """A resource whose state says `drifted` has been changed by somebody else."""
        try:
            for each in self.before.values():
                self._step("update" if each.get("drifted") else "same", each["urn"], each["type"])
            self._summary()
        finally:
            self.events.end()

    def _delete(self, resources: list[JSON]) -> None:
        for each in reversed(resources):
            if each["protect"]:
                raise Failed(f"error: resource {each['urn']} cannot be deleted: it is protected")
            self._step("delete", each["urn"], each["type"])

    def _finish(self, resources: list[JSON]) -> None:
        self._summary()
        self.state |= {"version": self.state["version"] + 1, "resources": resources}

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
        engine_pb2_grpc.add_EngineServicer_to_server(Log(self), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(self.client) as channel:
                done = language_pb2_grpc.LanguageRuntimeStub(channel).Run(
                    language_pb2.RunRequest(
                        project=PROJECT,
                        stack=self.stack,
                        monitor_address=f"127.0.0.1:{port}",
                        args=[f"127.0.0.1:{port}"],
                        dryRun=self.dry,
                        parallel=4,
                    )
                )
        finally:
            server.stop(0)
        if done.error:
            raise Failed("error: an unhandled error occurred", done.error)

    def register(self, request: Any) -> JSON:
        urn = self.urn(request)
        inputs = json_format.MessageToDict(request.object)
        resource = {
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
        with self._lock:
            if urn in self.seen:
                raise Failed(f"error: duplicate resource URN '{urn}'")
            old = self.before.get(urn)
            touched = not self.targets or urn in self.targets
            self.seen[urn] = resource if touched or old is None else old
        if touched and request.type != STACK:
            same = old is not None and old["inputs"] == resource["inputs"]
            self._step("create" if old is None else "same" if same else "update", urn, request.type)
        return {"urn": urn, "inputs": inputs}

    def urn(self, request: Any) -> str:
        above = request.parent.split("::")[2] if request.parent else STACK
        kind = request.type if above == STACK else f"{above}${request.type}"
        return f"urn:pulumi:{self.stack}::{PROJECT}::{kind}::{request.name}"

    def _step(self, op: str, urn: str, type: str) -> None:
        self.changes[op] += 1
        metadata = {"op": op, "urn": urn, "type": type, "provider": "", "old": None, "new": None}
        self.events.send(resourcePreEvent={"metadata": metadata, "planning": self.dry})
        if not self.dry:
            self.events.send(resOutputsEvent={"metadata": metadata, "planning": False})


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
        state = struct_pb2.Struct()
        state.update(done["inputs"])
        made = request.custom and not self.engine.dry
        id = f"{request.name}-id" if made else ""
        if made:
            state.update({"id": id, "arn": f"arn:aws:double:::{request.name}"})
        return resource_pb2.RegisterResourceResponse(urn=done["urn"], id=id, object=state)

    def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:
        if request.urn.split("::")[2] == STACK:
            self.engine.outputs = json_format.MessageToDict(request.outputs)
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        answer = struct_pb2.Struct()
        answer.update({"accountId": ACCOUNT, "id": ACCOUNT, "randomPassword": "double"})
        return resource_pb2.ResourceInvokeResponse(**{"return": answer})

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


class Log(engine_pb2_grpc.EngineServicer):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def Log(self, request: Any, context: Any) -> Any:
        severity = engine_pb2.LogSeverity.Name(request.severity).lower()
        said = {"message": request.message, "color": "raw", "severity": severity, "urn": ""}
        self.engine.events.send(diagnosticEvent=said)
        return empty_pb2.Empty()

    def GetRootResource(self, request: Any, context: Any) -> Any:
        return engine_pb2.GetRootResourceResponse(urn="")

    def SetRootResource(self, request: Any, context: Any) -> Any:
        return engine_pb2.SetRootResourceResponse()

    def RequirePulumiVersion(self, request: Any, context: Any) -> Any:
        return engine_pb2.RequirePulumiVersionResponse()
