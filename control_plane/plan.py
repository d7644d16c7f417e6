"""A plan: what will be done, as data.

Planners return a `Plan`; `--dry-run` prints it, the engine stores and carries it out, and carrying
it out makes no choices. A step's name is its contract: a new meaning gets a new name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.shardmap import ShardMap

JSON = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """`name` is that of the function in `control_plane.steps` that carries it out, with dashes."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> JSON:
        return {"name": self.name, "args": dict(self.args)}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Step:
        return Step(document["name"], dict(document["args"]))


@dataclass(frozen=True)
class Plan:
    """Steps in order, and what must hold while they run.

    `kind` is the verb ("failover", "switchover", "drill"), `target` what it is done to. `locks`
    are the names that no other running operation may hold: "platform" (excludes everything but
    a drill's own operations), "database:s1", "drill". `expected` says beforehand what the plan
    will cost, such as {"lossSeconds": 0.2}. `premises` is what the plan was made from, for each
    database that it touches: [primary, epoch, standbys in sync]. A plan whose premises no longer
    hold when it takes its locks is refused, not carried out.
    """

    kind: str
    target: str
    steps: tuple[Step, ...]
    locks: tuple[str, ...] = ()
    expected: Mapping[str, Any] = field(default_factory=dict)
    premises: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> JSON:
        return {
            "kind": self.kind,
            "target": self.target,
            "steps": [step.to_json() for step in self.steps],
            "locks": list(self.locks),
            "expected": dict(self.expected),
            "premises": dict(self.premises),
        }

    def digest(self) -> str:
        """SHA-256 of all of it: the audit log quotes it."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Plan:
        return Plan(
            kind=document["kind"],
            target=document["target"],
            steps=tuple(Step.from_json(step) for step in document["steps"]),
            locks=tuple(document["locks"]),
            expected=dict(document["expected"]),
            premises=dict(document["premises"]),
        )


def premises(shard_map: ShardMap | None, databases: Iterable[str] | None = None) -> JSON:
    """What a plan for these databases (default: all) stands on. Nothing before the first map."""
    if shard_map is None:
        return {}
    names = shard_map.shards if databases is None else databases
    return {
        name: [shard.primary.instance, shard.epoch, list(shard.sync)]
        for name in names
        for shard in (shard_map.shards[name],)
    }


def broken_premises(plan: Plan, shard_map: ShardMap | None) -> list[str]:
    """The databases that have changed since the plan was made."""
    now = premises(shard_map)
    return [name for name, premise in plan.premises.items() if now.get(name) != premise]
