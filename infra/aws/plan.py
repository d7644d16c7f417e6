"""The plan: every resource of a topology on AWS with its inputs and edges, as one JSON document.

It is what the program declares, recorded without an account (`infra/aws/record.py`). It is not a
diff with what exists: no provider has checked it, AWS's defaults are not in it, and what AWS makes
up is the text "<computed>". Secrets are "<secret>", the account's number is "<account>". The
document is in canonical order and has no time in it, so the same topology gives the same bytes.

Everything here is pure: documents in, documents out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]
API_VERSION = "regionctl/v1"
KIND = "InfraPlan"
COMPUTED, SECRET, ACCOUNT, ABSENT = "<computed>", "<secret>", "<account>", "<absent>"
GLOBAL = "global"
# What Pulumi's protocol writes for a value that is not known yet, and the key that says what kind
# of special value an object is, with the kinds (pulumi/sdk/proto, resource properties).
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 (a constant of the protocol)
REFERENCE_SIGNATURE = "5cf8f73096256a8f31e491e813e4eb8e"
PROVIDER_TYPE = "pulumi:providers:aws"
# Services of AWS without regions.
WORLDWIDE = frozenset({"budgets", "cloudfront", "iam", "route53"})


@dataclass(frozen=True)
class Registered:
    """One registration as the program made it. `provider` is the URN of the provider."""

    urn: str
    type: str
    name: str
    parent: str
    inputs: Mapping[str, Any]
    dependencies: tuple[str, ...]
    property_dependencies: Mapping[str, tuple[str, ...]]
    provider: str
    options: Mapping[str, Any]


def plain(value: Any) -> Any:
    """A value of Pulumi's protocol as JSON: unknowns and secrets by name, whole numbers whole."""
    match value:
        case str():
            return COMPUTED if value == UNKNOWN else value
        case bool() | None:
            return value
        case float() if value.is_integer():
            return int(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            kind = value.get(SIGNATURE)
            if kind == SECRET_SIGNATURE:
                return SECRET
            if kind == REFERENCE_SIGNATURE:
                return value["urn"]
            return {key: plain(item) for key, item in value.items()}
    return value


def document(
    topology: str,
    tools: Mapping[str, str],
    registered: Iterable[Registered],
    outputs: Mapping[str, Any],
) -> JSON:
    """The plan in canonical order. Raises `ValueError` when two resources have one URN."""
    every = {}
    for one in registered:
        if one.urn in every:
            raise ValueError(f"two resources are called {one.name!r}: {one.urn}")
        every[one.urn] = one
    regions = _regions_of_providers(every.values())
    resources = [_resource(every[urn], regions) for urn in sorted(every)]
    counts = Counter(resource["type"] for resource in resources)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "mode": "planned",
        "topology": topology,
        "tools": dict(tools),
        "resources": resources,
        "outputs": plain(dict(outputs)),
        "counts": dict(sorted(counts.items())),
    }


def _regions_of_providers(registered: Iterable[Registered]) -> dict[str, str]:
    return {
        one.urn: str(one.inputs.get("region", ""))
        for one in registered
        if one.type == PROVIDER_TYPE
    }


def _resource(one: Registered, regions: Mapping[str, str]) -> JSON:
    return {
        "urn": one.urn,
        "type": one.type,
        "name": one.name,
        "region": _region(one, regions),
        "parent": one.parent,
        "inputs": _inputs(one),
        "dependencies": sorted(one.dependencies),
        "propertyDependencies": {
            name: sorted(urns) for name, urns in sorted(one.property_dependencies.items()) if urns
        },
        "provider": one.provider,
        "options": dict(one.options),
    }


def _inputs(one: Registered) -> JSON:
    """Pulumi sends a provider's settings as JSON text, which nobody wants to read."""
    inputs: JSON = plain(dict(one.inputs))
    if one.type == PROVIDER_TYPE and "defaultTags" in inputs:
        inputs["defaultTags"] = json.loads(inputs["defaultTags"])
    return inputs


def _region(one: Registered, regions: Mapping[str, str]) -> str:
    """Where it will be: a region, "global", or "" for what only groups others."""
    if one.type == PROVIDER_TYPE:
        return regions[one.urn]
    if not one.type.startswith("aws:"):
        return ""
    service = one.type.split(":")[1].split("/")[0]
    if service in WORLDWIDE or one.inputs.get("scope") == "CLOUDFRONT":
        return GLOBAL
    return str(one.inputs.get("region") or regions.get(one.provider, ""))


def text(plan: Mapping[str, Any]) -> str:
    """The bytes that two runs agree on."""
    return json.dumps(plan, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def managed(plan: Mapping[str, Any]) -> list[JSON]:
    """The resources of AWS: neither components nor providers."""
    return [one for one in plan["resources"] if one["type"].startswith("aws:")]


def edges(plan: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(from, to, property): a resource needs another one, for that property ("" : explicitly)."""
    for resource in plan["resources"]:
        told = set()
        for name, urns in resource["propertyDependencies"].items():
            for urn in urns:
                told.add(urn)
                yield resource["urn"], urn, name
        for urn in resource["dependencies"]:
            if urn not in told:
                yield resource["urn"], urn, ""


def targets(plan: Mapping[str, Any], region: str, existing: Collection[str]) -> list[str]:
    """What `pulumi up --target` has to be given to make one region: the URNs of what is in it, and
    of what that needs and is not among the `existing` ones yet.

    Pulumi makes nothing of which a need is neither there nor a target. What is made elsewhere comes
    with its whole part (component): a bucket is not there without what keeps it closed. What is
    there elsewhere already is left as it is.
    """
    by_urn = {one["urn"]: one for one in plan["resources"]}
    parts: dict[str, set[str]] = {}
    for urn, one in by_urn.items():
        parts.setdefault(one["parent"], set()).add(urn)
    found = {urn for urn, one in by_urn.items() if one["region"] == region}
    todo = [*found]
    while todo:
        one = by_urn[todo.pop()]
        wanted = needs(one)
        if one["region"] != region and one["type"].startswith("aws:"):
            wanted |= parts[one["parent"]]
        missing = wanted - found - set(existing)
        found |= missing
        todo += missing
    return sorted(found)


def needs(resource: Mapping[str, Any]) -> set[str]:
    """The URNs that must be there before it: also what it is a part of, and where it goes."""
    by_property = (urn for urns in resource["propertyDependencies"].values() for urn in urns)
    found = {resource["parent"], resource["provider"], *resource["dependencies"], *by_property}
    return found - {""}


@dataclass(frozen=True)
class Node:
    """A resource or component and what stands below it, by name."""

    resource: Mapping[str, Any]
    children: tuple[Node, ...]


def tree(plan: Mapping[str, Any]) -> tuple[Node, ...]:
    """The components as they are nested; providers and the stack itself left out."""
    below: dict[str, list[JSON]] = {}
    known = {one["urn"] for one in plan["resources"]}
    for one in plan["resources"]:
        if one["type"] != PROVIDER_TYPE:
            below.setdefault(one["parent"] if one["parent"] in known else "", []).append(one)

    def grow(parent: str) -> tuple[Node, ...]:
        found = sorted(below.get(parent, []), key=lambda one: (one["type"], one["name"]))
        return tuple(Node(one, grow(one["urn"])) for one in found)

    return grow("")


@dataclass(frozen=True)
class Change:
    """`kind`: "added", "removed" or "changed"; of a change the inputs and options that differ, by
    path such as "tags.owner", each with what was and what will be ("<absent>": not there)."""

    kind: str
    urn: str
    type: str
    name: str
    fields: tuple[tuple[str, Any, Any], ...] = ()


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    """What differs between two plans in declared inputs. It says nothing of what AWS would do."""
    before = {one["urn"]: one for one in old["resources"]}
    after = {one["urn"]: one for one in new["resources"]}
    changes = []
    for urn in sorted(before.keys() | after.keys()):
        one = after.get(urn) or before[urn]
        if urn not in before or urn not in after:
            kind = "added" if urn in after else "removed"
            changes.append(Change(kind, urn, one["type"], one["name"]))
            continue
        fields = (
            *_differ("", before[urn]["inputs"], after[urn]["inputs"]),
            *_differ("options", before[urn]["options"], after[urn]["options"]),
        )
        if fields:
            changes.append(Change("changed", urn, one["type"], one["name"], tuple(fields)))
    return tuple(changes)


def _differ(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            before, after = old.get(key, ABSENT), new.get(key, ABSENT)
            yield from _differ(f"{path}.{key}" if path else key, before, after)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differ(f"{path}[{index}]", before, after)
    else:
        yield path, old, new
