"""Are the values of a resource on offer in its region? Pure; the offers come from the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from infra.aws.catalogue import Catalogue
from infra.aws.findings import Finding, did_you_mean

JSON = Mapping[str, Any]
Check = Callable[[JSON, Sequence[JSON], Catalogue], Iterator[Finding]]


def values(resource: JSON, resources: Sequence[JSON], catalogue: Catalogue) -> Iterator[Finding]:
    """What AWS would not take of this resource, among all `resources`."""
    check = CHECKS.get(resource["type"])
    if check is not None:
        yield from check(resource, resources, catalogue)


def _cluster(resource: JSON, _: Sequence[JSON], catalogue: Catalogue) -> Iterator[Finding]:
    yield from _version(resource, catalogue)


def _instance(resource: JSON, _: Sequence[JSON], catalogue: Catalogue) -> Iterator[Finding]:
    yield from _offered(resource, "instanceClass", catalogue.classes, extra=("db.serverless",))
    yield from _version(resource, catalogue)


def _replication_group(
    resource: JSON, _: Sequence[JSON], catalogue: Catalogue
) -> Iterator[Finding]:
    yield from _offered(resource, "nodeType", catalogue.nodes)
    inputs = resource["inputs"]
    if inputs.get("engine") == "valkey" and "transitEncryptionEnabled" not in inputs:
        message = "Valkey wants transitEncryptionEnabled said, on or off"
        yield Finding(resource["urn"], "transitEncryptionEnabled", "required", message)
    yield from _cache_version(resource, catalogue)


def _task(resource: JSON, _: Sequence[JSON], catalogue: Catalogue) -> Iterator[Finding]:
    inputs = resource["inputs"]
    cpu, memory = str(inputs.get("cpu", "")), str(inputs.get("memory", ""))
    known = {pair[0] for pair in catalogue.fargate}
    if "FARGATE" not in (inputs.get("requiresCompatibilities") or ()) or not known:
        return
    if not cpu.isdecimal() or not memory.isdecimal():
        yield Finding(resource["urn"], "cpu", "fargate-size", "Fargate needs cpu and memory")
    elif cpu not in known:
        hint = did_you_mean(cpu, known, most=10)
        yield Finding(resource["urn"], "cpu", "fargate-size", f"Fargate has no cpu {cpu}", hint)
    elif (cpu, int(memory)) not in catalogue.fargate:
        fit = ", ".join(str(each[1]) for each in sorted(catalogue.fargate) if each[0] == cpu)
        message = f"Fargate has no {memory} MiB with {cpu} CPU units"
        yield Finding(resource["urn"], "memory", "fargate-size", message, f"one of {fit}")


def _offered(
    resource: JSON, key: str, offers: Mapping[str, frozenset[str]], extra: Sequence[str] = ()
) -> Iterator[Finding]:
    value = resource["inputs"].get(key)
    here = offers.get(str(resource.get("region")))
    if not isinstance(value, str) or value.startswith("<") or not here:
        return
    if value not in here and value not in extra:
        message = f"{value} is not offered in {resource['region']}"
        yield Finding(resource["urn"], key, "not-offered", message, did_you_mean(value, here))


def _version(resource: JSON, catalogue: Catalogue) -> Iterator[Finding]:
    """The version of a database engine: known, and not deprecated."""
    inputs = resource["inputs"]
    engine, version = inputs.get("engine"), inputs.get("engineVersion")
    known = catalogue.versions.get(str(engine))
    if not isinstance(version, str) or version.startswith("<") or not known:
        return
    live = known - catalogue.deprecated.get(str(engine), frozenset())
    if version not in known:
        hint = did_you_mean(version, live)
        message = f"{engine} has no version {version}"
        yield Finding(resource["urn"], "engineVersion", "engine-version", message, hint)
    elif version not in live:
        same = sorted(each for each in live if each.split(".")[0] == version.split(".")[0])
        hint = f"of this major version there are {', '.join(same)}" if same else "take a newer one"
        message = f"{engine} {version} is deprecated"
        yield Finding(resource["urn"], "engineVersion", "engine-deprecated", message, hint)


def _cache_version(resource: JSON, catalogue: Catalogue) -> Iterator[Finding]:
    """ElastiCache takes "8.0" where its API lists "8.0" or "8.0.1": the beginning must be known."""
    inputs = resource["inputs"]
    engine, version = inputs.get("engine"), inputs.get("engineVersion")
    known = catalogue.versions.get(str(engine))
    if not isinstance(version, str) or version.startswith("<") or not known:
        return
    if version not in known and not any(each.startswith(f"{version}.") for each in known):
        message = f"{engine} has no version {version}"
        hint = did_you_mean(version, known)
        yield Finding(resource["urn"], "engineVersion", "engine-version", message, hint)


CHECKS: Mapping[str, Check] = {
    "aws:rds/cluster:Cluster": _cluster,
    "aws:rds/globalCluster:GlobalCluster": _cluster,
    "aws:rds/clusterInstance:ClusterInstance": _instance,
    "aws:elasticache/replicationGroup:ReplicationGroup": _replication_group,
    "aws:ecs/taskDefinition:TaskDefinition": _task,
}
