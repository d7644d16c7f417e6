"""How a plan, its findings, its policies and its cost are shown to people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli.render import Table

JSON = Mapping[str, Any]
NAMED = 3
INDENT = "  "


def name(urn: str) -> str:
    return urn.rpartition("::")[2] or "-"


def tree(plan: JSON, *, inputs: bool) -> Table:
    """The resources as they are nested; with `inputs` also what each is given and needs."""
    from infra.aws import plan as plans

    rows: list[tuple[object, ...]] = []

    def walk(nodes: Sequence[plans.Node], depth: int) -> None:
        for node in nodes:
            one = node.resource
            kind = one["type"].rpartition(":")[2]
            rows.append((INDENT * depth + one["name"], kind, one["region"]))
            if inputs and one["type"].startswith("aws:"):
                rows.extend(_details(one, INDENT * (depth + 1)))
            walk(node.children, depth + 1)

    walk(plans.tree(plan), 0)
    count = len(plans.managed(plan))
    foot = [
        "",
        f"{count} resources of AWS, planned: nothing exists yet by this, and what AWS makes",
    ]
    foot += ["up is <computed>. It is no diff with an account: regionctl infra up --dry-run is."]
    return Table(("resource", "type", "region"), rows, title=f"{plan['topology']}:", foot=foot)


def _details(resource: JSON, indent: str) -> Iterator[tuple[object, ...]]:
    for key, value in sorted(resource["inputs"].items()):
        needs = ", ".join(name(urn) for urn in resource["propertyDependencies"].get(key, ()))
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        yield (f"{indent}{key} = {text}{f' ← {needs}' if needs else ''}", "", "")


def findings(found: Sequence[JSON]) -> Table:
    rows = [
        (each["level"], each["rule"], name(each["urn"]), each["path"], _said(each))
        for each in found
    ]
    title = f"{len(found)} findings:" if found else "findings: none"
    return Table(("level", "rule", "resource", "at", "what") if rows else (), rows, title=title)


def _said(finding: JSON) -> str:
    hint = f"; {finding['hint']}" if finding["hint"] else ""
    return f"{finding['message']}{hint}"


def policies(judged: JSON, *, every: bool) -> list[Table]:
    """Each policy with its count (`every`), then the violations, alike ones together."""
    violations = judged["violations"]
    tables = []
    if every:
        counted: list[tuple[object, ...]] = [
            (
                policy["name"],
                policy["level"],
                sum(1 for each in violations if each["policy"] == policy["name"]),
                policy["description"],
            )
            for policy in judged["policies"]
        ]
        tables.append(Table(("policy", "level", "violations", "asks"), counted))
    together: dict[tuple[str, str, str], list[str]] = {}
    for each in violations:
        key = (each["level"], each["policy"], each["message"])
        together.setdefault(key, []).append(name(each["urn"]))
    rows = [
        (level, policy, message, _some(names))
        for (level, policy, message), names in sorted(together.items(), reverse=True)
    ]
    hard = sum(1 for each in violations if each["level"] == "mandatory")
    title = f"policies: {hard} mandatory violations, {len(violations) - hard} advisory"
    columns = ("level", "policy", "what", "resources") if rows else ()
    return [*tables, Table(columns, rows, title=title)]


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def cost(document: JSON, *, lines: bool) -> list[Table]:
    """The groups in the design document's order; with `lines` each price with its source."""
    rows: list[tuple[object, ...]] = [
        (each["group"], usd(each["usd"]), usd(each["declaredUsd"]), usd(each["usageUsd"]))
        for each in document["groups"]
    ]
    rows.append(("total", usd(document["totalUsd"]), "", ""))
    columns = ("group", "USD a month", "declared", "by assumed use")
    tables = [Table(columns, rows, title="cost, planned:", foot=_cost_foot(document))]
    if lines:
        tables.append(_cost_lines(document))
        tables.append(_unpriced(document))
    return tables


def _cost_foot(document: JSON) -> list[str]:
    order, dates = document["order"], document["prices"]
    foot = [f"List prices on demand of {dates['oldest']} to {dates['newest']}."]
    if document["assumedUsd"]:
        foot.append(
            f"{usd(document['assumedUsd'])} USD of it at another region's prices (assumed)."
        )
    if not order["same"]:
        measured = ", ".join(order["measured"])
        foot.append(f"By size the order is {measured}; the design document has it otherwise.")
    if document["unpriced"]:
        skus = sorted({each["sku"] for each in document["unpriced"]})
        foot.append(f"Without a price, so not in the total: {', '.join(skus)}.")
    if document["uncounted"]:
        foot.append(f"Not counted at all: {', '.join(document['uncounted'])}.")
    return foot


def _cost_lines(document: JSON) -> Table:
    rows = [
        (
            line["group"],
            line["sku"],
            line["region"],
            f"{line['quantity']:,.1f} {line['unit']}",
            usd(line["usd"]),
            line["basis"],
            _source(line),
        )
        for line in document["lines"]
    ]
    columns = ("group", "sku", "region", "quantity", "USD", "basis", "price, date, source")
    return Table(columns, rows)


def _source(line: JSON) -> str:
    price = line["prices"][-1]
    where = f" as in {line['pricedAs']}" if "pricedAs" in line else ""
    return f"{price['usd']:g} per {price['unit']}{where}, {price['date']}, {price['source']}"


def _unpriced(document: JSON) -> Table:
    rows = [
        (each["sku"], each["region"], f"{each['quantity']:,.1f} {each['unit']}", each["basis"])
        for each in document["unpriced"]
    ]
    columns = ("unpriced", "region", "quantity", "basis") if rows else ()
    return Table(columns, rows, title="" if rows else "everything counted has a price")


def hints(found: Sequence[JSON]) -> Table:
    rows = [
        (
            each["name"],
            "" if each["monthlyUsd"] is None else usd(each["monthlyUsd"]),
            each["message"],
        )
        for each in found
    ]
    return Table(("hint", "saves USD", "because"), rows)


def changes(found: Sequence[JSON], against: str) -> Table:
    """What differs from another plan, in declared inputs."""
    rows = [
        (each["kind"], each["name"], each["type"].rpartition(":")[2], field["path"], _both(field))
        for each in found
        for field in (each["fields"] or [{"path": "", "old": None, "new": None}])
    ]
    title = f"{len(found)} resources differ from {against} in declared inputs:"
    if not found:
        return Table((), (), title=f"nothing declared differs from {against}")
    return Table(("change", "resource", "type", "input", "from → to"), rows, title=title)


def _both(field: JSON) -> str:
    if not field["path"]:
        return ""
    return f"{json.dumps(field['old'])} → {json.dumps(field['new'])}"


def usd(value: float) -> str:
    return f"{value:,.2f}"
