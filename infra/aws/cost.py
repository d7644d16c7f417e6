"""What a plan costs a month. Pure: graph, prices and assumed use in, an estimate out.

Every line says which price it rests on, from where and of when. What has no price is listed as
unpriced, what nobody counts as uncounted; neither is 0. Groups stand in the order of the design
document's breakdown, and the estimate says when the measured order is another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from infra.aws.prices import Price, Prices
from infra.aws.quantities import GROUPS, Group, Quantity, quantities, uncounted
from infra.aws.usage import Usage

JSON = Mapping[str, Any]


@dataclass(frozen=True)
class Share:
    """`quantity` units at one tier's price."""

    price: Price
    quantity: float

    @property
    def usd(self) -> float:
        return self.quantity * self.price.usd


@dataclass(frozen=True)
class CostLine:
    """One sku in one region, for all resources that need it; without `shares` it has no price.

    `priced_as` is the other region whose price is assumed.
    """

    group: Group
    sku: str
    region: str
    unit: str
    quantity: float
    basis: str
    resources: tuple[str, ...]
    shares: tuple[Share, ...]
    priced_as: str = ""

    @property
    def usd(self) -> float:
        return sum(share.usd for share in self.shares)

    def document(self) -> dict[str, Any]:
        line: dict[str, Any] = {
            "group": self.group,
            "sku": self.sku,
            "region": self.region,
            "quantity": round(self.quantity, 2),
            "unit": self.unit,
            "basis": self.basis,
            "resources": list(self.resources),
        }
        if not self.shares:
            return line
        line["usd"] = round(self.usd, 2)
        line["prices"] = [
            {**share.price.document(), "quantity": round(share.quantity, 2)}
            for share in self.shares
        ]
        return line | ({"pricedAs": self.priced_as} if self.priced_as else {})


@dataclass(frozen=True)
class Estimate:
    """A month, in US dollars."""

    topology: str
    lines: tuple[CostLine, ...]
    unpriced: tuple[CostLine, ...]
    uncounted: tuple[str, ...]
    usage: Usage
    oldest_price: str
    newest_price: str

    @property
    def usd(self) -> float:
        return sum(line.usd for line in self.lines)

    @property
    def assumed_usd(self) -> float:
        """The part that rests on the prices of another region."""
        return sum(line.usd for line in self.lines if line.priced_as)

    def of(self, group: Group, basis: str | None = None) -> float:
        return sum(
            line.usd for line in self.lines if line.group == group and basis in (None, line.basis)
        )

    def sku(self, start: str) -> float:
        """Dollars of all skus that begin so."""
        return sum(line.usd for line in self.lines if line.sku.startswith(start))

    @property
    def measured_order(self) -> tuple[Group, ...]:
        """The groups of the design document by what they cost, the dearest first."""
        return tuple(sorted(GROUPS[:-1], key=lambda group: -self.of(group)))

    def document(self) -> dict[str, Any]:
        return {
            "apiVersion": "regionctl/v1",
            "kind": "InfraCost",
            "mode": "planned",
            "topology": self.topology,
            "currency": "USD",
            "totalUsd": round(self.usd, 2),
            "assumedUsd": round(self.assumed_usd, 2),
            "groups": [
                {
                    "group": group,
                    "usd": round(self.of(group), 2),
                    "declaredUsd": round(self.of(group, "declared"), 2),
                    "usageUsd": round(self.of(group, "usage"), 2),
                }
                for group in GROUPS
            ],
            "order": {
                "designed": list(GROUPS[:-1]),
                "measured": list(self.measured_order),
                "same": self.measured_order == GROUPS[:-1],
            },
            "lines": [line.document() for line in self.lines],
            "unpriced": [line.document() for line in self.unpriced],
            "uncounted": list(self.uncounted),
            "usage": self.usage.document(),
            "prices": {"oldest": self.oldest_price, "newest": self.newest_price},
        }


def estimate(plan: JSON, prices: Prices, usage: Usage) -> Estimate:
    """What the resources of a plan cost a month. Deterministic."""
    resources = plan["resources"]
    lines = _priced(quantities(resources, usage), prices)
    return Estimate(
        topology=plan["topology"],
        lines=tuple(line for line in lines if line.shares),
        unpriced=tuple(line for line in lines if not line.shares),
        uncounted=tuple(uncounted(resources)),
        usage=usage,
        oldest_price=prices.oldest,
        newest_price=prices.newest,
    )


def _priced(found: Sequence[Quantity], prices: Prices) -> list[CostLine]:
    """One line a sku and region. Tiers are used up once, by the regions that share them."""
    together: dict[tuple[int, str, str, str, str], list[Quantity]] = defaultdict(list)
    for each in found:
        key = (GROUPS.index(each.group), each.sku, each.region, each.unit, each.basis)
        together[key].append(each)
    used: dict[tuple[str, str], float] = defaultdict(float)
    lines = []
    for (group, sku, region, unit, basis), members in sorted(together.items()):
        tiers = prices.tiers(sku, region)
        quantity = sum(each.amount for each in members)
        place = tiers[0].region if tiers else region
        shares = spread(quantity, tiers, used[sku, place])
        used[sku, place] += quantity
        lines.append(
            CostLine(
                group=GROUPS[group],
                sku=sku,
                region=region,
                unit=unit,
                quantity=quantity,
                basis=basis,
                resources=tuple(sorted({each.urn for each in members})),
                shares=shares,
                priced_as=place if place not in (region, "global") else "",
            )
        )
    return lines


def spread(quantity: float, tiers: Sequence[Price], used: float = 0.0) -> tuple[Share, ...]:
    """`quantity` over the tiers of a price, of which `used` units are gone already."""
    shares = []
    for index, tier in enumerate(tiers):
        end = tiers[index + 1].above if index + 1 < len(tiers) else inf
        part = min(used + quantity, end) - max(used, tier.above)
        if part > 0:
            shares.append(Share(tier, part))
    return tuple(shares)
