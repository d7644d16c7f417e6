"""What a stack has, as its state says, in the form of a plan. Pure.

`pulumi stack export` writes every resource with the inputs that the provider accepted: defaults
and made-up names included. Only what a plan declares can be compared, so the rest is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.aws.plan import COMPUTED, PROVIDER_TYPE, SECRET, plain

JSON = dict[str, Any]
STACK_TYPE = "pulumi:pulumi:Stack"


def as_plan(export: Mapping[str, Any], planned: Mapping[str, Any]) -> JSON:
    """The state of a stack beside `planned`: what that declares, with the values that are applied.

    A value that the plan does not know (<computed>, <secret>) is taken to be as it is.
    """
    declared = {resource["urn"]: resource for resource in planned["resources"]}
    resources = [
        _resource(state, declared.get(state["urn"]))
        for state in (export.get("deployment") or {}).get("resources") or ()
        if state["type"] != STACK_TYPE and not state.get("delete")
    ]
    return {
        "apiVersion": planned["apiVersion"],
        "kind": planned["kind"],
        "mode": "applied",
        "topology": planned["topology"],
        "resources": sorted(resources, key=lambda one: one["urn"]),
    }


def _resource(state: Mapping[str, Any], declared: Mapping[str, Any] | None) -> JSON:
    inputs = plain(dict(state.get("inputs") or {}))
    options = {"protect": True} if state.get("protect") else {}
    if declared is not None:
        inputs = _as_declared(inputs, declared["inputs"])
        kept = {key: value for key, value in declared["options"].items() if key != "protect"}
        options |= kept
        if state["type"] == PROVIDER_TYPE:
            inputs = declared["inputs"]  # it keeps nested values as text
    return {
        "urn": state["urn"],
        "type": state["type"],
        "name": state["urn"].rpartition("::")[2],
        "inputs": inputs,
        "options": options,
    }


def _as_declared(applied: Any, declared: Any) -> Any:
    """`applied`, without what is not declared, and with what a plan cannot know."""
    if declared in (COMPUTED, SECRET):
        return declared
    if isinstance(declared, Mapping) and isinstance(applied, Mapping):
        return {
            key: _as_declared(applied[key], value)
            for key, value in declared.items()
            if key in applied
        }
    if isinstance(declared, list) and isinstance(applied, list) and len(declared) == len(applied):
        return [_as_declared(*pair) for pair in zip(applied, declared, strict=True)]
    return applied
