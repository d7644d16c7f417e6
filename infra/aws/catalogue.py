"""What AWS offers in which region, as cfn-lint knows it. The one place that reads its files.

cfn-lint (MIT-0) carries what AWS' own APIs answer: instance classes by region, engine versions with
the deprecated ones, node types, pairs of CPU and memory of Fargate. Its folders are no interface,
so a change of their layout is a clear refusal here and nowhere else. The package itself is not
imported; it would cost half a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtime.errors import Refused

EXTRA = "pip install 'regionctl[aws]'"
Pair = tuple[str, int]


@dataclass(frozen=True)
class Catalogue:
    """`classes`: region → instance classes of Aurora PostgreSQL. `nodes`: region → cache node
    types. `versions`, `deprecated`: engine → versions. `fargate`: (CPU units, MiB). `types`: region
    → CloudFormation names of what can be made there. A region without data is missing.
    """

    classes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    nodes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    versions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    deprecated: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fargate: frozenset[Pair] = frozenset()
    types: Mapping[str, frozenset[str]] = field(default_factory=dict)


def read(regions: Iterable[str]) -> Catalogue:
    """What is known of these regions. Raises `Refused` without cfn-lint, or with another layout."""
    wanted = sorted(set(regions))
    root = _root()
    try:
        return _read(root, wanted)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise Refused(
            f"cfn-lint's data is not laid out as expected: {type(error).__name__}: {error}.",
            hint=EXTRA,
        ) from error


def _read(root: Path, regions: list[str]) -> Catalogue:
    extensions = root / "extensions"
    classes = _load(extensions / "aws_rds_dbinstance" / "dbinstanceclass_enum.json")
    nodes = _load(extensions / "aws_elasticache_cachecluster" / "cachenodetype_enum.json")
    caches = _load(extensions / "aws_elasticache_cachecluster" / "engine_version.json")
    databases = _load(extensions / "aws_rds_dbcluster" / "engine_version.json")
    old = _load(extensions / "aws_rds_dbcluster" / "engine_version_deprecated.json")
    fargate = _load(extensions / "aws_ecs_taskdefinition" / "fargate_cpu_memory.json")
    return Catalogue(
        classes={each: _aurora(classes[each]) for each in regions if each in classes},
        nodes={each: frozenset(nodes[each]["enum"]) for each in regions if each in nodes},
        versions=_versions(databases, "then") | _versions(caches, "then"),
        deprecated=_versions(old, "if"),
        fargate=_pairs(fargate),
        types={
            each: frozenset(_load(root / "providers" / f"{each}.json"))
            for each in regions
            if (root / "providers" / f"{each}.json").is_file()
        },
    )


def _root() -> Path:
    spec = find_spec("cfnlint")
    if spec is None or spec.origin is None:
        raise Refused("Checking a plan needs cfn-lint's data of AWS.", hint=EXTRA)
    return Path(spec.origin).parent / "data" / "schemas"


def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _aurora(document: Any) -> frozenset[str]:
    found: set[str] = set()
    for rule in document["allOf"]:
        if rule["if"]["properties"].get("Engine", {}).get("const") == "aurora-postgresql":
            found |= set(rule["then"]["properties"]["DBInstanceClass"]["enum"])
    return frozenset(found)


def _versions(document: Any, where: str) -> dict[str, frozenset[str]]:
    """Engine → versions, of rules that state them in their "if" or in their "then"."""
    found: dict[str, set[str]] = {}
    for rule in document["allOf"]:
        engine = rule["if"]["properties"]["Engine"].get("const")
        part = rule[where]
        listed = part.get("properties", {}).get("EngineVersion", {}) if part else {}
        if engine and "enum" in listed:
            found.setdefault(engine, set()).update(str(each) for each in listed["enum"])
    return {engine: frozenset(versions) for engine, versions in found.items()}


def _pairs(document: Any) -> frozenset[Pair]:
    return frozenset(
        (str(cpu), memory)
        for choice in document["then"]["anyOf"]
        for cpu in choice["properties"]["Cpu"]["then"]["enum"]
        for memory in _memories(choice["properties"]["Memory"]["then"])
    )


def _memories(listed: Any) -> list[int]:
    """MiB, listed one by one or as a range with a step."""
    if "enum" in listed:
        return [int(each) for each in listed["enum"]]
    return list(range(listed["minimum"], listed["maximum"] + 1, listed["multipleOf"]))
