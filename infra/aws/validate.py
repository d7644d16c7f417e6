"""Is a plan what AWS would take? Pure: the plan, a schema and a catalogue in, findings out.

Three layers: what pulumi-aws' type hints say (unknown keys, missing ones, types, enums), what AWS
offers in a region (`infra.aws.catalogue`), and what this platform's design demands
(`infra.aws.validate_rules`). What cannot be known without AWS stays unknown: which inputs exclude
each other, what would be replaced, quotas, names that are taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.aws import validate_rules, validate_values
from infra.aws.catalogue import Catalogue
from infra.aws.findings import Finding, did_you_mean
from infra.aws.plan import COMPUTED, SECRET

JSON = Mapping[str, Any]
BLIND = frozenset({COMPUTED, SECRET})
"""Values that a plan without an account does not know, or does not tell."""


def validate(plan: JSON, schema: JSON, catalogue: Catalogue) -> tuple[Finding, ...]:
    """Every finding, in the order of the plan's resources.

    `plan` is a document of kind InfraPlan, `schema` what `infra.aws.hints.schema` made of its
    types. A mistake in a type that the schema does not reach is not found.
    """
    resources: Sequence[JSON] = plan["resources"]
    found = [*_twice(resources), *_unknown_types(resources, schema)]
    for resource in resources:
        found += types(resource, schema)
        found += validate_values.values(resource, resources, catalogue)
    found += validate_rules.rules(resources)
    return tuple(sorted(set(found)))


def types(resource: JSON, schema: JSON) -> Iterator[Finding]:
    """What the type hints forbid in the inputs of one resource."""
    if resource["type"] in schema["types"]:
        yield from _object(resource["urn"], "", resource["type"], resource["inputs"], schema)


def _twice(resources: Sequence[JSON]) -> Iterator[Finding]:
    for urn, times in Counter(resource["urn"] for resource in resources).items():
        if times > 1:
            yield Finding(urn, "", "urn", f"{times} resources have this URN; the engine refuses it")


def _unknown_types(resources: Sequence[JSON], schema: JSON) -> Iterator[Finding]:
    for resource in resources:
        if resource["type"] in schema.get("unknown", ()):
            message = f"pulumi-aws has no type hints for {resource['type']}: it was not checked"
            yield Finding(resource["urn"], "", "type", message, level="warning")


def _object(urn: str, path: str, name: str, value: Any, schema: JSON) -> Iterator[Finding]:
    shape = schema["types"].get(name)
    if value in BLIND if isinstance(value, str) else shape is None:
        return
    if not isinstance(value, Mapping):
        yield _wrong(urn, path, "an object", value)
        return
    properties: Mapping[str, JSON] = shape["properties"]
    for key in shape["required"]:
        if value.get(key) is None:
            yield Finding(urn, _join(path, key), "required", f"{key} is missing")
    for key, inner in value.items():
        where = _join(path, key)
        if key in properties:
            yield from _value(urn, where, properties[key], inner, schema)
        elif not key.startswith("__"):
            hint = did_you_mean(key, properties)
            yield Finding(urn, where, "unknown-key", f"there is no input {key!r}", hint)


def _value(urn: str, path: str, shape: JSON, value: Any, schema: JSON) -> Iterator[Finding]:
    if value is None or (isinstance(value, str) and value in BLIND):
        return
    match shape["kind"]:
        case "object" if shape.get("orText") and isinstance(value, str):
            return
        case "object":
            yield from _object(urn, path, shape["type"], value, schema)
        case "array":
            if not isinstance(value, list):
                yield _wrong(urn, path, "a list", value)
                return
            for index, each in enumerate(value):
                yield from _value(urn, f"{path}[{index}]", shape["of"], each, schema)
        case "map":
            if not isinstance(value, Mapping):
                yield _wrong(urn, path, "a map", value)
                return
            for key, each in value.items():
                yield from _value(urn, _join(path, key), shape["of"], each, schema)
        case kind:
            yield from _scalar(urn, path, kind, shape, value)


def _scalar(urn: str, path: str, kind: str, shape: JSON, value: Any) -> Iterator[Finding]:
    right = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
    }.get(kind, True)
    if not right:
        yield _wrong(urn, path, f"a {kind}", value)
        return
    allowed = shape.get("enum")
    if allowed and value not in allowed:
        hint = did_you_mean(value, allowed)
        yield Finding(urn, path, "enum", f"{value!r} is none of the allowed values", hint)
    documented = shape.get("documented")
    if documented and value not in documented:
        hint = did_you_mean(value, documented)
        message = f"{value!r} is none of the documented values"
        yield Finding(urn, path, "documented-value", message, hint, "warning")


def _wrong(urn: str, path: str, wanted: str, value: Any) -> Finding:
    return Finding(urn, path, "type", f"must be {wanted}, not {value!r}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
