"""What a drill on AWS does to whom, before anybody agrees to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infra.aws.limits import REASONS, refused
from infra.topology import Topology

JSON = dict[str, Any]
# What a drill's own steps need that AWS has not, by the name of the step.
NEEDS = {
    "reshard": "moves",
    "data-corruption": "inject corrupt",
    "backup-restore": "verify",
}


def check(drill: str, steps: Sequence[Mapping[str, Any]]) -> None:
    """Raises `Refused` for a drill that AWS does not let anybody run, before anything is broken."""
    if drill in NEEDS:
        raise refused(NEEDS[drill], "regionctl drill run region-failure --topology aws-two-regions")
    for fault in faults(steps):
        if f"inject {fault['kind']}" in REASONS:
            raise refused(f"inject {fault['kind']}")


def faults(steps: Sequence[Mapping[str, Any]]) -> list[JSON]:
    return [dict(step["args"]["fault"]) for step in steps if step["name"] == "inject-fault"]


def needed(topology: Topology, plan: Mapping[str, Any]) -> list[JSON]:
    """[{"name", "for", "consequence"}]: what a person has to agree to, the gravest first.

    A lost region has to be typed by name; the rest is a yes.
    """
    lossy = "recovery" in plan.get("expected", {})
    found: list[JSON] = []
    for fault in faults(plan["steps"]):
        kind, target = fault["kind"], fault["target"]
        if kind == "kill-region":
            found.append(
                {
                    "name": target,
                    "for": "outage",
                    "consequence": f"Every service of {target} ends and its databases let none in: "
                    "clients get 503 until the other region serves.",
                }
            )
        else:
            found.append({"name": target, "for": "outage", "consequence": f"{target} is ended."})
    if lossy:
        lag = plan["expected"].get("lossSeconds")
        told = "nobody knows how much: AWS was not asked" if lag is None else f"about {lag:g} s"
        found.append(
            {
                "name": "data-loss",
                "for": "loss",
                "consequence": "Acknowledged orders that were not replicated are lost "
                f"({told}), in {len(topology.databases)} global databases.",
            }
        )
        found.append(
            {
                "name": "return",
                "for": "work",
                "consequence": "The lost region is led back afterwards by a switchover, which is a "
                "change of its own.",
            }
        )
    return found
