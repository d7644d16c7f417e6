"""regionctl infra: the same topology on AWS; planned without an account, applied with one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import infra_children as children
from cli import infra_prices, infra_stack, render
from cli import infra_tables as tables
from cli.infra_children import Planned
from cli.infra_stack import DEFAULT, Backend, Topology
from cli.leaf import Run, group, leaf
from cli.render import Table
from runtime.errors import Exit, Invalid

JSON = dict[str, Any]
app = group()
app.add_typer(infra_prices.app, name="prices", help="List prices that estimates rest on.")
infra_stack.register(app)

APPLIED = "applied"
UsageFile = Annotated[
    Path | None,
    typer.Option("--usage", metavar="FILE", help="YAML with other assumptions about use."),
]


@leaf(
    app,
    "plan",
    examples=(
        "regionctl infra plan",
        "regionctl infra plan --topology mine.yaml --inputs",
        "regionctl infra plan -o json > plan.json",
        "regionctl infra plan --diff plan.json",
    ),
)
async def plan(
    run: Run,
    topology: Topology = DEFAULT,
    diff: Annotated[
        str | None,
        typer.Option(
            "--diff",
            metavar="applied|NAME|FILE",
            help="Compare with what is applied, another topology, a plan or a stack export (JSON).",
        ),
    ] = None,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Show what each resource is given and needs.")
    ] = False,
    usage: UsageFile = None,
    backend: Backend = None,
) -> Exit:
    """What would be made on AWS, whether it may be, and what it costs. Needs no account.

    Exit 5 when a finding or a mandatory policy is in the way, 20 when --diff finds a difference.
    """
    planned, other = await asyncio.gather(
        children.planned(topology), _other(run, diff, topology, backend)
    )
    document, shown = _judged(planned, usage)
    found = None if other is None or diff is None else _changes(other, planned.plan)
    if found is not None:
        document["diff"] = {"against": diff, "declaredInputs": found}
        shown.append(tables.changes(found, str(diff)))
    shown.insert(0, tables.tree(planned.plan, inputs=inputs))
    urns = [resource["urn"] for resource in planned.plan["resources"]]
    render.show(run.output, document, tables=shown, names=urns)
    return verdict(planned, found)


def verdict(planned: Planned, changes: list[JSON] | None = None) -> Exit:
    """What is in the way comes before what differs."""
    if planned.wrong or planned.violations:
        return Exit.REFUSED
    return Exit.CHANGES if changes else Exit.OK


@leaf(
    app,
    "cost",
    examples=("regionctl infra cost", "regionctl infra cost --usage busy.yaml -o json"),
)
async def cost(run: Run, topology: Topology = DEFAULT, usage: UsageFile = None) -> None:
    """What a month costs: every line with its price, date and source, and where to save."""
    document = _cost(await children.recorded(topology), usage)
    shown = [*tables.cost(document, lines=True), tables.hints(document["hints"])]
    skus = sorted({line["sku"] for line in document["lines"]})
    render.show(run.output, document, tables=shown, names=skus)


@leaf(app, "policy", examples=("regionctl infra policy", "regionctl infra policy -o json"))
async def policy(run: Run, topology: Topology = DEFAULT) -> Exit:
    """The policies and findings on a plan: encryption, exposure, tags, protection, two zones.

    Exit 5 when a finding or a mandatory policy is in the way.
    """
    planned = await children.planned(topology)
    document = {
        "apiVersion": "regionctl/v1",
        "kind": "InfraPolicies",
        "mode": "planned",
        "topology": planned.plan["topology"],
        "findings": list(planned.findings),
        **planned.policies,
    }
    shown = [*tables.policies(planned.policies, every=True), tables.findings(planned.findings)]
    broken = sorted({each["policy"] for each in planned.policies["violations"]})
    render.show(run.output, document, tables=shown, names=broken)
    return verdict(planned)


def _judged(planned: Planned, usage: Path | None) -> tuple[JSON, list[Table]]:
    """The plan with all that is known of it, and the tables below its tree."""
    estimate = _cost(planned.plan, usage)
    document = {
        **planned.plan,
        "findings": list(planned.findings),
        "policies": planned.policies,
        "cost": estimate,
    }
    shown = [
        tables.findings(planned.findings),
        *tables.policies(planned.policies, every=False),
        *tables.cost(estimate, lines=False),
        tables.hints(estimate["hints"]),
    ]
    return document, shown


def _cost(plan: JSON, usage: Path | None) -> JSON:
    from infra.aws import cost as costs
    from infra.aws import prices, savings
    from infra.aws import usage as uses

    known = prices.load()
    assumed = uses.load(usage) if usage is not None else uses.Usage()
    estimate = costs.estimate(plan, known, assumed)
    hints = savings.hints(plan["resources"], estimate, known)
    return {**estimate.document(), "hints": [hint.document() for hint in hints]}


async def _other(run: Run, diff: str | None, topology: str, backend: str | None) -> JSON | None:
    """What the plan is compared with: a plan, or the state of a stack."""
    if diff is None:
        return None
    if diff == APPLIED:
        return await infra_stack.export(run, topology, backend)
    if diff.endswith(".json"):
        return _read(Path(diff))
    return await children.recorded(diff)


def _read(path: Path) -> JSON:
    import json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if "resources" in found or "resources" in found["deployment"]:
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(
            f"{path} is neither a plan nor a stack export: {error!r}.",
            hint="regionctl infra plan -o json > plan.json",
        ) from error
    raise Invalid(f"{path} has no resources.")


def _changes(other: JSON, plan: JSON) -> list[JSON]:
    from infra.aws import applied
    from infra.aws import plan as plans

    before = applied.as_plan(other, plan) if "deployment" in other else other
    return [
        {
            "kind": change.kind,
            "urn": change.urn,
            "type": change.type,
            "name": change.name,
            "fields": [{"path": path, "old": old, "new": new} for path, old, new in change.fields],
        }
        for change in plans.diff(before, plan)
    ]
